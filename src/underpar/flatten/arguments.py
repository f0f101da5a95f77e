"""Parameters of functions whose every call is in view: what they are given, and how to take one away."""

import ast
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from underpar.flatten.reach import CALLED_BY_LIBRARIES
from underpar.flatten.simplify import is_pure, walk

_HARMLESS = frozenset({"contextmanager", "no_grad", "classmethod"})


@dataclass
class Family:
    """Functions that a call cannot be told apart between: one at the top, or the methods of one name, or a constructor."""

    functions: list[ast.FunctionDef] = field(default_factory=list)
    calls: list[ast.Call] = field(default_factory=list)
    skipped: int = 0
    """Parameters that a call does not give: `self`."""

    @property
    def names(self) -> list[str]:
        """Of the parameters, those that have a position first."""
        given = self.functions[0].args
        return [a.arg for a in (*given.args[self.skipped :], *given.kwonlyargs)]

    def is_closed(self) -> bool:
        """Whether all have the same parameters, and every call gives them one by one."""
        shapes = {(tuple(a.arg for a in f.args.args[self.skipped :]), tuple(a.arg for a in f.args.kwonlyargs))
                  for f in self.functions}  # fmt: skip
        plain = not any(f.args.vararg or f.args.kwarg or f.args.posonlyargs for f in self.functions)
        harmless = all(_name(d) in _HARMLESS for f in self.functions for d in f.decorator_list)
        single = not any(isinstance(a, ast.Starred) for c in self.calls for a in c.args)
        return (
            len(shapes) == 1
            and plain
            and harmless
            and single
            and not any(k.arg is None for c in self.calls for k in c.keywords)
        )

    def given(self, call: ast.Call) -> Mapping[str, ast.expr]:
        """Parameter -> what this call gives it, defaults left out."""
        return dict(zip(self.names, call.args, strict=False)) | {k.arg or "": k.value for k in call.keywords}

    def default(self, function: ast.FunctionDef, name: str) -> ast.expr | None:
        arguments = function.args
        if name in (keyword_only := [a.arg for a in arguments.kwonlyargs]):
            return arguments.kw_defaults[keyword_only.index(name)]
        behind = len(arguments.args) - [a.arg for a in arguments.args].index(name)
        return arguments.defaults[-behind] if behind <= len(arguments.defaults) else None

    def drop(self, name: str) -> None:
        """Take a parameter that nothing reads out of the functions and the calls."""
        index = self.names.index(name)
        for call in self.calls:
            call.args[index : index + 1] = [] if index < len(call.args) else call.args[index : index + 1]
            call.keywords = [k for k in call.keywords if k.arg != name]
        for function in self.functions:
            arguments = function.args
            if any(a.arg == name for a in arguments.kwonlyargs):
                at = [a.arg for a in arguments.kwonlyargs].index(name)
                del arguments.kwonlyargs[at], arguments.kw_defaults[at]
                continue
            at = [a.arg for a in arguments.args].index(name)
            if (behind := len(arguments.args) - at) <= len(arguments.defaults):
                del arguments.defaults[len(arguments.defaults) - behind]
            del arguments.args[at]


def families(tree: ast.Module, foreign: frozenset[str]) -> dict[str, Family]:
    """`name`, `.method` and `Class()` -> the functions and their calls, for those that can be looked through."""
    found: dict[str, Family] = defaultdict(Family)
    classes = {n.name: n for n in walk(tree) if isinstance(n, ast.ClassDef)}
    above = {base.id for node in classes.values() for base in node.bases if isinstance(base, ast.Name)}
    for top in _flat(tree.body):
        if isinstance(top, ast.FunctionDef):
            found[top.name].functions.append(top)
        elif isinstance(top, ast.ClassDef):
            for item in top.body:
                if isinstance(item, ast.FunctionDef):
                    is_maker = item.name == "__init__" and top.name not in above
                    family = found[f"{top.name}()" if is_maker else f".{item.name}"]
                    family.functions.append(item)
                    family.skipped = 1
    uses: Counter[str] = Counter()
    for node in walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name)):
                key = f"{name}()" if name in classes else name
                if key in found:
                    found[key].calls.append(node)
            case ast.Call(func=ast.Attribute(attr=name)) if f".{name}" in found:
                found[f".{name}"].calls.append(node)
            case ast.Constant(value=str(name)):
                uses[f".{name}"] += 1
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                uses[f"{name}()" if name in classes else name] += 1
            case ast.Attribute(attr=name):
                uses[f".{name}"] += 1
    return {
        key: family for key, family in found.items()
        if len(family.calls) == uses[key] and family.is_closed() and _is_ours(key[1:] if key[0] == "." else "", foreign)
    }  # fmt: skip


def _is_ours(method: str, foreign: frozenset[str]) -> bool:
    return not (method.startswith("__") or method in CALLED_BY_LIBRARIES or method in foreign)


def drop_unread(within: Iterable[Family]) -> None:
    """Parameters that nothing reads go, where what calls give them has no effect."""
    for family in within:
        for name in list(family.names):
            bodies = (each for function in family.functions for each in function.body)
            read = any(isinstance(n, ast.Name) and n.id == name for each in bodies for n in walk(each))
            gifts = [family.given(call).get(name) for call in family.calls]
            if not read and all(gift is None or is_pure(gift) for gift in gifts):
                family.drop(name)


def _flat(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield from _flat(node.body) if isinstance(node, ast.Try) else (node,)


def _name(decorator: ast.expr) -> str:
    inner = decorator.func if isinstance(decorator, ast.Call) else decorator
    return inner.attr if isinstance(inner, ast.Attribute) else inner.id if isinstance(inner, ast.Name) else ""
