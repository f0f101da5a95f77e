"""Takes out what a merged program does not need: empty functions and their calls, values nobody reads, names nobody speaks."""

import ast
from collections import Counter
from collections.abc import Iterable, Iterator

from underpar.flatten.reach import CALLED_BY_LIBRARIES, asks_by_name, is_enum
from underpar.flatten.simplify import Simplify, is_idle, is_pure, walk


def sweep(tree: ast.Module, keep: Iterable[str]) -> ast.Module:
    """Once: what goes may be the last that spoke of something else. `keep`: names at the top that are spoken of outside."""
    tree = Simplify(_empty_functions(tree), _unmade_classes(tree)).visit(tree)
    spoken = _spoken(tree)
    configs = _configs(tree)
    for node in walk(tree):
        if isinstance(node, ast.FunctionDef):
            _drop_unread(node)
        elif isinstance(node, ast.ClassDef) and node.name in configs:
            _open_up(node)
        if isinstance(node, ast.ClassDef) and not asks_by_name(node):
            node.body = [item for item in node.body if _is_spoken(item, node, spoken)] or [ast.Pass()]
    for node in walk(tree):
        if getattr(node, "body", True) == []:
            vars(node)["body"] = [ast.Pass()]
    _drop_unread_fields(tree)
    _drop_unspoken_entries(tree)
    tree.body = list(_used(tree, set(keep)))
    return tree


def _drop_unread_fields(tree: ast.Module) -> None:
    """Fields that nothing reads, of dataclasses that have no equality: then nothing sees them go."""
    read = _read_names(tree)
    classes = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef) and _has_no_equality(n)}
    used = Counter(n.id for n in walk(tree) if isinstance(n, ast.Name) and n.id in classes)
    calls: dict[str, list[ast.Call]] = {name: [] for name in classes}
    for node in walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in classes:
            calls[node.func.id].append(node)
    for name, made in classes.items():
        starred = any(isinstance(a, ast.Starred) for c in calls[name] for a in c.args)
        if used[name] == len(calls[name]) and not starred and all(k.arg for c in calls[name] for k in c.keywords):
            _drop_fields(made, calls[name], read)


def _has_no_equality(node: ast.ClassDef) -> bool:
    options = [k for d in node.decorator_list if isinstance(d, ast.Call) for k in d.keywords]
    return any(k.arg == "eq" and isinstance(k.value, ast.Constant) and not k.value.value for k in options)


def _drop_fields(made: ast.ClassDef, calls: list[ast.Call], read: set[str]) -> None:
    for item in [each for each in made.body if isinstance(each, ast.AnnAssign)]:
        names = [
            each.target.id
            for each in made.body
            if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
        ]
        name = item.target.id if isinstance(item.target, ast.Name) else ""
        index = names.index(name)
        gifts = [k.value for c in calls for k in c.keywords if k.arg == name] + [
            c.args[index] for c in calls if index < len(c.args)
        ]
        if name not in read and all(map(is_pure, gifts)):
            made.body.remove(item)
            for call in calls:
                del call.args[index : index + 1]
                call.keywords = [k for k in call.keywords if k.arg != name]
    made.body = made.body or [ast.Pass()]


def _read_names(tree: ast.Module) -> set[str]:
    """Names of attributes that code reads, and of what `replace` gives."""
    found: set[str] = set()
    for node in walk(tree):
        match node:
            case ast.Attribute(attr=name, ctx=ast.Load()) | ast.Constant(value=str(name)):
                found.add(name)
            case ast.MatchClass(kwd_attrs=names):
                found.update(names)
            case ast.Call(func=ast.Name(id="replace") | ast.Attribute(attr="_replace"), keywords=keywords):
                found.update(k.arg or "" for k in keywords)
    return found


def _drop_unspoken_entries(tree: ast.Module) -> None:
    """Of tables of functions by name, those whose name nothing else says."""
    tables = [
        n.value for n in tree.body if isinstance(n, ast.Assign) and isinstance(n.value, ast.Dict) and n.value.keys
        and all(isinstance(k, ast.Constant) and isinstance(k.value, str) for k in n.value.keys)
        and all(isinstance(v, ast.Name | ast.Call) for v in n.value.values)
    ]  # fmt: skip
    said = Counter(n.value for n in walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str))
    for table in tables:
        kept = [(k, v) for k, v in zip(table.keys, table.values, strict=True) if said[k.value] > 1]  # type: ignore[union-attr]
        table.keys, table.values = [k for k, _ in kept], [v for _, v in kept]


def _configs(tree: ast.Module) -> set[str]:
    """Configuration classes. Bases stand before what derives from them."""
    found = {"Config"}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and any(isinstance(b, ast.Name) and b.id in found for b in node.bases):
            found.add(node.name)
    return found


def _open_up(node: ast.ClassDef) -> None:
    """A configuration class has the fields that it is made with, declared or not."""
    node.decorator_list = []
    node.body = [
        ast.Assign([item.target], item.value) if isinstance(item, ast.AnnAssign) and item.value else item
        for item in node.body if not isinstance(item, ast.AnnAssign) or item.value
    ] or [ast.Pass()]  # fmt: skip


def _empty_functions(tree: ast.Module) -> frozenset[str]:
    """Functions at the top that do nothing."""
    return frozenset(n.name for n in tree.body if isinstance(n, ast.FunctionDef) and _is_empty(n))


def _is_empty(node: ast.FunctionDef) -> bool:
    return not node.decorator_list and is_idle(node.body)


def _unmade_classes(tree: ast.Module) -> frozenset[str]:
    """Classes that are only asked for: no object is of one."""
    asked: set[int] = set()
    for node in walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="isinstance"), args=[_, classes]):
                asked.update(map(id, walk(classes)))
            case ast.MatchClass(cls=cls):
                asked.add(id(cls))
    named = {n.id for n in walk(tree) if isinstance(n, ast.Name) and id(n) not in asked}
    return frozenset(n.name for n in tree.body if isinstance(n, ast.ClassDef)) - named


def _drop_unread(function: ast.FunctionDef) -> None:
    """Assignments to locals that nothing reads."""
    read = {n.id for n in walk(function) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Store)}
    read |= {name for n in walk(function) if isinstance(n, ast.Global | ast.Nonlocal) for name in n.names}
    _Unread(read).visit(function)


class _Unread(ast.NodeTransformer):
    def __init__(self, read: set[str]) -> None:
        self.read = read

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        if len(node.targets) > 1 or not is_pure(node.value):
            return node
        target, value = node.targets[0], node.value
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            pairs = [(t, v) for t, v in zip(target.elts, value.elts, strict=True) if not self._unread(t)]
            if not pairs or any(isinstance(t, ast.Starred) for t in target.elts):
                return None if not pairs else node
            target.elts, value.elts = [t for t, _ in pairs], [v for _, v in pairs]
            if len(pairs) == 1:
                node.targets, node.value = [pairs[0][0]], pairs[0][1]
            return node
        return None if self._unread(target) else node

    def _unread(self, target: ast.expr) -> bool:
        if isinstance(target, ast.Tuple):
            return all(self._unread(each) for each in target.elts)
        return isinstance(target, ast.Name) and target.id not in self.read


def _spoken(tree: ast.Module) -> Counter[str]:
    """How often code mentions a name as an attribute that it reads, a keyword, a pattern or a string."""
    found: Counter[str] = Counter()
    for node in walk(tree):
        match node:
            case ast.Attribute(attr=name) | ast.keyword(arg=str(name)) | ast.Constant(value=str(name)):
                found[name] += 1
            case ast.MatchClass(kwd_attrs=names):
                found.update(names)
    return found


def _is_spoken(item: ast.stmt, owner: ast.ClassDef, spoken: Counter[str]) -> bool:
    match item:
        case ast.FunctionDef(name=name):
            if name == "__post_init__":
                return not _is_empty(item)
            if name.startswith("__") or name in CALLED_BY_LIBRARIES:
                return True
            return spoken[name] > 0
        case ast.Assign(targets=[ast.Name(id=name)]) if not is_enum(owner) and not name.startswith("__"):
            return spoken[name] > 0
        case ast.Pass():
            return False
    return True


def _used(tree: ast.Module, keep: set[str]) -> Iterator[ast.stmt]:
    """Statements at the top that bind a name which another one reads, or that bind none."""
    mine = {id(node): _read_by(node) for node in _flat(tree.body)}
    readers = Counter(name for read in mine.values() for name in read)

    def lives(node: ast.stmt) -> bool:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                attached = any(isinstance(d, ast.Attribute) and d.attr == "register_fake" for d in node.decorator_list)
                return attached or name in keep or readers[name] > (name in mine[id(node)])
            case ast.Assign(targets=targets, value=value):
                bound = [n.id for t in targets for n in walk(t) if isinstance(n, ast.Name)]
                return not is_pure(value) or any(name in keep or readers[name] for name in bound)
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                node.names = [a for a in names if readers[a.asname or a.name.partition(".")[0]]]
                return bool(node.names)
            case ast.Try(body=body):
                node.body = [inner for inner in body if lives(inner)]
                return bool(node.body)
        return not isinstance(node, ast.Pass)

    return (node for node in tree.body if lives(node))


def _read_by(node: ast.stmt) -> set[str]:
    return {n.id for n in walk(node) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Store)}


def _flat(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.Try):
            yield from _flat(node.body)
        else:
            yield node
