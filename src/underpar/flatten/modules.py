"""Modules as syntax trees in which every name says what it means: a definition of ours, an import of a library, or a local."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import underpar
from underpar.core.errors import UnderparError
from underpar.flatten.trim import Trim
from underpar.flatten.unchecked import Unchecked

PACKAGE = "underpar"
ROOT = Path(underpar.__file__).resolve().parent


class Own(NamedTuple):
    """A definition at the top of a module of ours."""

    module: str
    name: str


class OwnModule(NamedTuple):
    """A module of ours."""

    module: str


class Library(NamedTuple):
    """What an import of a library binds: `import module` without a name, `from module import name` with one."""

    module: str
    name: str | None
    alias: str
    """The name that the source gives it."""


Meaning = Own | OwnModule | Library


@dataclass
class Statement:
    """One statement at the top of a module."""

    node: ast.stmt
    binds: tuple[str, ...] = ()


@dataclass
class Module:
    """A parsed module. `means` maps the names that it binds at the top; `statements` leaves imports and docstrings out."""

    name: str
    statements: list[Statement] = field(default_factory=list)
    means: dict[str, Meaning] = field(default_factory=dict)
    imports: list[str] = field(default_factory=list)
    """Modules of ours that importing this one imports, in order."""


class FlattenError(UnderparError):
    """A construct that one file cannot hold."""


def module_file(name: str) -> Path | None:
    """The file of a module of ours, None where there is none."""
    first, *rest = name.split(".")
    base = ROOT.joinpath(*rest)
    paths = (base / "__init__.py", base.with_suffix(".py")) if first == PACKAGE else ()
    return next((path for path in paths if path.is_file()), None)


def read_module(name: str, texts: bool = True) -> Module:
    """Parse a module, trim it and give every name its meaning. Raises FlattenError for a module that is not ours."""
    path = module_file(name)
    if path is None:
        raise FlattenError(f"no module {name!r} in {PACKAGE}")
    module = Module(name)
    parsed = ast.parse(path.read_text(encoding="utf-8"), str(path))
    body = list(_running((parsed if texts else Unchecked().visit(parsed)).body))
    kept: list[ast.stmt] = []
    for node in Trim(texts).body(body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for bound, meaning in import_meanings(node):
                module.means[bound] = meaning
                if isinstance(meaning, Own | OwnModule):
                    module.imports.append(meaning.module)
        else:
            kept.append(node)
    for node in kept:
        binds = tuple(dict.fromkeys(_bound_by([node])))
        module.statements.append(Statement(node, binds))
        module.means |= {bound: Own(name, bound) for bound in binds}
    scope = _Scope("module", dict(module.means))
    resolver = _Resolver(scope)
    for statement in module.statements:
        resolver.visit(statement.node)
    return module


def import_meanings(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Meaning]]:
    """(name bound, what it means) for every alias of an import."""
    for alias in node.names:
        if isinstance(node, ast.Import):
            bound = alias.asname or alias.name.partition(".")[0]
            if alias.name.partition(".")[0] == PACKAGE:
                yield bound, OwnModule(alias.name if alias.asname else PACKAGE)
            else:
                yield bound, Library(alias.name, None, bound if alias.asname else "")
        else:
            source, bound = node.module or "", alias.asname or alias.name
            if source.partition(".")[0] != PACKAGE:
                yield bound, Library(source, alias.name, bound)
            elif module_file(f"{source}.{alias.name}"):
                yield bound, OwnModule(f"{source}.{alias.name}")
            else:
                yield bound, Own(source, alias.name)


def meaning_of(node: ast.AST) -> Meaning | None:
    """What a name or an attribute of a module of ours means; None for locals, builtins and other expressions."""
    return getattr(node, "meaning", None)


def _running(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module without what only type checkers see."""
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _running(node.orelse)
        elif not (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
            yield node


def _bound_by(nodes: list[ast.stmt] | list[ast.expr]) -> Iterator[str]:
    """Names that statements bind in their own scope."""
    waiting: list[ast.AST] = list(reversed(nodes))
    while waiting:
        node = waiting.pop()
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
                continue
            case ast.Lambda():
                continue
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                yield from (n.target.id for n in ast.walk(node) if isinstance(n, ast.NamedExpr))
                continue
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                yield name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name
            case ast.MatchMapping(rest=str(name)):
                yield name
        waiting.extend(reversed(list(ast.iter_child_nodes(node))))


@dataclass
class _Scope:
    kind: str
    names: dict[str, Meaning | None]
    outer: "_Scope | None" = None

    def find(self, name: str) -> Meaning | None:
        scope: _Scope | None = self
        while scope:
            if name in scope.names and (scope is self or scope.kind != "class"):
                return scope.names[name]
            scope = scope.outer
        return None

    @property
    def top(self) -> "_Scope":
        return self.outer.top if self.outer else self


class _Resolver(ast.NodeVisitor):
    """Sets `meaning` on names, attributes of our modules, `global` statements and imports."""

    def __init__(self, scope: _Scope) -> None:
        self.scope = scope

    def visit_Name(self, node: ast.Name) -> None:
        node.meaning = self.scope.find(node.id)  # type: ignore[attr-defined]

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.visit(node.value)
        base = meaning_of(node.value)
        if isinstance(base, OwnModule):
            deeper = f"{base.module}.{node.attr}"
            node.meaning = OwnModule(deeper) if module_file(deeper) else Own(base.module, node.attr)  # type: ignore[attr-defined]

    def visit_Global(self, node: ast.Global) -> None:
        node.meanings = [self.scope.top.names.get(name) for name in node.names]  # type: ignore[attr-defined]

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for part in (*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(part)
        arguments = _arguments(node.args)
        for annotation in (*(a.annotation for a in arguments), node.returns):
            if annotation:
                self.visit(annotation)
        self._inside("function", [a.arg for a in arguments], node.body)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        for part in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(part)
        self._inside("function", [a.arg for a in _arguments(node.args)], [node.body])

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for part in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(part)
        self._inside("class", [], node.body)

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        targets = [n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)]
        self.visit(node.generators[0].iter)
        outer, self.scope = self.scope, _Scope("function", dict.fromkeys(targets), self.scope)
        for index, generator in enumerate(node.generators):
            for part in (generator.target, *generator.ifs, *([generator.iter] if index else [])):
                self.visit(part)
        for part in [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]:
            self.visit(part)
        self.scope = outer

    visit_ListComp = visit_SetComp = visit_GeneratorExp = visit_DictComp = _comprehension

    def _inside(self, kind: str, arguments: list[str], body: list[ast.stmt] | list[ast.expr]) -> None:
        names: dict[str, Meaning | None] = dict.fromkeys([*_bound_by(body), *arguments])
        inner = _Scope(kind, names, self.scope)
        for node in own_nodes(body):
            if isinstance(node, ast.Import | ast.ImportFrom):
                ours: list[bool] = []
                for bound, meaning in import_meanings(node):
                    names[bound] = None if isinstance(meaning, Library) else meaning
                    ours.append(not isinstance(meaning, Library))
                vars(node)["ours"] = ours
            elif isinstance(node, ast.Global):
                names |= {name: inner.top.names.get(name) for name in node.names}
            elif isinstance(node, ast.Nonlocal):
                for name in node.names:
                    names.pop(name, None)
        outer, self.scope = self.scope, inner
        for node in body:
            self.visit(node)
        self.scope = outer


def _arguments(args: ast.arguments) -> list[ast.arg]:
    return [*args.posonlyargs, *args.args, *args.kwonlyargs, *filter(None, (args.vararg, args.kwarg))]


def own_nodes(body: list[ast.stmt] | list[ast.expr]) -> Iterator[ast.AST]:
    """Nodes of a scope, those of inner functions and classes left out."""
    waiting: list[ast.AST] = list(body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            waiting.extend(ast.iter_child_nodes(node))
