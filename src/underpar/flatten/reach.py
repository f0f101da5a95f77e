"""What a program reaches: definition by definition, and of a class only the methods whose names somebody speaks.

A class that nothing makes or derives from is dead even where `isinstance` asks for it, and so is what that question guards.
A config class of the resolved recipe has all its fields given, so that the defaults of its fields are dead as well.
"""

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from underpar.flatten.modules import FlattenError, Library, Meaning, Module, Own, OwnModule, Statement, meaning_of
from underpar.flatten.trim import last_name

CALLED_BY_LIBRARIES = frozenset({"forward", "backward", "setup_context", "run", "close"})
"""Methods that torch or threads call without their names standing in our source."""


@dataclass
class Reached:
    """The live part of the package."""

    modules: dict[str, Module]
    live: set[Own]
    statements: set[int]
    """id of every live statement."""
    spoken: set[str]
    """Attributes, keywords and strings that live code mentions."""
    whole: set[Own]
    """Config classes that live code builds itself, so that their defaults count."""
    given: frozenset[str]
    """Config classes of the recipe."""
    replaced: Mapping[str, str]

    def canonical(self, meaning: Meaning) -> Meaning:
        """Where a name is really defined."""
        while isinstance(meaning, Own):
            meaning = moved(meaning, self.replaced)
            found = self.modules[meaning.module].means.get(meaning.name)
            if found is None:
                raise FlattenError(f"{meaning.module} has no {meaning.name!r}")
            if found == meaning:
                return meaning
            meaning = found
        return meaning

    def is_dead(self, classes: Iterable[ast.expr]) -> bool:
        """Whether every one of these expressions names a class of ours that nothing makes."""
        found = [own_class(self, node) for node in classes]
        return all(own is not None and own not in self.live for own in found)

    def keeps_defaults(self, own: Own) -> bool:
        return own.name not in self.given or own in self.whole

    def is_spoken(self, node: ast.stmt, class_node: ast.ClassDef) -> bool:
        """Whether a part of a class body is live."""
        names = [node.name] if isinstance(node, ast.FunctionDef) else _assigned(node)
        if not names or any(name.startswith("__") for name in names):
            return True
        if any(name in self.spoken for name in names):
            return True
        if isinstance(node, ast.FunctionDef):
            return node.name in CALLED_BY_LIBRARIES or asks_by_name(class_node)
        return is_enum(class_node)


def moved(own: Own, replaced: Mapping[str, str]) -> Own:
    """The definition that a script has in the place of this one."""
    whole = replaced.get(own.module, own.module)
    return Own(replaced.get(f"{own.module}.{own.name}", whole), own.name)


def own_class(reached: Reached, node: ast.expr) -> Own | None:
    """The class of ours that an expression names."""
    meaning = meaning_of(node)
    found = reached.canonical(meaning) if isinstance(meaning, Own) else None
    return found if isinstance(found, Own) else None


def alternatives(node: ast.expr) -> list[ast.expr]:
    """The classes of the second argument of `isinstance`."""
    match node:
        case ast.Tuple(elts=parts):
            return list(parts)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return [*alternatives(left), *alternatives(right)]
        case _:
            return [node]


def asked_classes(test: ast.expr) -> list[ast.expr] | None:
    """Classes without which a test is false; None where it does not depend on classes alone."""
    match test:
        case ast.Call(func=ast.Name(id="isinstance"), args=[_, classes]):
            return alternatives(classes)
        case ast.BoolOp(op=ast.And(), values=values):
            return next((found for value in values if (found := asked_classes(value)) is not None), None)
        case ast.BoolOp(op=ast.Or(), values=values):
            return _all_of([asked_classes(value) for value in values])
        case _:
            return None


def _all_of(groups: list[list[ast.expr] | None]) -> list[ast.expr] | None:
    """Every class of every group; None where one does not depend on classes."""
    return None if None in groups else [each for group in groups if group for each in group]


def pattern_classes(pattern: ast.pattern) -> list[ast.expr] | None:
    """Classes without which a pattern matches nothing."""
    match pattern:
        case ast.MatchClass(cls=cls):
            return [cls]
        case ast.MatchAs(pattern=ast.pattern() as inner):
            return pattern_classes(inner)
        case ast.MatchOr(patterns=patterns):
            return _all_of([pattern_classes(each) for each in patterns])
        case _:
            return None


def _assigned(node: ast.stmt) -> list[str]:
    """Names that an assignment in a class body binds; a field counts as none, its class needs it."""
    if isinstance(node, ast.Assign):
        return [t.id for t in node.targets if isinstance(t, ast.Name)]
    return []


def is_enum(node: ast.ClassDef) -> bool:
    """Whether the names in a class are its members."""
    return any(last_name(base).endswith("Enum") for base in node.bases)


def asks_by_name(node: ast.ClassDef) -> bool:
    """Whether a class looks up its own methods by names that it makes."""
    return any(
        isinstance(n, ast.Call) and last_name(n.func) == "getattr" and isinstance(n.args[1], ast.JoinedStr)
        for n in ast.walk(node)
        if isinstance(n, ast.Call) and len(n.args) > 1
    )


@dataclass
class _Waiting:
    """Code that counts once `ready` says so."""

    ready: Callable[[], bool]
    nodes: list[ast.AST]


@dataclass
class Search:
    """Follows names from entries to everything that can run."""

    read: Callable[[str], Module]
    given: frozenset[str]
    replaced: Mapping[str, str]
    reached: Reached = field(init=False)
    _waiting: list[_Waiting] = field(default_factory=list)
    _queue: list[Own] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reached = Reached({}, set(), set(), set(), set(), self.given, self.replaced)

    def run(self, entries: Iterable[Own]) -> Reached:
        for entry in entries:
            self._follow(entry)
        while True:
            while self._queue:
                self._define(self._queue.pop())
            ready = [w for w in self._waiting if w.ready()]
            if not ready:
                return self.reached
            self._waiting = [w for w in self._waiting if not any(w is r for r in ready)]
            for waiting in ready:
                for node in waiting.nodes:
                    self._scan(node)

    def _module(self, name: str) -> Module:
        if name not in self.reached.modules:
            self.reached.modules[name] = self.read(name)
        return self.reached.modules[name]

    def _follow(self, meaning: Meaning | None) -> None:
        while isinstance(meaning, Own):
            meaning = moved(meaning, self.replaced)
            found = self._module(meaning.module).means.get(meaning.name)
            if found is None:
                raise FlattenError(f"{meaning.module} has no {meaning.name!r}")
            if found == meaning:
                if meaning not in self.reached.live:
                    self.reached.live.add(meaning)
                    self._queue.append(meaning)
                return
            meaning = found

    def _define(self, own: Own) -> None:
        for statement in self._module(own.module).statements:
            if id(statement) not in self.reached.statements and (
                own.name in statement.binds or own.name in _attached_to(statement)
            ):
                self._take(statement, own)

    def _take(self, statement: Statement, own: Own) -> None:
        self.reached.statements.add(id(statement))
        for name in statement.binds:
            self.reached.live.add(Own(own.module, name))
        if isinstance(statement.node, ast.ClassDef):
            self._class(statement.node, own)
        else:
            self._scan(statement.node)

    def _class(self, node: ast.ClassDef, own: Own) -> None:
        for part in (*node.decorator_list, *node.bases, *node.keywords):
            self._scan(part)
        for item in node.body:
            if isinstance(item, ast.AnnAssign):
                self._scan(item.annotation)
                if item.value:
                    self._waiting.append(_Waiting(lambda: self.reached.keeps_defaults(own), [item.value]))
            else:
                self._waiting.append(_Waiting(lambda item=item: self.reached.is_spoken(item, node), [item]))  # type: ignore[misc]

    def _scan(self, node: ast.AST) -> None:
        """Take note of every name in code that counts."""
        match node:
            case ast.If(test=test, body=body, orelse=rest) if (classes := asked_classes(test)) is not None:
                self._guard(classes, [test, *body])
                self._all(rest)
                return
            case ast.IfExp(test=test, body=then, orelse=other) if (classes := asked_classes(test)) is not None:
                self._guard(classes, [test, then])
                self._scan(other)
                return
            case ast.match_case(pattern=pattern, guard=guard, body=body):
                classes = pattern_classes(pattern)
                parts: list[ast.AST] = [pattern, *([guard] if guard else []), *body]
                if classes is not None:
                    self._guard(classes, parts)
                else:
                    self._all(parts)
                return
            case ast.MatchClass(kwd_attrs=names, patterns=inner, kwd_patterns=named):
                self.reached.spoken.update(names)
                if meaning_of(node.cls) is None:
                    self._scan(node.cls)
                self._all([*inner, *named])
                return
            case ast.Call(func=ast.Name(id="isinstance"), args=[value, classes]):
                self._scan(value)
                for each in alternatives(classes):
                    if not isinstance(meaning_of(each), Own):
                        self._scan(each)
                return
            case ast.Call(func=func):
                meaning = meaning_of(func)
                self._all(list(ast.iter_child_nodes(node)))
                if isinstance(meaning, Own):
                    found = self.reached.canonical(meaning)
                    if isinstance(found, Own):
                        self.reached.whole.add(found)
                return
            case ast.Attribute(attr=name):
                self.reached.spoken.add(name)
            case ast.Constant(value=str(text)) if text.isidentifier():
                self.reached.spoken.add(text)
            case ast.Global():
                for meaning in node.meanings:  # type: ignore[attr-defined]
                    self._follow(meaning)
        meaning = meaning_of(node)
        if isinstance(meaning, Own):
            self._follow(meaning)
        elif isinstance(meaning, OwnModule):
            return
        self._all(list(ast.iter_child_nodes(node)))

    def _all(self, nodes: Iterable[ast.AST]) -> None:
        for node in nodes:
            self._scan(node)

    def _guard(self, classes: list[ast.expr], nodes: list[ast.AST]) -> None:
        for each in classes:  # an expression that names no class of ours is alive
            if not isinstance(meaning_of(each), Own):
                self._all(nodes)
                return
        self._waiting.append(_Waiting(lambda: self._lives(classes), nodes))

    def _lives(self, classes: list[ast.expr]) -> bool:
        for node in classes:
            meaning = meaning_of(node)
            assert isinstance(meaning, Own)
            self._module(meaning.module)
            while (found := self._module(meaning.module).means.get(meaning.name)) != meaning and isinstance(found, Own):
                meaning = found
            if meaning in self.reached.live:
                return True
        return False


def _attached_to(statement: Statement) -> Iterator[str]:
    """Definitions that a statement adds something to: `X.register(...)`, and what is decorated by an attribute of X."""
    node = statement.node
    roots: list[ast.expr] = []
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        roots = [node.value.func]
    elif isinstance(node, ast.FunctionDef):
        roots = [d for d in node.decorator_list if isinstance(d.func if isinstance(d, ast.Call) else d, ast.Attribute)]
    for root in roots:
        while isinstance(root, ast.Attribute | ast.Call):
            root = root.value if isinstance(root, ast.Attribute) else root.func
        meaning = meaning_of(root)
        if isinstance(meaning, Own):
            yield meaning.name


def libraries_of(node: ast.AST) -> Iterator[Library]:
    """Imports at the top of a module that a statement uses."""
    for inner in ast.walk(node):
        meaning = meaning_of(inner)
        if isinstance(meaning, Library):
            yield meaning
