"""Where the device time of a training step goes: every kernel in one class, and the rest is gaps."""

import json
import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch

COMPUTE = ("matmul", "attention", "elementwise", "optimiser")
COMMUNICATION, GAPS = "communication", "gaps"
OPTIMISER_REGION = "underpar.optimiser"

_NAMES = (
    (COMMUNICATION, re.compile(r"nccl", re.IGNORECASE)),
    ("attention", re.compile(r"flash|fmha|sdpa|attention|attn", re.IGNORECASE)),
    ("matmul", re.compile(r"gemm|gemv|nvjet|cutlass|xmma|wgmma|cublas|triton_tem|_up_kernel|_grad_pre_kernel", re.IGNORECASE)),
)  # fmt: skip
"""Kernel name -> class, first match; what matches none reads and writes tensors: elementwise."""


class Work(NamedTuple):
    """One kernel or copy on the device. Times in microseconds."""

    start: float
    end: float
    name: str
    kind: str


def kind_of(name: str) -> str:
    """The class of a kernel that runs outside the optimiser."""
    return next((kind for kind, pattern in _NAMES if pattern.search(name)), "elementwise")


def works(trace: Iterable[dict[str, Any]]) -> list[Work]:
    """The device's work in the events of a Chrome trace; a kernel inside the optimiser's region is the optimiser's."""
    events = [event for event in trace if event.get("ph") == "X" and "dur" in event]
    regions = [
        (event["ts"], event["ts"] + event["dur"])
        for event in events
        if event.get("cat") == "gpu_user_annotation" and event["name"] == OPTIMISER_REGION
    ]
    found = []
    for event in events:
        if event.get("cat") not in ("kernel", "gpu_memcpy", "gpu_memset"):
            continue
        start, end, kind = event["ts"], event["ts"] + event["dur"], kind_of(event["name"])
        if kind != COMMUNICATION and any(a <= start < b for a, b in regions):
            kind = "optimiser"
        found.append(Work(start, end, event["name"], kind))
    return found


def shares(found: list[Work]) -> dict[str, float]:
    """Share of the time from the first start to the last end, by class; they add up to 1.

    Where work overlaps, the instant belongs to the computation: communication is what nothing hides.
    """
    if not found:
        return {}
    edges = sorted([(w.start, 1, w.kind) for w in found] + [(w.end, -1, w.kind) for w in found])
    active = dict.fromkeys((*COMPUTE, COMMUNICATION), 0)
    spent = dict.fromkeys((*COMPUTE, COMMUNICATION, GAPS), 0.0)
    now = edges[0][0]
    for at, change, kind in edges:
        spent[next((k for k in active if active[k]), GAPS)] += at - now
        active[kind] += change
        now = at
    total = edges[-1][0] - edges[0][0]
    return {kind: seconds / total for kind, seconds in spent.items()}


def summary(found: list[Work], steps: int) -> dict[str, Any]:
    """Shares, and the kernels that take most. Milliseconds are of one step."""
    by_name: dict[tuple[str, str], list[float]] = {}
    for work in found:
        by_name.setdefault((work.name, work.kind), []).append(work.end - work.start)
    largest = sorted(by_name.items(), key=lambda item: -sum(item[1]))[:20]
    wall = max((w.end for w in found), default=0.0) - min((w.start for w in found), default=0.0)
    in_all = sum(w.end - w.start for w in found if w.kind == COMMUNICATION) / 1e3 / steps
    divided = shares(found)
    return {
        "steps": steps,
        "step_ms": wall / 1e3 / steps,
        "busy_ms": (1 - divided.get(GAPS, 0.0)) * wall / 1e3 / steps,
        "shares": divided,
        "hidden_communication_ms": max(0.0, in_all - divided.get(COMMUNICATION, 0.0) * wall / 1e3 / steps),
        "largest": [
            {"kernel": name[:120], "class": kind, "ms": sum(times) / 1e3 / steps, "calls": len(times) / steps}
            for (name, kind), times in largest
        ],
    }


def profile_steps(one_step: Callable[[], object], steps: int = 3) -> dict[str, Any]:
    """Run `one_step`, already warm, under torch's profiler on a CUDA device. See `summary`.

    Kernels of the optimiser are those launched inside `torch.profiler.record_function(OPTIMISER_REGION)`.
    """
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        for _ in range(steps):
            one_step()
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8", errors="replace"))["traceEvents"]
    return summary(works(events), steps)
