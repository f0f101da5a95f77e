"""Clocks, caps, seeds and the world outside the artifact: V19, V20, V21, V22, V25."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from underpar.referee.audit.scan.reading import Reading, Suspicion, called, dotted, environment_name, names, number

_RUNS = {"os.system", "os.popen", "subprocess.run", "subprocess.call", "subprocess.check_call", "subprocess.check_output",
         "subprocess.Popen", "pty.spawn"}  # fmt: skip
_ASKS = re.compile(r"nvidia-smi|hostname|git|uname|lscpu|pip freeze|which|pyminify")
"""Programs that only report, or that only measure the code."""
_FETCHES = re.compile(r"^(?:urllib|requests|httpx|aiohttp|socket|huggingface_hub|wget|boto3|ftplib|paramiko)(?:$|\.)")
_HUB = {
    "hf_hub_download",
    "snapshot_download",
    "load_dataset",
    "urlopen",
    "urlretrieve",
    "download_url_to_file",
    "hub_load",
}
_NO_CAP = re.compile(r"FORCE_STOP|(?:IGNORE|DISABLE|SKIP|NO)_(?:CAP|WALLCLOCK|TIME_?LIMIT)", re.IGNORECASE)
_OUTSIDE = re.compile(r"(?:precompute|prefill|build)_outside|outside_(?:the_)?timer|untimed", re.IGNORECASE)
_MIB = float(16 << 20)


def scan_outside(reading: Reading) -> Iterator[Suspicion]:
    """What a script reaches for, and how it reads its limits."""
    for node in reading.source.of(ast.Import, ast.ImportFrom, ast.Call, ast.Assign, ast.Compare):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from _imports(node)
        elif isinstance(node, ast.Call):
            yield from _programs(node)
        elif isinstance(node, ast.Assign):
            yield from _settings(node)
            yield from _chosen_seed(node)
        elif isinstance(node, ast.Compare):
            yield from _mebibytes(node)
    for name, line in _words(reading):
        if _OUTSIDE.search(name):
            yield Suspicion("V21", line, f"{name}: is it inside the clock of the evaluation?")


def _imports(node: ast.Import | ast.ImportFrom) -> Iterator[Suspicion]:
    modules = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
    for module in modules:
        if _FETCHES.match(module):
            yield Suspicion("V25", node.lineno, f"imports {module}: does scoring reach the network?")


def _programs(node: ast.Call) -> Iterator[Suspicion]:
    name = dotted(node.func)
    if name in _RUNS:
        words = " ".join(
            str(n.value) for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)
        )
        if not _ASKS.search(words):
            what = f"runs {words[:50]!r}" if words else "runs a program"
            yield Suspicion("V25", node.lineno, f"{name} {what}: an undeclared dependence, or an install")
    elif called(node) in _HUB:
        yield Suspicion("V25", node.lineno, f"{called(node)} fetches from outside")


def _settings(node: ast.Assign) -> Iterator[Suspicion]:
    name = environment_name(node.value)
    if not name:
        return
    if _NO_CAP.search(name):
        yield Suspicion("V20", node.lineno, f"{name} lets a run pass its time limit")
    if re.fullmatch(r"MAX_WALLCLOCK_SECONDS|TRAIN_SECONDS|MAX_TRAIN_SECONDS", name):
        default = number(node.value)
        if default is not None and (default > 600 or default <= 0):
            yield Suspicion("V20", node.lineno, f"{name} defaults to {default:g}; the cap of the record track is 600 s")


def _chosen_seed(node: ast.Assign) -> Iterator[Suspicion]:
    for target in node.targets:
        for name in names(target):
            if re.search(r"best_seed|seed_search|lucky", name, re.IGNORECASE):
                yield Suspicion("V22", node.lineno, f"{name}: is the shown seed the best of several?")


def _mebibytes(node: ast.Compare) -> Iterator[Suspicion]:
    for side in (node.left, *node.comparators):
        if number(side) == _MIB:
            yield Suspicion("V19", node.lineno, "a size is compared with 16 MiB; the cap is 16,000,000 bytes")


def _words(reading: Reading) -> Iterator[tuple[str, int]]:
    """Names and short strings with their lines."""
    source = reading.source
    yield from ((node.id, node.lineno) for node in source.of(ast.Name))
    yield from ((node.attr, node.lineno) for node in source.of(ast.Attribute))
    for node in source.of(ast.Constant):
        if isinstance(node.value, str) and len(node.value) < 60:
            yield node.value, node.lineno
