"""Time every kernel against its reference, eager and compiled, and against the floor that the machine sets.

    python benchmarks/kernels.py --out benchmarks/results/kernels.json
    python benchmarks/kernels.py --only residual_norm mlp_act --tokens 98304 --tiles
    python benchmarks/kernels.py --model baseline --tokens 65536

The floor of a case is the larger of two times: the fewest bytes it must move over the measured copy bandwidth, and its
operations over the measured rate of a large bf16 matrix product. `of floor` is floor / measured: 100 % cannot be beaten.
A call is captured as a CUDA graph and its replays are timed, with the L2 cache cleared before each, so that launching costs
nothing; "events" marks what could not be captured. The kernels come first, then their references as far as --seconds go.
With --tiles every other launch configuration is timed too. On a CPU it runs the references only, small, to show that it works.
"""

import argparse
import gc
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from kernel_cases import CASES, MODELS, Case
from kernel_tiles import TILES, Launch
from underpar.kernels.dispatch import HAS_TRITON

REPEAT_MS = 60
TOKENS = (65_536, 131_072)


@dataclass(frozen=True)
class Row:
    case: str
    shape: str
    variant: str
    direction: str
    ms: float
    gb_per_s: float
    tflop_per_s: float
    floor_ms: float
    of_floor: float
    peak_mib: float | None
    """Device memory allocated at the most, beyond inputs: for the forward with the backward."""
    timing: str


@dataclass(frozen=True)
class Ceilings:
    copy_gb_per_s: float
    matmul_tflop_per_s: float

    def floor_ms(self, bytes_moved: int, flops: int) -> float:
        return 1e3 * max(bytes_moved / (self.copy_gb_per_s * 1e9), flops / (self.matmul_tflop_per_s * 1e12))


def captured(function: Callable[[], object]) -> Callable[[], object] | None:
    """A replay of everything that `function` does on the device; None when it cannot be captured."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            function()
    except RuntimeError as reason:
        print(f"    not captured: {str(reason).splitlines()[0]}", file=sys.stderr)
        torch.cuda.synchronize()
        return None
    return graph.replay


def median_ms(function: Callable[[], object], device: torch.device) -> tuple[float, str]:
    """Median time of a warm call, and how it was taken."""
    if device.type != "cuda":
        function()
        times = []
        for _ in range(3):
            start = time.perf_counter()
            function()
            times.append(1e3 * (time.perf_counter() - start))
        return statistics.median(times), "clock"
    replay = captured(function)
    call, timing = (function, "events") if replay is None else (replay, "graph")
    flush = torch.empty(256 * 2**20, dtype=torch.int8, device=device)
    estimate = max(_timed_calls(call, flush, 2))
    times = _timed_calls(call, flush, min(max(int(REPEAT_MS / estimate), 5), 100))
    return statistics.median(times), timing


def _timed_calls(call: Callable[[], object], flush: torch.Tensor, repeat: int) -> list[float]:
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeat)]
    for start, end in events:
        flush.zero_()
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in events]


def measured_ceilings(device: torch.device) -> Ceilings:
    """Bandwidth of a large device copy, bytes read plus written, and rate of a large bf16 product of random matrices."""
    size, edge = (2**30, 8192) if device.type == "cuda" else (2**22, 256)
    source = torch.randint(0, 127, (size,), dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    copy_ms = median_ms(lambda: target.copy_(source), device)[0]
    a, b = (torch.randn(edge, edge, device=device).bfloat16() for _ in range(2))
    product_ms = median_ms(lambda: torch.mm(a, b), device)[0]
    return Ceilings(2 * size / copy_ms / 1e6, 2 * edge**3 / product_ms / 1e9)


def peak_mib(function: Callable[[], object], device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    function()  # compiled and warm
    gc.collect()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    function()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def timed(case: Case, variant: str, function: Callable[..., object], ceilings: Ceilings) -> list[Row]:
    """The forward of training, which saves what the backward reads, and both together."""
    device = case.inputs[0].device
    leaves = [x.detach().requires_grad_() for x in case.inputs]

    def forward() -> object:
        return function(*leaves)

    def both() -> object:
        out = function(*leaves)
        return torch.autograd.grad(out if isinstance(out, tuple) else (out,), leaves, case.output_grads)

    peak = peak_mib(both, device)
    rows = []
    for index, (direction, call) in enumerate((("forward", forward), ("forward + backward", both))):
        ms, timing = median_ms(call, device)
        moved, flops = case.bytes_moved[index], case.flops[index]
        floor = ceilings.floor_ms(moved, flops)
        speeds = (moved / ms / 1e6, flops / ms / 1e9, floor, floor / ms)
        rows.append(Row(case.name, case.shape, variant, direction, ms, *speeds, peak if index else None, timing))
    return rows


def timed_launch(launch: Launch, ceilings: Ceilings, device: torch.device) -> Row | None:
    """A launch configuration that does not fit the GPU is part of the answer, not its end."""
    from triton.runtime.errors import OutOfResources

    try:
        ms, timing = median_ms(launch.call, device)
    except OutOfResources as reason:
        print(f"  {launch.name} {launch.direction}, {launch.tile}: {reason}", file=sys.stderr)
        return None
    floor = ceilings.floor_ms(launch.bytes_moved, launch.flops)
    speeds = (launch.bytes_moved / ms / 1e6, launch.flops / ms / 1e9, floor, floor / ms)
    return Row(launch.name, launch.shape, launch.tile, launch.direction, ms, *speeds, None, timing)


def shown(row: Row) -> str:
    speed = f"{row.tflop_per_s:7.1f} TFLOP/s" if row.tflop_per_s else f"{row.gb_per_s:7.0f} GB/s  "
    peak = "" if row.peak_mib is None else f"{row.peak_mib:9.0f} MiB"
    events = "" if row.timing == "graph" else f"  ({row.timing})"
    return f"  {row.variant:38} {row.direction:18} {row.ms:9.4f} ms {speed} {row.of_floor:6.1%} of floor{peak}{events}"


def environment(device: torch.device) -> dict[str, object]:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    triton_version = None
    if HAS_TRITON:
        import triton

        triton_version = triton.__version__
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": name,
        "torch": torch.__version__,
        "triton": triton_version,
        "python": platform.python_version(),
        "commit": commit or None,
        "time_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


class Session:
    """The rows so far, printed and written as they come: a run that is cut short leaves what it has."""

    def __init__(self, arguments: argparse.Namespace, device: torch.device) -> None:
        self.arguments, self.device = arguments, device
        self.began = time.perf_counter()
        self.rows: list[Row] = []
        self.skipped: list[str] = []
        self.tokens = arguments.tokens or (TOKENS if device.type == "cuda" else (64,))
        self.shapes = MODELS[arguments.model]
        self.ceilings = measured_ceilings(device)
        print(
            f"ceilings: copy {self.ceilings.copy_gb_per_s:,.0f} GB/s, "
            f"matmul {self.ceilings.matmul_tflop_per_s:,.1f} TFLOP/s"
        )

    def add(self, rows: list[Row]) -> None:
        self.rows += rows
        for row in rows:
            print(shown(row), flush=True)
        if self.arguments.out:
            record = {**environment(self.device), "model": self.arguments.model, "tokens": list(self.tokens)}
            record |= {"seconds": time.perf_counter() - self.began, "ceilings": asdict(self.ceilings)}
            record |= {"rows": [asdict(row) for row in self.rows], "skipped": self.skipped}
            self.arguments.out.parent.mkdir(parents=True, exist_ok=True)
            self.arguments.out.write_text(json.dumps(record, indent=1) + "\n")

    def kernels(self) -> None:
        for tokens in self.tokens:
            for name in self.arguments.only:
                for case in CASES[name](tokens, self.shapes, self.device):
                    print(f"\n{case.name}: {case.shape}")
                    for variant, function in case.kernels.items():
                        self.add(timed(case, variant, function, self.ceilings))

    def tiles(self) -> None:
        for name in self.arguments.only:
            for launch in TILES[name](self.tokens[0], self.shapes, self.device):
                if (row := timed_launch(launch, self.ceilings, self.device)) is not None:
                    self.add([row])

    def references(self) -> None:
        """Compiled at every size; eager at the first, where it shows what compiling brings."""
        for tokens in self.tokens:
            for name in self.arguments.only:
                for case in CASES[name](tokens, self.shapes, self.device):
                    if time.perf_counter() - self.began > self.arguments.seconds:
                        self.skipped.append(f"{case.name}: {case.shape}, references")
                        continue
                    print(f"\n{case.name}: {case.shape}")
                    if tokens == self.tokens[0]:
                        self.add(timed(case, "torch eager", case.reference, self.ceilings))
                    if self.device.type == "cuda":
                        torch.compiler.reset()
                        compiled = torch.compile(case.reference, fullgraph=True, dynamic=False)
                        self.add(timed(case, "torch compiled", compiled, self.ceilings))
        for line in self.skipped:
            print(f"out of time: {line}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="operations to time")
    parser.add_argument("--model", choices=MODELS, default="late", help="whose shapes")
    parser.add_argument("--tokens", type=int, nargs="+", default=None, help="rows (65,536 and 131,072; on a CPU 64)")
    parser.add_argument("--tiles", action="store_true", help="time other launch configurations, in place of references")
    parser.add_argument("--seconds", type=float, default=120.0, help="start no reference after this long")
    parser.add_argument("--out", type=Path, default=None, help="JSON file to write")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if arguments.tiles and device.type != "cuda":
        parser.error("--tiles launches kernels and needs a CUDA device; leave it out on a CPU")
    torch.manual_seed(0)
    session = Session(arguments, device)
    if device.type == "cuda":
        session.kernels()
    if arguments.tiles:
        session.tiles()
    else:
        session.references()


if __name__ == "__main__":
    main()
