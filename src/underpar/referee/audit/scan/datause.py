"""Which data is read when, and how much of it: V08, V09, V10, V11, V12, V17."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from underpar.referee.audit.canon import DOCUMENTS
from underpar.referee.audit.scan.reading import Reading, Suspicion, any_match, called, environment_name, names, number

_LIMIT = re.compile(r"max|limit|subset|debug|sample|first_n|num_eval|n_eval", re.IGNORECASE)
_CALIBRATES = re.compile(r"calib|hessian|fit_temp|temperature|awq|clip_search|smooth_quant|collect_act", re.IGNORECASE)
_SCORES = re.compile(r"^(?:eval|score|validate|run_eval|ttt)|_(?:eval|score|validate)$|eval_val", re.IGNORECASE)
_VAL_DOCS = re.compile(r"val_?docs|num_val_docs|n_val_docs|docs_val", re.IGNORECASE)
_BLOB = 4_096


def scan_data(reading: Reading) -> Iterator[Suspicion]:
    """Use of held-out and training data in a training script."""
    for node in reading.source.of(ast.Subscript, ast.Assign, ast.Constant, ast.Call):
        if isinstance(node, ast.Subscript):
            yield from _part_of_text(reading, node)
        elif isinstance(node, ast.Assign):
            yield from _train_on_val(node)
            yield from _share_of_text(node)
        elif isinstance(node, ast.Constant):
            yield from _blob(reading, node)
        elif isinstance(node, ast.Call):
            yield from _calibration(reading, node)
    for function in reading.functions:
        if _SCORES.search(function.name):
            yield from _training_data(reading, function)


def scan_preparation(reading: Reading) -> Iterator[Suspicion]:
    """Splits and text transforms, in every script of the folder."""
    for node in reading.source.of(ast.Call, ast.Assign):
        if isinstance(node, ast.Call):
            yield from _split_option(node)
            yield from _rewriting(node)
        elif isinstance(node, ast.Assign):
            found = set().union(*(names(t) for t in node.targets))
            value = number(node.value)
            if any_match(_VAL_DOCS, found) and value is not None and value >= 100 and value != DOCUMENTS:
                yield Suspicion(
                    "V09",
                    node.lineno,
                    f"{value:,.0f} held-out documents are reserved, {DOCUMENTS:,} are scored",
                )


def _split_option(node: ast.Call) -> Iterator[Suspicion]:
    if called(node) != "add_argument" or not node.args or not isinstance(node.args[0], ast.Constant):
        return
    name = str(node.args[0].value).replace("-", "_")
    default = next((number(k.value) for k in node.keywords if k.arg == "default"), None)
    if _VAL_DOCS.search(name) and default is not None and default >= 100 and default != DOCUMENTS:
        yield Suspicion(
            "V09", node.lineno,
            f"{name} defaults to {default:,.0f}: the other {DOCUMENTS - default:,.0f} scored documents are trained on",
        )  # fmt: skip


def _rewriting(node: ast.Call) -> Iterator[Suspicion]:
    name = called(node)
    holder = names(node.func.value) if isinstance(node.func, ast.Attribute) else set()
    text = any(re.fullmatch(r"text|doc|document|raw|content|raw_text|doc_text", n) for n in holder)
    if name == "casefold" or (name == "lower" and text):
        yield Suspicion("V17", node.lineno, f"{name}() takes letter case out of the text before it is scored")
    if name == "normalize" and "unicodedata" in holder and node.args:
        form = node.args[0].value if isinstance(node.args[0], ast.Constant) else ""
        if isinstance(form, str) and form.startswith("NFK"):
            yield Suspicion("V17", node.lineno, f"{form} normalisation cannot be undone: is the original text scored?")


def _part_of_text(reading: Reading, node: ast.Subscript) -> Iterator[Suspicion]:
    """val_tokens[:5_000_000], val_tokens[:max_tokens]"""
    if not isinstance(node.slice, ast.Slice) or node.slice.upper is None or node.slice.lower is not None:
        return
    own = reading.held_out[reading.function_of(node)]
    if not isinstance(node.value, ast.Name | ast.Attribute) or not reading.is_held_out(node.value, own):
        return
    upper = node.slice.upper
    size = number(upper)
    if size is not None and size >= 10_000:
        yield Suspicion("V08", node.lineno, f"the held-out tokens are cut to {size:,.0f}")
    elif isinstance(upper, ast.Name | ast.Attribute) and any_match(_LIMIT, names(upper)):
        yield Suspicion("V08", node.lineno, f"the held-out tokens are cut to {ast.unparse(upper)[:40]}")


def _share_of_text(node: ast.Assign) -> Iterator[Suspicion]:
    """A setting such as VAL_DOC_FRACTION whose default is not the whole."""
    name = environment_name(node.value)
    if re.search(r"VAL.*(?:FRACTION|SUBSET|LIMIT|MAX_(?:TOKENS|DOCS))", name):
        default = number(node.value)
        if default not in (None, 0.0, 1.0, -1.0):
            yield Suspicion("V08", node.lineno, f"{name} defaults to {default:g}")


def _train_on_val(node: ast.Assign) -> Iterator[Suspicion]:
    found = set().union(*(names(t) for t in node.targets))
    if not any(re.search(r"train_(?:files|pattern|glob|shards|path)", name) for name in found):
        return
    for inner in ast.walk(node.value):
        if (
            isinstance(inner, ast.Constant)
            and isinstance(inner.value, str)
            and re.search(r"_val_|val_\*|/val", inner.value)
        ):
            yield Suspicion("V10", node.lineno, f"training data is read from {inner.value[:60]!r}")


def _blob(reading: Reading, node: ast.Constant) -> Iterator[Suspicion]:
    """A literal that is data, not prose and not the source of a kernel."""
    value = node.value
    if not isinstance(value, str | bytes) or len(value) <= _BLOB:
        return
    sample = value[: 1 << 16]
    gaps = len(sample.split())
    if gaps < len(sample) / 100:
        yield Suspicion("V10", node.lineno, f"a constant of {len(value):,} characters: what does it hold?")


def _calibration(reading: Reading, node: ast.Call) -> Iterator[Suspicion]:
    name = called(node)
    if not _CALIBRATES.search(name) or _SCORES.search(name):
        return
    own = reading.held_out[reading.function_of(node)]
    passed = [*node.args, *(k.value for k in node.keywords)]
    if any(reading.is_held_out(arg, own) for arg in passed):
        yield Suspicion("V12", node.lineno, f"{name} is given held-out tokens")


def _training_data(reading: Reading, function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Suspicion]:
    for node in reading.body(function):
        text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
        attribute = node.attr if isinstance(node, ast.Attribute) else ""
        if re.search(r"fineweb_train|train_\*", text) or attribute in ("train_files", "train_pattern", "train_glob"):
            yield Suspicion("V11", getattr(node, "lineno", function.lineno), f"{function.name} reads training shards")
            return
