"""How bytes and means are made: V15, V16, V18."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from underpar.referee.audit.scan.reading import Reading, Suspicion, any_match, called, dotted, names, number

_EVAL = re.compile(r"eval|valid|score", re.IGNORECASE)
_TABLE = re.compile(r"byte|blen|lut", re.IGNORECASE)
_RATIO = re.compile(r"val_?bpb|bpb|val_?loss|bits_per_byte", re.IGNORECASE)


def scan_bytecount(reading: Reading) -> Iterator[Suspicion]:
    """Byte tables and averages."""
    yield from _leading_space(reading)
    for node in reading.source.of(ast.Assign):
        if any_match(_TABLE, set().union(*(names(t) for t in node.targets))):
            yield from _by_text(node)
    yield from _means(reading)


def _leading_space(reading: Reading) -> Iterator[Suspicion]:
    """The byte of a leading space in the table, and added again while scoring."""
    added = [
        n
        for n in reading.source.of(ast.BinOp)
        if isinstance(n.op, ast.BitAnd)
        and isinstance(n.right, ast.UnaryOp)
        and isinstance(n.right.op, ast.Invert)
        and any("space" in name for name in names(n.left))
    ]
    if not added:
        return
    for node in reading.source.of(ast.Assign, ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if not any_match(_TABLE, set().union(*(names(t) for t in targets))):
            continue
        value = node.value
        extra = isinstance(node, ast.AugAssign) and number(value) == 1
        extra = extra or any(
            isinstance(n, ast.BinOp) and isinstance(n.op, ast.Add) and number(n.right) == 1 and _is_length(n.left)
            for n in ast.walk(value)
        )
        if extra:
            yield Suspicion(
                "V15",
                node.lineno,
                f"the table adds a byte to a length, and line {added[0].lineno} adds the space again",
            )
            return


def _is_length(node: ast.AST) -> bool:
    return any(called(n) == "len" for n in ast.walk(node))


def _by_text(node: ast.Assign) -> Iterator[Suspicion]:
    """A length of decoded or raw pieces: fallback bytes count 3 or 6, the space marker 3."""
    for inner in ast.walk(node.value):
        name = called(inner)
        if not isinstance(inner, ast.Call):
            continue
        if name == "len" and inner.args:
            made = {called(n) for n in ast.walk(inner.args[0])}
            if made & {"decode", "decode_ids", "DecodeIds"} and made & {"encode"}:
                yield Suspicion(
                    "V16",
                    node.lineno,
                    "bytes are the length of decoded text: a fallback byte counts as three",
                )
                return
            if made & {"id_to_piece", "IdToPiece"} and made & {"encode"} and "replace" not in made:
                yield Suspicion(
                    "V16",
                    node.lineno,
                    "bytes are the length of the raw piece, space marker and <0x..> included",
                )
                return
        if dotted(inner.func) in ("np.load", "numpy.load"):
            yield Suspicion("V16", node.lineno, "the table of byte lengths is loaded from a file instead of computed")
            return


def _means(reading: Reading) -> Iterator[Suspicion]:
    """Means of means inside scoring functions, and ratios averaged over processes."""
    for function in reading.functions:
        if not _EVAL.search(function.name):
            continue
        for node in reading.body(function):
            if not isinstance(node, ast.Call):
                continue
            averaged = called(node) == "all_reduce" and any("AVG" in names(k.value) for k in node.keywords)
            if averaged and node.args and any_match(_RATIO, names(node.args[0])):
                yield Suspicion("V18", node.lineno, "a ratio is averaged over processes instead of its two sums")
            if called(node) in ("mean", "fmean", "average") and _of_a_list(node):
                yield Suspicion("V18", node.lineno, "a mean over batch means: batches of unequal size weigh the same")


def _of_a_list(node: ast.Call) -> bool:
    """np.mean(losses), torch.stack(losses).mean(): not the mean of one tensor of charges."""
    listed = list(node.args)
    if isinstance(node.func, ast.Attribute) and called(node.func.value) in ("stack", "tensor", "array", "asarray"):
        listed.append(node.func.value)
    return any(re.search(r"losses|bpbs|batch_(?:loss|bpb)", name) for arg in listed for name in names(arg))
