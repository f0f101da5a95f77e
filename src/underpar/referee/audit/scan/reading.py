"""Questions to a syntax tree that several scanners ask: names in an expression, what encloses what, what is held-out data."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from underpar.referee.audit.source import Source
from underpar.referee.audit.syntax import all_nodes

Function = ast.FunctionDef | ast.AsyncFunctionDef
Loop = (ast.For, ast.While, ast.AsyncFor)

HELD_OUT = re.compile(r"(?:^|_)val(?:$|_|idation)(?!ue)", re.IGNORECASE)
"""Names of held-out data: val_tokens, fineweb_val, validation_data."""
NOT_TOKENS = re.compile(
    r"loss|bpb|every|batch_(?:size|tokens)|seq_len|interval|log|time|step|bytes|docs?_|frac", re.IGNORECASE
)
"""Held-out names that are settings or results, not data."""
CHARGE = re.compile(
    r"(?:^|_)(?:nll|ce|xent|bits|cost|charge|bpb|losses|loss|lp|logprobs?|log_probs?|scored)(?:$|_|\d)", re.I
)
"""Names of what a position was charged."""
TARGET = re.compile(
    r"^(?:y|yb|y_batch|tgt|tgts|targets?|labels?|next_tok\w*|realized\w*|target_\w+|tgt_\w+|gold)$", re.I
)
"""Names of the token that is about to be charged."""


MAX_NODES = 300_000
MAX_VISITS = 1_500_000
"""Of nodes, by all scanners of a script together: several times what the longest published script takes."""


class TooLong(Exception):
    """A script would take too long to read."""


@dataclass(frozen=True)
class Suspicion:
    """One hit of a scanner."""

    vclass: str
    line: int
    reason: str


def called(node: ast.AST) -> str:
    """The last name of what a call calls: 'backward' for x.y.backward(...); '' for anything else."""
    if not isinstance(node, ast.Call):
        return ""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def dotted(node: ast.AST) -> str:
    """'torch.compile' for a chain of attributes, '' for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def names(node: ast.AST) -> set[str]:
    """Every variable and attribute name in a subtree."""
    found: set[str] = set()
    for inner in all_nodes(node):
        if isinstance(inner, ast.Name):
            found.add(inner.id)
        elif isinstance(inner, ast.Attribute):
            found.add(inner.attr)
    return found


def is_held_out_name(name: str) -> bool:
    return bool(HELD_OUT.search(name)) and not NOT_TOKENS.search(name)


def any_match(pattern: re.Pattern[str], found: set[str]) -> bool:
    return any(pattern.search(name) for name in found)


def names_assigned(node: ast.Assign | ast.AugAssign) -> set[str]:
    """Plain variables that a statement assigns to."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}


def number(node: ast.AST | None) -> float | None:
    """The value of a numeric literal, also as a product, a shift or with a sign; None for anything else."""
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return float(value) if abs(value) < 1e18 else None
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            operand = number(inner)
            return None if operand is None else -operand
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            a, b = number(left), number(right)
            return None if a is None or b is None else a * b
        case ast.BinOp(left=left, op=ast.LShift(), right=right):
            a, b = number(left), number(right)
            return None if a is None or b is None or not 0 <= b < 60 else a * 2.0**b
        case ast.Call(args=[only]) if called(node) in ("int", "float"):
            return number(only) if number(only) is not None else _number_in(only)
        case _:
            return None


def _number_in(node: ast.AST) -> float | None:
    """The default of int(os.environ.get("NAME", "5"))."""
    if isinstance(node, ast.Call) and called(node) in ("get", "getenv") and len(node.args) == 2:
        default = node.args[1]
        if isinstance(default, ast.Constant) and isinstance(default.value, str):
            try:
                return float(default.value)
            except ValueError:
                return None
        return number(default)
    return None


def environment_name(node: ast.AST) -> str:
    """NAME of os.environ.get("NAME", ...), os.getenv("NAME") and os.environ["NAME"] in a subtree; '' without one."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call) and called(inner) in ("get", "getenv") and inner.args:
            first = inner.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str) and "env" in dotted(inner.func):
                return first.value
        if isinstance(inner, ast.Subscript) and dotted(inner.value).endswith("environ"):
            key = inner.slice
            return key.value if isinstance(key, ast.Constant) and isinstance(key.value, str) else ""
    return ""


class Reading:
    """A source with the lookups that the scanners share, each made once."""

    def __init__(self, source: Source) -> None:
        """Raises TooLong above 300,000 nodes."""
        self.source = source
        self.nodes = source.nodes
        self._visits = 0
        if len(self.nodes) > MAX_NODES:
            raise TooLong(f"{len(self.nodes):,} nodes")

    def _visit(self, count: int) -> None:
        self._visits += count
        if self._visits > MAX_VISITS:
            raise TooLong(f"over {MAX_VISITS:,} visits")

    def walk(self, node: ast.AST) -> list[ast.AST]:
        """All nodes of a subtree. Raises TooLong when scanners have asked for too many."""
        found = all_nodes(node)
        self._visit(len(found))
        return found

    def body(self, function: Function | None) -> list[ast.AST]:
        """The nodes of a function without those of inner functions, by line; of the module for None. Raises TooLong."""
        found = self.own_statements[function] if function is not None else self.nodes
        self._visit(len(found))
        return found

    @cached_property
    def parents(self) -> dict[ast.AST, ast.AST]:
        return {child: node for node in self.nodes for child in ast.iter_child_nodes(node)}

    @cached_property
    def functions(self) -> list[Function]:
        return list(self.source.of(ast.FunctionDef, ast.AsyncFunctionDef))

    @cached_property
    def calls(self) -> list[ast.Call]:
        return list(self.source.of(ast.Call))

    @cached_property
    def own_statements(self) -> dict[Function, list[ast.AST]]:
        """Function -> its nodes, those of inner functions left out, in the order of their lines."""
        owner: dict[ast.AST, Function | None] = {}
        lists: dict[Function, list[ast.AST]] = {f: [] for f in self.functions}
        for node in self.nodes:  # parents first
            parent = self.parents.get(node)
            own = (
                parent
                if isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef)
                else owner.get(parent)
                if parent
                else None
            )
            owner[node] = own
            if own is not None:
                lists[own].append(node)
        return {f: sorted(nodes, key=lambda n: getattr(n, "lineno", 0)) for f, nodes in lists.items()}

    def enclosing(self, node: ast.AST) -> Iterator[ast.AST]:
        """What a node stands in, from the inside out, up to its function."""
        parent = self.parents.get(node)
        while parent is not None and not isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
            yield parent
            parent = self.parents.get(parent)

    def function_of(self, node: ast.AST) -> Function | None:
        parent = self.parents.get(node)
        while parent is not None and not isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef):
            parent = self.parents.get(parent)
        return parent

    def feeds(self, node: ast.AST, function: Function) -> set[str]:
        """Names that a node uses, followed back over the assignments of its function."""
        wanted = names(node)
        assignments = [
            (names_assigned(n), n.value) for n in self.body(function) if isinstance(n, ast.Assign | ast.AugAssign)
        ]
        for _ in range(5):
            before = len(wanted)
            for made, value in assignments:
                if made & wanted:
                    wanted |= names(value)
            if len(wanted) == before:
                break
        return wanted

    @cached_property
    def held_out(self) -> dict[Function | None, set[str]]:
        """Function -> its names that hold held-out tokens, or are made from them; None for the module."""
        held: dict[Function | None, set[str]] = defaultdict(set)
        by_name = {f.name: f for f in self.functions}
        for _ in range(3):
            for call in self.calls:
                target = by_name.get(called(call))
                if target is not None:
                    held[target] |= self._received(call, target, held[self.function_of(call)])
            for node in self.source.of(ast.Assign, ast.For):
                value = node.value if isinstance(node, ast.Assign) else node.iter
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                own = held[self.function_of(node)]
                if self.is_held_out(value, own) and not _is_result(value):
                    own |= {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
        return held

    def _received(self, call: ast.Call, target: Function, own: set[str]) -> set[str]:
        """Parameters that a call passes held-out tokens to."""
        params = [arg.arg for arg in target.args.args]
        found = {p for p, value in zip(params, call.args, strict=False) if self.is_held_out(value, own)}
        return found | {k.arg for k in call.keywords if k.arg and self.is_held_out(k.value, own)}

    @staticmethod
    def is_held_out(node: ast.AST, own: set[str]) -> bool:
        """Whether an expression uses held-out tokens, by name or by where its names come from."""
        found = names(node)
        return bool(found & own) or any(is_held_out_name(n) for n in found)


def _is_result(value: ast.AST) -> bool:
    """The outcome of scoring is a number, not data."""
    return isinstance(value, ast.Call) and bool(re.search(r"eval|score|len|numel|size|loss", called(value)))
