"""Training steps on held-out tokens, and whether a token is charged before or after it is trained on: V01, V02, V03, V13."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from underpar.referee.audit.scan.reading import (
    CHARGE,
    Function,
    Loop,
    Reading,
    Suspicion,
    any_match,
    called,
    is_held_out_name,
    names,
    names_assigned,
)

_CHARGING = re.compile(r"cross_entropy|nll_loss|log_softmax|per_token_loss|loss_fn|token_losses", re.IGNORECASE)
_WARM = re.compile(r"warm", re.IGNORECASE)
_TOKENS = re.compile(r"^(?:[xy]|inp|tok|chunk|batch|seg|win|ids|local|tgt|targ)", re.IGNORECASE)
_REPORTS = re.compile(r"^(?:print\w*|log\w*|info|debug|write|backward|all_reduce|reduce)$", re.IGNORECASE)
_EPOCH = re.compile(r"^_?_?(?:epochs?|ep|passes|pass_\w*|sweeps?)$|epochs$", re.IGNORECASE)
_AGAIN = re.compile(r"rescor|second_pass|pass_?2|two_pass|repass", re.IGNORECASE)


def scan_adaptation(reading: Reading) -> Iterator[Suspicion]:
    """Each backward pass over held-out tokens, judged by the charges around it; sweeps that charge twice."""
    for function in reading.functions:
        yield from _updates(reading, function)
        yield from _second_sweeps(reading, function)
    for function in reading.functions:
        if _AGAIN.search(function.name):
            yield Suspicion(
                "V03", function.lineno, f"a function named {function.name}: is anything charged a second time?"
            )


def _updates(reading: Reading, function: Function) -> Iterator[Suspicion]:
    """Backward passes that held-out tokens feed and that change parameters."""
    own = reading.held_out[function]
    for node in reading.body(function):
        if called(node) not in ("backward", "grad") or not isinstance(node, ast.Call):
            continue
        loops = [n for n in reading.enclosing(node) if isinstance(n, Loop)]
        fed = reading.feeds(node, function)
        on_held_out = bool(fed & own) or any(is_held_out_name(name) for name in fed)
        if on_held_out and _steps(reading, loops[-1] if loops else function):
            if _is_warm_up(reading, node, function):
                why = "a warm-up runs a backward pass on held-out tokens; random ids warm up as well"
                yield Suspicion("V13", node.lineno, why)
            else:
                yield from _judge(reading, function, node, loops)


def _judge(reading: Reading, function: Function, node: ast.Call, loops: Sequence[ast.AST]) -> Iterator[Suspicion]:
    """What the charges around a training step say about it."""
    before, after = _charges(reading, loops, node)
    if before is not None:
        for loop in loops:
            if any(_EPOCH.search(name) for name in _heads(loop)) and before in reading.walk(loop):
                why = f"charges are added up inside the loop over epochs of line {getattr(loop, 'lineno', 0)}"
                yield Suspicion("V03", before.lineno, why)
                return
    elif after is None or names(after) & names(node):  # nothing, or the loss that was trained on, kept for a report
        if _called_on_charged(reading, function):
            return
        why = "held-out tokens are trained on in a loop that has not charged them: are they scored later?"
        yield Suspicion("V01", node.lineno, why)
    elif _data(reading.feeds(node, function)) & _data(reading.feeds(after, function)):
        why = f"parameters are fitted first, and line {after.lineno} charges the same tokens then"
        yield Suspicion("V02", node.lineno, why)


def _called_on_charged(reading: Reading, function: Function) -> bool:
    """Whether a function is only called in loops that have charged tokens before the call, as phased adaptation does."""
    calls = [call for call in reading.calls if called(call) == function.name]
    return bool(calls) and all(
        _charges(reading, [n for n in reading.enclosing(call) if isinstance(n, Loop)], call)[0] is not None
        for call in calls
    )


def _steps(reading: Reading, scope: ast.AST) -> bool:
    """Whether parameters change: an optimiser steps, or something is updated in place."""
    return any(called(n) in ("step", "add_", "sub_", "mul_", "lerp_", "copy_") for n in reading.walk(scope))


def _is_warm_up(reading: Reading, node: ast.AST, function: Function) -> bool:
    around = [function.name, *(n for e in reading.enclosing(node) if isinstance(e, Loop) for n in _heads(e))]
    return any(_WARM.search(name) for name in around)


def _heads(loop: ast.AST) -> set[str]:
    """Names in the head of a loop."""
    if isinstance(loop, ast.For | ast.AsyncFor):
        return names(loop.target) | names(loop.iter)
    return names(loop.test) if isinstance(loop, ast.While) else set()


def _charges(reading: Reading, loops: Sequence[ast.AST], update: ast.expr) -> tuple[ast.stmt | None, ast.stmt | None]:
    """The nearest statement of the loops that adds up charges, before the update and after it."""
    before = after = None
    for loop in loops:
        inside = reading.walk(loop)
        made = _losses(inside)
        for node in inside:
            if not isinstance(node, ast.stmt) or not _adds_charge(node, made):
                continue
            if node.lineno < update.lineno:
                before = node
            elif node.lineno > update.lineno and after is None:
                after = node
    return before, after


def _losses(nodes: Sequence[ast.AST]) -> set[str]:
    """Variables that a loss function made."""
    return {n for node in nodes if isinstance(node, ast.Assign) and any_match(_CHARGING, names(node.value))
            for n in names_assigned(node)}  # fmt: skip


def _adds_charge(node: ast.stmt, made: set[str]) -> bool:
    """total += nll, total.add_(nll), losses.append(nll), charges[i] = nll: something charged is kept."""
    if isinstance(node, ast.AugAssign):
        return isinstance(node.op, ast.Add) and (_is_charge(node.value, made) or any_match(CHARGE, names(node.target)))
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        reports = _REPORTS.search(called(node.value))
        return not reports and any(_is_charge(arg, made) for arg in node.value.args)
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript) and _is_charge(node.value, made)


def _is_charge(value: ast.expr, made: set[str]) -> bool:
    found = names(value)
    return bool(found & made) or any_match(_CHARGING, found) or any_match(CHARGE, found)


def _data(found: set[str]) -> set[str]:
    """Names that hold tokens, by how they are called."""
    return {name for name in found if _TOKENS.match(name)}


def _second_sweeps(reading: Reading, function: Function) -> Iterator[Suspicion]:
    """Two loops over held-out tokens in one function that add to one total, which is set back between them."""
    own = reading.held_out[function]
    body = reading.body(function)
    loops = [n for n in body if isinstance(n, Loop) and reading.is_held_out(n, own)]
    outer = [n for n in loops if not any(isinstance(e, Loop) for e in reading.enclosing(n))]
    for first, second in pairwise(outer):
        common = _totals(reading, first) & _totals(reading, second)
        for node in body:
            if isinstance(node, ast.Assign) and first.lineno < node.lineno < second.lineno:
                back = sorted(names_assigned(node) & common)
                if back:
                    yield Suspicion(
                        "V03", second.lineno,
                        f"a second sweep over held-out tokens adds to {back[0]}, which line {node.lineno} sets back",
                    )  # fmt: skip
                    break


def _totals(reading: Reading, loop: ast.AST) -> set[str]:
    """Names that charges are added to in a loop."""
    inside = reading.walk(loop)
    made = _losses(inside)
    return {
        n
        for node in inside
        if isinstance(node, ast.AugAssign) and _adds_charge(node, made)
        for n in names_assigned(node)
    }
