"""Expressions whose value is known, and the branches that they decide."""

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_FUNCTIONS = frozenset((
    *("abs", "all", "any", "bool", "dict", "enumerate", "float", "frozenset", "int", "isinstance", "iter", "len", "list"),
    *("max", "min", "range", "repr", "reversed", "round", "set", "sorted", "str", "sum", "tuple", "type", "zip"),
))  # fmt: skip
_METHODS = frozenset((
    "all", "any", "element_size", "flatnonzero", "isfinite", "is_floating_point", "mean", "numel", "size", "sum", "tolist",
))  # fmt: skip
"""Functions and methods that only answer."""

_OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Is: operator.is_, ast.IsNot: operator.is_not, ast.Add: operator.add, ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}  # fmt: skip


SOMETHING = type("Something", (), {"__repr__": lambda _: "something"})()
"""Stands for an object of ours: not None, and true."""


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """As `ast.walk`, in another order and four times as fast."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        for value in vars(node).values():
            if type(value) is list:
                waiting += [each for each in value if isinstance(each, ast.AST)]
            elif isinstance(value, ast.expr | ast.stmt | ast.arguments | ast.arg | ast.pattern):
                waiting.append(value)


def set_on_libraries(tree: ast.Module) -> frozenset[str]:
    """Attributes that the program sets on what it imports."""
    imports = [n for n in walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    imported = {alias.asname or alias.name.partition(".")[0] for node in imports for alias in node.names}
    found = set()
    for node in walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            root: ast.expr = node
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and root.id in imported:
                found.add(node.attr)
    return frozenset(found)


def is_plain(value: object) -> bool:
    """Whether a constant is one that facts are about."""
    return value is None or isinstance(value, bool | int | float | str)


def is_pure(node: ast.AST) -> bool:
    """Whether an expression can be left out where nobody reads its value."""
    for inner in walk(node):
        match inner:
            case ast.NamedExpr() | ast.Yield() | ast.YieldFrom() | ast.Await():
                return False
            case ast.Call(func=ast.Name(id=name)) if name not in _FUNCTIONS:
                return False
            case ast.Call(func=ast.Attribute(attr=name)) if name not in _METHODS:
                return False
    return True


def evaluated(node: ast.expr, beliefs: Mapping[str, Any], scope: Mapping[str, ast.expr]) -> ast.Constant | None:
    """The constant that an expression is, None where it is not known.

    beliefs: attribute, or `Class()`, -> what it is. scope: name of a local -> the one expression that it is bound to.
    """
    known = lambda inner: evaluated(inner, beliefs, scope)  # noqa: E731
    match node:
        case ast.Constant(value=value):
            return node if is_plain(value) else None
        case ast.Attribute(attr=name, value=base) if name in beliefs and is_pure(base):
            return ast.Constant(beliefs[name])
        case ast.Name(id=name) if name in scope:
            return evaluated(scope[name], beliefs, {k: v for k, v in scope.items() if k != name})
        case ast.UnaryOp(op=ast.Not(), operand=operand) if (found := known(operand)) is not None:
            return ast.Constant(not found.value)
        case ast.Call(func=ast.Name(id=name)) if f"{name}()" in beliefs:
            return ast.Constant(beliefs[f"{name}()"])
        case ast.Call(func=ast.Attribute(attr=name)) if f".{name}()" in beliefs:
            return ast.Constant(beliefs[f".{name}()"])
        case ast.IfExp(test=test, body=body, orelse=other):
            found, first, second = known(test), known(body), known(other)
            if found is not None:
                return first if found.value else second
            same = first is not None and second is not None and first.value is second.value
            return first if same else None
        case ast.BoolOp(op=op, values=parts):
            for part in parts:
                found = known(part)
                if found is None or bool(found.value) is isinstance(op, ast.Or):
                    return found
            return found
        case ast.Compare(left=left, ops=[op], comparators=[right]) | ast.BinOp(left=left, op=op, right=right):
            first, second = known(left), known(right)
            if first is not None and second is not None:
                return _computed(op, first.value, second.value)
    return None


def _computed(op: ast.AST, left: Any, right: Any) -> ast.Constant | None:
    if type(op) not in _OPERATORS or (isinstance(op, ast.Is | ast.IsNot) and None not in (left, right)):
        return None
    if isinstance(op, ast.operator) and not (isinstance(left, int | float) and isinstance(right, int | float)):
        return None
    try:
        return ast.Constant(_OPERATORS[type(op)](left, right))
    except TypeError:
        return None


class Simplify(ast.NodeTransformer):
    """Constant branches, calls of empty functions, loops and expressions without effect."""

    def __init__(self, empty: frozenset[str], unmade: frozenset[str]) -> None:
        self.empty, self.unmade = empty, unmade

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        body = getattr(node, "body", None)
        if isinstance(body, list) and not isinstance(node, ast.Module):
            node.body = _reached(body) or [ast.Pass()]  # type: ignore[attr-defined]
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        self.generic_visit(node)
        match node.value:
            case ast.Call(func=ast.Name(id=name)) if name in self.empty:
                return None
        return None if is_pure(node.value) else node

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt] | None:
        self.generic_visit(node)
        if isinstance(node.test, ast.Constant):
            return (node.body if node.test.value else node.orelse) or None
        if is_idle(node.body) and is_idle(node.orelse) and is_pure(node.test):
            return None
        return node

    def visit_Match(self, node: ast.Match) -> ast.AST | None:
        self.generic_visit(node)
        node.cases = [case for case in node.cases if not self._never(case.pattern)]
        return node if node.cases else None

    def _never(self, pattern: ast.pattern) -> bool:
        return (
            isinstance(pattern, ast.MatchClass) and isinstance(pattern.cls, ast.Name) and pattern.cls.id in self.unmade
        )

    def visit_For(self, node: ast.For) -> ast.AST | None:
        self.generic_visit(node)
        return None if is_idle(node.body) and not node.orelse and is_pure(node.iter) else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        match node:
            case ast.Call(func=ast.Name(id="isinstance"), args=[value, ast.Name(id=name)]) if name in self.unmade:
                return ast.Constant(False) if is_pure(value) else node
            case ast.Call(func=ast.Name(id="any"), args=[ast.GeneratorExp(elt=ast.Constant(value=False))]):
                return ast.Constant(False)
            case ast.Call(func=ast.Name(id="bool"), args=[ast.Constant(value=value)]):
                return ast.Constant(bool(value))
            case ast.Call(func=ast.Name(id="float"), args=[ast.Constant(value=int() | float() as number)]):
                return ast.Constant(float(number))
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        match node:
            case ast.Subscript(value=ast.Dict(keys=keys, values=values), slice=ast.Constant(value=wanted)):
                for key, value in zip(keys, values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == wanted:
                        return value
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.test, ast.Constant):
            return node.body if node.test.value else node.orelse
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        stops = isinstance(node.op, ast.Or)
        kept: list[ast.expr] = []
        for index, value in enumerate(node.values):
            if not isinstance(value, ast.Constant):
                kept.append(value)
            elif bool(value.value) is stops or index == len(node.values) - 1:
                kept.append(value)
                break
        node.values = kept
        return node if len(kept) > 1 else kept[0]

    def _folded(self, node: ast.expr) -> ast.AST:
        self.generic_visit(node)
        return evaluated(node, {}, {}) or node

    visit_UnaryOp = visit_Compare = visit_BinOp = _folded


def _reached(body: list[ast.stmt]) -> list[ast.stmt]:
    """A block up to where it is left for good."""
    kept: list[ast.stmt] = []
    for node in body:
        if not isinstance(node, ast.Pass):
            kept.append(node)
        if isinstance(node, ast.Return | ast.Raise | ast.Continue | ast.Break):
            break
    return kept


def is_idle(body: list[ast.stmt]) -> bool:
    """Whether a block does nothing."""
    return all(isinstance(node, ast.Pass) for node in body)
