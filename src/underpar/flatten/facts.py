"""What a merged program knows of itself: attributes, arguments and names that can hold only one constant.

The configuration is a part of the program, so most of its fields are such attributes, and with them the branches that they
decide. A name counts when everything that can set it is in view: fields by constructor calls, classes by what is in their
bodies, `x.name = ...`, arguments by every call. A name that a library has too, or that stands in a string, is left alone.
Facts may rest on each other: all are believed at first, and those that do not bear each other out are given up.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from typing import Any

from underpar.flatten.arguments import Family, drop_unread, families
from underpar.flatten.modules import own_nodes
from underpar.flatten.reach import is_enum
from underpar.flatten.simplify import SOMETHING, evaluated, is_plain, is_pure, walk

_UNKNOWN = ast.Name("_", ast.Load())
"""An expression whose value cannot be known."""


def fold_facts(tree: ast.Module, foreign: frozenset[str]) -> ast.Module:
    """Puts constants in the place of what holds them. `foreign`: names of attributes that libraries have."""
    tree = _Names(_globals(tree)).visit(tree)
    for node in walk(tree):
        if isinstance(node, ast.FunctionDef):
            _Names(_locals(node)).visit(node)
    texts = {node.value for node in walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    within = families(tree, foreign)
    known = Attributes(tree, within).known(foreign | texts)
    for key, family in within.items():
        for function in family.functions:
            own = {name: known[f"{key}:{name}"] for name in family.names if f"{key}:{name}" in known}
            kept = _kept(function) if own else set()
            constant = {name: value for name, value in own.items() if value is not SOMETHING and name in kept}
            for node in function.body if constant else ():
                _Names(constant).visit(node)
    idle = {
        f"{key}()" for key, family in within.items() if all(isinstance(f.body[0], ast.Return) for f in family.functions)
    }
    modules = {
        alias.asname or alias.name for node in walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    tree = _Attributes(known, idle, modules).visit(tree)
    drop_unread(within.values())
    return tree


def _kept(function: ast.FunctionDef) -> set[str]:
    """Parameters that a function leaves as they were given."""
    found = _assigned_once(function)
    arguments = function.args
    return {a.arg for a in (*arguments.args, *arguments.kwonlyargs) if a.arg in found}


class _Names(ast.NodeTransformer):
    def __init__(self, constants: Mapping[str, Any]) -> None:
        self.constants = constants

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        """Code that would take a part of None is never run, and Python warns of it where it can see so."""
        whole = node.value
        self.generic_visit(node)
        if isinstance(node.value, ast.Constant) and node.value.value is None:
            node.value = whole
        return node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if isinstance(node.ctx, ast.Load) and node.id in self.constants:
            return ast.Constant(self.constants[node.id])
        return node


class _Attributes(ast.NodeTransformer):
    def __init__(self, known: Mapping[str, Any], idle: Set[str], modules: Set[str]) -> None:
        self.known, self.idle, self.modules = known, idle, modules

    def _decided(self, node: ast.expr) -> ast.expr:
        found = evaluated(node, self.known, {})
        return self.visit(node) if found is None or not is_pure(node) else ast.Constant(bool(found.value))

    def visit_If(self, node: ast.If | ast.IfExp) -> ast.AST:
        node.test = self._decided(node.test)
        return self.generic_visit(node)

    visit_IfExp = visit_If

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        found = evaluated(node, self.known, {})
        return self.generic_visit(node) if found is None or not is_pure(node) else found

    def visit_Call(self, node: ast.Call) -> ast.AST:
        called = node.func
        self.generic_visit(node)
        if isinstance(called, ast.Attribute):
            node.func = called  # a method is no constant, whatever its name
        name = f".{called.attr}()" if isinstance(called, ast.Attribute) else f"{getattr(called, 'id', '')}()"
        value = self.known.get(name, SOMETHING)
        if value is SOMETHING or name not in self.idle or not all(map(is_pure, ast.iter_child_nodes(node))):
            return node
        return ast.Constant(value)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Name) and node.value.id in self.modules:
            return node  # `functools.cache` is no field called cache
        self.generic_visit(node)
        value = self.known.get(node.attr, SOMETHING)
        if isinstance(node.ctx, ast.Load) and value is not SOMETHING and is_pure(node.value):
            return ast.Constant(value)
        return node


def _bound(node: ast.AST) -> Iterator[str]:
    """Names that a node binds in other ways than by an assignment."""
    match node:
        case ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Global(names=names) | ast.Nonlocal(names=names):
            yield from names
        case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.ExceptHandler(name=str(name)):
            yield name
        case ast.alias(name=name, asname=given):
            yield given or name.partition(".")[0]


def _assigned_once(scope: ast.AST) -> dict[str, ast.expr]:
    """Names that a scope binds at one place, to the expression there."""
    given: dict[int, ast.expr] = {}
    stored: dict[str, list[ast.expr | int]] = defaultdict(list)
    for node in walk(scope):
        if isinstance(node, ast.Name):
            if not isinstance(node.ctx, ast.Load):
                stored[node.id].append(id(node))
        elif isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
            if len(node.targets) == 1:
                given[id(target)] = value
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
                given |= {id(t): v for t, v in zip(target.elts, value.elts, strict=True)}
        elif not isinstance(node, ast.Attribute | ast.Constant | ast.Call) and node is not scope:
            for name in _bound(node):
                stored[name].append(_UNKNOWN)
    once = {name: places[0] for name, places in stored.items() if len(places) == 1}
    return {name: given.get(at, _UNKNOWN) if isinstance(at, int) else at for name, at in once.items()}


def _locals(function: ast.FunctionDef) -> dict[str, Any]:
    """Constants under names of this function's own, not of one inside it."""
    own = {n.id for n in own_nodes(function.body) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return {
        name: value.value for name, value in _assigned_once(function).items()
        if name in own and isinstance(value, ast.Constant) and is_plain(value.value)
    }  # fmt: skip


def _globals(tree: ast.Module) -> dict[str, Any]:
    """Numbers, short texts and None at the top, under names that nothing else binds."""
    found = _assigned_once(tree)
    return {
        name: value.value for node in tree.body if isinstance(node, ast.Assign)
        for target in node.targets if isinstance(target, ast.Name) and (name := target.id) in found
        if isinstance(value := found[name], ast.Constant) and is_plain(value.value) and len(repr(value.value)) < 12
    }  # fmt: skip


class Attributes:
    """Everything that sets an attribute, by the name of the attribute."""

    def __init__(self, tree: ast.Module, within: Mapping[str, Family]) -> None:
        self._keys = {id(function): key for key, family in within.items() for function in family.functions}
        self._gifts = {id(call): key for key, family in within.items() for call in family.calls}
        self._within = within
        self._classes = {node.name: node for node in walk(tree) if isinstance(node, ast.ClassDef)}
        self._sources: dict[str, list[tuple[ast.expr, Mapping[str, ast.expr]]]] = defaultdict(list)
        self._calls: dict[str, list[tuple[ast.Call, Mapping[str, ast.expr]]]] = defaultdict(list)
        self._open: set[str] = set()
        """Classes that are handed on, so that it cannot be seen how they are made."""
        self._scan(tree, {})
        self._find_open(tree)
        for name in self._classes:
            if name in self._calls or name in self._open or is_enum(self._classes[name]):
                self._class(name)

    def known(self, unclear: Set[str]) -> dict[str, Any]:
        """Attribute, or `function:parameter` -> the one constant that it can hold, or SOMETHING for an object of ours."""
        beliefs: dict[str, Any] = {f"{n}()": SOMETHING for n, node in self._classes.items() if not _may_be_false(node)}
        made = dict(beliefs)
        for name, sources in self._sources.items():
            firsts = (evaluated(source, made, {}) for source, _ in sources)
            first = next((each for each in firsts if each is not None), None)
            if first is not None and name not in unclear:
                beliefs[name] = first.value
        while True:
            wrong = [name for name, value in beliefs.items() if not self._holds(name, value, beliefs)]
            if not wrong:
                return beliefs
            for name in wrong:
                del beliefs[name]

    def _holds(self, name: str, value: object, beliefs: Mapping[str, Any]) -> bool:
        for source, scope in self._sources[name]:
            found = evaluated(source, beliefs, scope)
            if found is None or type(found.value) is not type(value) or found.value != value:
                return False
        return True

    def _scan(self, node: ast.AST, scope: Mapping[str, ast.expr]) -> None:
        match node:
            case ast.FunctionDef():
                scope = _assigned_once(node)
                if key := self._keys.get(id(node)):
                    family = self._within[key]
                    scope |= {name: _parameter(key, name) for name in family.names if name in scope}
                    self._sources[f"{key}()"] += [(value, scope) for value in _answers(node)]
            case ast.Call(func=ast.Name(id=name)) if name in self._classes:
                self._calls[name].append((node, scope))
            case ast.Call(func=ast.Name(id="replace") | ast.Attribute(attr="_replace"), keywords=keywords):
                for keyword in keywords:
                    self._sources[keyword.arg or ""].append((keyword.value, scope))
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._stored(target, value, scope)
            case ast.Attribute(attr=name, ctx=ast.Store() | ast.Del()) if not getattr(node, "seen", False):
                self._sources[name].append((_UNKNOWN, scope))
        if isinstance(node, ast.Call) and (key := self._gifts.get(id(node))):
            self._given(key, node, scope)
        for inner in ast.iter_child_nodes(node):
            self._scan(inner, scope)

    def _given(self, key: str, call: ast.Call, scope: Mapping[str, ast.expr]) -> None:
        family = self._within[key]
        given = family.given(call)
        for name in family.names:
            if name in given:
                self._sources[f"{key}:{name}"].append((given[name], scope))
                continue
            for function in family.functions:
                self._sources[f"{key}:{name}"].append((family.default(function, name) or _UNKNOWN, {}))

    def _stored(self, target: ast.expr, value: ast.expr, scope: Mapping[str, ast.expr]) -> None:
        if isinstance(target, ast.Attribute):
            vars(target)["seen"] = True
            self._sources[target.attr].append((value, scope))
        elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            for each, part in zip(target.elts, value.elts, strict=True):
                self._stored(each, part, scope)

    def _find_open(self, tree: ast.Module) -> None:
        seen: set[int] = set()
        for node in walk(tree):
            match node:
                case ast.Call(func=ast.Name(id="isinstance"), args=[_, classes]):
                    seen.update(id(n) for n in walk(classes))
                case ast.Call(func=func):
                    seen.add(id(func))
                case ast.MatchClass(cls=cls):
                    seen.add(id(cls))
                case ast.ClassDef(bases=bases):
                    seen.update(map(id, bases))
        for node in walk(tree):
            if isinstance(node, ast.Name) and node.id in self._classes and id(node) not in seen:
                self._open.add(node.id)

    def _class(self, name: str) -> None:
        """Everything that an instance has from its class, and the fields of its constructor."""
        line = list(self._line(name))
        seen: set[str] = set()
        defaults: dict[str, ast.expr] = {}
        for node in line:
            for item in node.body:
                match item:
                    case ast.AnnAssign(target=ast.Name(id=field), value=default):
                        defaults.setdefault(field, default or _UNKNOWN)
                    case ast.Assign(targets=[ast.Name(id=field)], value=value) if field not in seen:
                        seen.add(field)
                        self._sources[field].append((_UNKNOWN if is_enum(node) else value, {}))
                    case ast.FunctionDef(name=method) if method not in seen:
                        seen.add(method)
                        self._sources[method].append((_answer(item), {}))
        order = [item.target.id for node in reversed(line) for item in node.body
                 if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)]  # fmt: skip
        calls = self._calls[name]
        makes_itself = any(isinstance(n, ast.Name) and n.id == "cls" for node in line for n in walk(node))
        starred = any(isinstance(a, ast.Starred) for call, _ in calls for a in call.args)
        if (
            name in self._open
            or makes_itself
            or starred
            or any(k.arg is None for call, _ in calls for k in call.keywords)
        ):
            for field in order:
                self._sources[field].append((_UNKNOWN, {}))
            return
        if any(node.name == "Config" for node in line):
            order = list({k.arg or "": None for call, _ in calls for k in call.keywords})
        for call, scope in calls:
            given = dict(zip(order, call.args, strict=False)) | {k.arg or "": k.value for k in call.keywords}
            for field in order:
                if (gift := given.get(field, defaults.get(field))) is not None:
                    self._sources[field].append((gift, scope))

    def _line(self, name: str) -> Iterator[ast.ClassDef]:
        """A class and those above it, nearest first."""
        waiting = [name]
        while waiting:
            node = self._classes.get(waiting.pop(0))
            if node is not None:
                yield node
                waiting += [base.id for base in node.bases if isinstance(base, ast.Name)]


def _answers(function: ast.FunctionDef) -> list[ast.expr]:
    """Everything that a function gives back."""
    inside = list(own_nodes(function.body))
    if any(isinstance(n, ast.Yield | ast.YieldFrom) for n in inside) or not isinstance(function.body[-1], ast.Return):
        return [_UNKNOWN]
    return [n.value or ast.Constant(None) for n in inside if isinstance(n, ast.Return)]


def _may_be_false(node: ast.ClassDef) -> bool:
    return any(isinstance(item, ast.FunctionDef) and item.name in ("__len__", "__bool__") for item in node.body)


def _parameter(key: str, name: str) -> ast.expr:
    return ast.Attribute(ast.Constant(None), f"{key}:{name}", ast.Load())


def _answer(method: ast.FunctionDef) -> ast.expr:
    """What a property of one line gives."""
    is_property = any(isinstance(d, ast.Name) and d.id == "property" for d in method.decorator_list)
    only = method.body[0]
    return only.value or _UNKNOWN if is_property and isinstance(only, ast.Return) else _UNKNOWN
