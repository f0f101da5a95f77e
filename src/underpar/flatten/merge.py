"""One module out of many: live statements in the order of their imports, under names that do not collide."""

import ast
from collections.abc import Iterable, Iterator

from underpar.flatten.fold import Fold
from underpar.flatten.modules import FlattenError, Library, Meaning, Module, Own, Statement, meaning_of
from underpar.flatten.reach import Reached, libraries_of

OFTEN_ABSENT = frozenset({"triton", "numba", "flash_attn", "cutlass", "zstandard"})
"""Libraries whose importers are themselves imported on use: what needs one is left out where it is missing."""


class Names:
    """The name in the script of every live definition and of every library import."""

    def __init__(self, reached: Reached, order: list[str]) -> None:
        self.reached = reached
        self.own: dict[Own, str] = {}
        self.libraries: dict[tuple[str, str | None], str] = {}
        self._taken = _local_names(reached)
        for own in sorted(
            reached.live, key=lambda own: (not own.name[:1].isupper(), order.index(own.module), own.name)
        ):
            self.own[own] = self._free(own.name, own.module)

    def _free(self, name: str, module: str) -> str:
        tried, number = name, 2
        if tried in self._taken:
            tried = f"{module.rpartition('.')[2]}_{name.lstrip('_')}"
        while tried in self._taken:
            tried, number = f"{name}{number}", number + 1
        self._taken.add(tried)
        return tried

    def of(self, meaning: Meaning) -> str:
        """Raises FlattenError where a module is used as a value."""
        found = self.reached.canonical(meaning) if isinstance(meaning, Own) else meaning
        if isinstance(found, Own):
            return self.own[found]
        if isinstance(found, Library):
            return self.library(found)
        raise FlattenError(f"{found.module} is used as a value; import what is in it")

    def library(self, found: Library) -> str:
        key = (found.module if found.alias else found.module.partition(".")[0], found.name)
        if key not in self.libraries:
            self.libraries[key] = self._free(found.alias or key[0], found.module)
        return self.libraries[key]


def _local_names(reached: Reached) -> set[str]:
    """Names that code binds for itself: what stands at the top has another, so that one name means one thing."""
    found: set[str] = set()
    for module in reached.modules.values():
        for statement in _live(reached, module):
            for node in ast.walk(statement.node):
                if isinstance(node, ast.arg):
                    found.add(node.arg)
                elif isinstance(node, ast.Name) and meaning_of(node) is None:
                    found.add(node.id)
    return found


def merge(reached: Reached, entry: str) -> ast.Module:
    """The script as a tree, without the call that starts it."""
    order = list(_import_order(reached, entry))
    names = Names(reached, order)
    fold, rename = Fold(reached), _Rename(names)
    eager: list[ast.stmt] = []
    optional: dict[frozenset[str], list[ast.stmt]] = {}
    imports: dict[Library, frozenset[str]] = {}
    needs = _needs(reached, order)
    for name in order:
        found: list[ast.stmt] = []
        for statement in _live(reached, reached.modules[name]):
            node = fold.statement(statement.node, Own(name, statement.binds[0] if statement.binds else ""))
            for library in libraries_of(node):
                imports.setdefault(library, needs[name])
            found += rename.statement(node, name)
        (optional.setdefault(needs[name], []) if needs[name] else eager).extend(found)
    body = [*_import_statements([lib for lib in imports if not imports[lib]], names), *eager]
    for missing in sorted(optional, key=len):
        inside = _import_statements([lib for lib in imports if imports[lib] == missing], names) + optional[missing]
        handler = ast.ExceptHandler(ast.Name("ImportError", ast.Load()), None, [ast.Pass()])
        body.append(ast.Try(inside, [handler], [], []))
    return ast.fix_missing_locations(ast.Module(body, []))


def _live(reached: Reached, module: Module) -> list[Statement]:
    return [s for s in module.statements if id(s) in reached.statements]


def _import_order(reached: Reached, entry: str) -> Iterator[str]:
    """Modules as Python would have run them: what a module imports at its top comes before it, the rest at the end."""
    done: set[str] = set()

    def visit(name: str) -> Iterator[str]:
        if name not in done and name in reached.modules:
            done.add(name)
            for other in reached.modules[name].imports:
                yield from visit(reached.replaced.get(other, other))
            yield name

    yield from visit(entry)
    for name in list(reached.modules):
        yield from visit(name)


def _needs(reached: Reached, order: list[str]) -> dict[str, frozenset[str]]:
    """Module -> the often absent libraries that its live statements and what it imports need."""
    found: dict[str, frozenset[str]] = {}
    for name in order:
        module = reached.modules[name]
        mine = {lib.module.partition(".")[0] for s in _live(reached, module) for lib in libraries_of(s.node)}
        used = {
            meaning.module
            for s in _live(reached, module)
            for node in _at_import(s.node)
            if isinstance(meaning := meaning_of(node), Own) and meaning.module in found
        }
        found[name] = frozenset(mine & OFTEN_ABSENT).union(*(found[other] for other in used))
    return found


def _at_import(node: ast.stmt) -> Iterator[ast.AST]:
    """Nodes that run when the module is imported: not the bodies of functions."""
    waiting: list[ast.AST] = [node]
    while waiting:
        inner = waiting.pop()
        yield inner
        if isinstance(inner, ast.FunctionDef):
            waiting += [*inner.decorator_list, *inner.args.defaults]
        elif not isinstance(inner, ast.Lambda):
            waiting.extend(ast.iter_child_nodes(inner))


def _import_statements(libraries: Iterable[Library], names: Names) -> list[ast.stmt]:
    whole: dict[str, ast.alias] = {}
    parts: dict[str, dict[str, ast.alias]] = {}
    for library in sorted(libraries, key=lambda lib: (lib.module, lib.name or "")):
        bound = names.library(library)
        if library.name is None:
            shown = library.module.partition(".")[0] if not library.alias else library.module
            whole[library.module + library.alias] = ast.alias(
                library.module, None if bound == shown and not library.alias else bound
            )
        else:
            parts.setdefault(library.module, {})[bound] = ast.alias(
                library.name, None if bound == library.name else bound
            )
    found: list[ast.stmt] = [ast.Import(list(whole.values()))] if whole else []
    return found + [ast.ImportFrom(module, list(aliases.values()), 0) for module, aliases in parts.items()]


class _Rename(ast.NodeTransformer):
    """Gives every name its name in the script, and takes our own imports out of functions."""

    def __init__(self, names: Names) -> None:
        self.names = names

    def statement(self, node: ast.stmt, module: str) -> list[ast.stmt]:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            own = Own(module, node.name)
            node.name = self.names.own.get(own, node.name)
        found = self.visit(node)
        return [] if found is None else [found]

    def visit_Name(self, node: ast.Name) -> ast.AST:
        meaning = meaning_of(node)
        return node if meaning is None else ast.copy_location(ast.Name(self.names.of(meaning), node.ctx), node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        meaning = meaning_of(node)
        if isinstance(meaning, Own):
            return ast.copy_location(ast.Name(self.names.of(meaning), node.ctx), node)
        return self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> ast.AST:
        node.names = [self.names.of(m) if m else n for n, m in zip(node.names, node.meanings, strict=True)]  # type: ignore[attr-defined]
        return node

    def _import(self, node: ast.Import | ast.ImportFrom) -> ast.AST | None:
        """Inside a function: libraries stay, what is ours is in the script already."""
        ours = getattr(node, "ours", [False] * len(node.names))
        node.names = [alias for alias, own in zip(node.names, ours, strict=True) if not own]
        return node if node.names else None

    visit_Import = visit_ImportFrom = _import
