"""Probabilities that look at the token they are of: V04, V05, V06, V07, V28."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from underpar.referee.audit.scan.reading import CHARGE, TARGET, Reading, Suspicion, any_match, called, names, number

_PREDICTION = re.compile(r"logit|prob|boost|alpha|mix|hint|expert|log_p|logp|bonus|lam(?:bda)?$", re.IGNORECASE)
_PER_BYTE = re.compile(r"n_?bytes|byte_len|num_bytes|blen|bytes_per|token_bytes|tok_bytes", re.IGNORECASE)
_LOG_P = re.compile(r"log_?p|nll|logprob|log_prob|lp$|p_tok|tok_p|p_token", re.IGNORECASE)


def scan_mixtures(reading: Reading) -> Iterator[Suspicion]:
    """Constructs through which a realised token gets more than its share."""
    for node in reading.source.of(ast.Assign, ast.Call, ast.BinOp):
        if isinstance(node, ast.Assign):
            yield from _key_of_target(reading, node)
            yield from _gate_of_target(reading, node)
        elif isinstance(node, ast.Call):
            yield from _root_by_bytes(node)
            yield from _smaller_charge(node)
            yield from _charges_mended(node)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            yield from _power_by_bytes(node)


def _key_of_target(reading: Reading, node: ast.Assign) -> Iterator[Suspicion]:
    """key = (hash(context) ^ target * prime) & mask, which then addresses a table."""
    value = node.value
    operators = {type(n.op) for n in ast.walk(value) if isinstance(n, ast.BinOp)}
    if not operators & {ast.BitXor, ast.Mult} or not operators & {ast.BitAnd, ast.Mod}:
        return
    found = names(value)
    if not any_match(TARGET, found) or "arange" in found:
        return
    keys = {n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    function = reading.function_of(node)
    for inner in reading.body(function):
        if isinstance(inner, ast.Subscript) and isinstance(inner.ctx, ast.Load) and names(inner.slice) & keys:
            yield Suspicion(
                "V04",
                node.lineno,
                f"the key holds the token that is charged, and line {inner.lineno} looks up its count alone",
            )
            return


def _gate_of_target(reading: Reading, node: ast.Assign) -> Iterator[Suspicion]:
    """gate = table[target], which then decides about a prediction."""
    lookups = [n for n in ast.walk(node.value) if isinstance(n, ast.Subscript) and any_match(TARGET, names(n.slice))]
    if not lookups or any_match(re.compile("byte|space|boundary|piece|len", re.IGNORECASE), names(node.value)):
        return
    gates = {n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    function = reading.function_of(node)
    for inner in reading.body(function):
        if isinstance(inner, ast.Assign | ast.AugAssign) and inner.lineno > node.lineno and names(inner.value) & gates:
            targets = inner.targets if isinstance(inner, ast.Assign) else [inner.target]
            into = set().union(*(names(t) for t in targets)) | names(inner.value)
            if any_match(_PREDICTION, into - gates):
                yield Suspicion(
                    "V05",
                    node.lineno,
                    f"a property of the charged token decides about the prediction in line {inner.lineno}",
                )
                return


def _root_by_bytes(node: ast.Call) -> Iterator[Suspicion]:
    """exp(log p / bytes of the token)."""
    if called(node) not in ("exp", "logaddexp", "pow", "exp2"):
        return
    for inner in ast.walk(node):
        if not isinstance(inner, ast.BinOp) or not isinstance(inner.op, ast.Div):
            continue
        if any_match(_LOG_P, names(inner.left)) and any_match(_PER_BYTE, names(inner.right)):
            yield Suspicion("V06", node.lineno, "a token's log probability is spread over its bytes: no distribution")
            return


def _power_by_bytes(node: ast.BinOp) -> Iterator[Suspicion]:
    """p ** (1 / bytes of the token)"""
    right = node.right
    inverse = isinstance(right, ast.BinOp) and isinstance(right.op, ast.Div) and number(right.left) == 1
    if inverse and any_match(_PER_BYTE, names(right)):
        yield Suspicion(
            "V06", node.lineno, "the root of a token's probability by its bytes is no probability of a byte"
        )


def _smaller_charge(node: ast.Call) -> Iterator[Suspicion]:
    """min(nll_a, nll_b), where(a < b, a, b)"""
    name, args = called(node), node.args
    if name in ("minimum", "fmin", "min") and len(args) == 2:
        both = [names(arg) for arg in args]
    elif name == "where" and len(args) == 3:
        both = [names(arg) for arg in args[1:]]
    else:
        return
    if all(any_match(CHARGE, found) for found in both) and not any(
        "best" in n or "train" in n for n in both[0] | both[1]
    ):
        yield Suspicion("V07", node.lineno, "the smaller of two charges is taken: the choice knows the token")


def _charges_mended(node: ast.Call) -> Iterator[Suspicion]:
    """Charges that are clamped, replaced or left out."""
    name = called(node)
    holder = node.func.value if isinstance(node.func, ast.Attribute) else None
    about = names(holder) if holder is not None else set()
    for arg in node.args[:1]:
        about |= names(arg)
    charged = any(re.search(r"nll|charge|xent|token_loss|per_token|scored", n, re.IGNORECASE) for n in about)
    if name in ("clamp", "clamp_", "clamp_max", "clip", "minimum", "nan_to_num", "nan_to_num_") and charged:
        yield Suspicion("V28", node.lineno, f"charges go through {name}: what a position costs is cut off or replaced")
    if name in ("cross_entropy", "nll_loss"):
        for keyword in node.keywords:
            if keyword.arg == "ignore_index" and number(keyword.value) not in (None, -100.0, -1.0):
                yield Suspicion(
                    "V28", node.lineno, f"ignore_index = {number(keyword.value):.0f} leaves positions uncharged"
                )
