"""Time every kernel against its reference, eager and compiled, and against the floor that the machine sets.

    python benchmarks/kernels.py --out benchmarks/results/kernels.json
    python benchmarks/kernels.py --only softcapped_ce mlp_act --tokens 131072 --sweep

The floor of a case is the larger of two times: the fewest bytes it must move over the measured copy bandwidth, and its
operations over the measured rate of a large bf16 matrix product. `of floor` is floor / measured: 100 % cannot be beaten.
On a CPU it runs the references only, small, to show that the program works.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from underpar.kernels import mlp_act, qk_norm_rope, softcapped_ce
from underpar.kernels.dispatch import HAS_TRITON

MODEL_DIM, HIDDEN, HEADS, KV_HEADS, HEAD_DIM, SEQ = 512, 1024, 8, 4, 64, 1024
"""The 17 M baseline."""
EPS = 1.19e-7
REPEAT_MS = 300


@dataclass(frozen=True)
class Case:
    """One operation at one shape. Bytes and operations are the fewest possible, forward and forward with backward."""

    name: str
    shape: str
    kernel: Callable[..., object]
    reference: Callable[..., object]
    inputs: tuple[Tensor, ...]
    output_grads: tuple[Tensor, ...]
    """Empty when the operation has no backward."""
    bytes_moved: tuple[int, int]
    flops: tuple[int, int]


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


@dataclass(frozen=True)
class Ceilings:
    copy_gb_per_s: float
    matmul_tflop_per_s: float

    def floor_ms(self, bytes_moved: int, flops: int) -> float:
        return 1e3 * max(bytes_moved / (self.copy_gb_per_s * 1e9), flops / (self.matmul_tflop_per_s * 1e12))


def median_ms(function: Callable[[], object], device: torch.device) -> float:
    """Median time of a warm call; on a GPU by events, with the L2 cache cleared before each."""
    if device.type == "cuda":
        from triton.testing import do_bench

        return do_bench(function, warmup=50, rep=REPEAT_MS, return_mode="median")
    function()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def measured_ceilings(device: torch.device) -> Ceilings:
    """Bandwidth of a large device copy, bytes read plus written, and rate of a large bf16 product of random matrices."""
    size, edge = (2**30, 8192) if device.type == "cuda" else (2**24, 256)
    source = torch.randint(0, 127, (size,), dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    copy_ms = median_ms(lambda: target.copy_(source), device)
    a, b = (torch.randn(edge, edge, dtype=torch.bfloat16, device=device) for _ in range(2))
    product_ms = median_ms(lambda: torch.mm(a, b), device)
    return Ceilings(2 * size / copy_ms / 1e6, 2 * edge**3 / product_ms / 1e9)


def cross_entropy_cases(tokens: int, device: torch.device) -> Iterator[Case]:
    for vocab_size, softcap in ((1024, 30.0), (8192, 30.0), (50304, 15.0)):
        rows = tokens if vocab_size <= 8192 else tokens // 4
        logits = 5 * torch.randn(rows, vocab_size, device=device).bfloat16()
        targets = torch.randint(vocab_size, (rows,), device=device)
        size = 2 * logits.numel()
        yield Case(
            "softcapped_ce",
            f"{rows} x {vocab_size}, cap {softcap:g}",
            lambda x, targets=targets, softcap=softcap: softcapped_ce.softcapped_cross_entropy(x, targets, softcap),
            lambda x, targets=targets, softcap=softcap: softcapped_ce.ref.softcapped_cross_entropy(x, targets, softcap),
            (logits,),
            (torch.full((1,), 1 / max(rows, 1), device=device).expand(rows),),
            (size, 3 * size),
            (0, 0),
        )


def mlp_cases(tokens: int, device: torch.device) -> Iterator[Case]:
    for hidden, slope in ((HIDDEN, 0.0), (2048, 0.0), (2048, 0.5)):
        x = torch.randn(tokens, MODEL_DIM, device=device).bfloat16()
        w_up = (torch.randn(hidden, MODEL_DIM, device=device) / MODEL_DIM**0.5).bfloat16()
        w_down = (torch.randn(MODEL_DIM, hidden, device=device) / hidden**0.5).bfloat16()
        stream, inner = 2 * x.numel(), 2 * tokens * hidden
        product = 2 * tokens * MODEL_DIM * hidden
        saved = inner * (2 if slope else 1)
        forward = 2 * stream + saved + inner  # x in, out out, what is saved written, post read again
        # grad and the saved tensor in for grad_pre; grad and post in for w_down; grad_pre and x for w_up; grad_pre for x
        backward = (stream + 2 * inner) + (stream + inner) + (stream + inner) + (stream + inner)
        yield Case(
            "mlp_act",
            f"{tokens} x {MODEL_DIM} -> {hidden}, slope {slope:g}",
            partial(mlp_act.mlp_act, negative_slope=slope),
            partial(mlp_act.ref.mlp_act, negative_slope=slope),
            (x, w_up, w_down),
            (torch.randn_like(x),),
            (forward, forward + backward),
            (2 * product, 6 * product),
        )


def norm_rope_cases(tokens: int, device: torch.device) -> Iterator[Case]:
    seq = min(SEQ, tokens)
    batch, heads = tokens // seq, HEADS + 2 * KV_HEADS
    qkv = torch.randn(batch, seq, heads * HEAD_DIM, device=device).bfloat16()
    gain = 1 + torch.rand(HEADS, device=device)
    for rotated in (HEAD_DIM, 16):
        angle = torch.outer(torch.arange(seq), 10_000.0 ** (-torch.arange(0, rotated, 2) / rotated)).to(device)
        cos, sin = angle.cos(), angle.sin()
        grads = tuple(
            torch.randn(batch, seq, h, HEAD_DIM, device=device).bfloat16() for h in (HEADS, KV_HEADS, KV_HEADS)
        )
        qk = 2 * batch * seq * (HEADS + KV_HEADS) * HEAD_DIM
        packed = 2 * qkv.numel()
        yield Case(
            "qk_norm_rope",
            f"views of {tokens} x {heads} heads of {HEAD_DIM}, {rotated} rotated",
            lambda x, g, c=cos, s=sin: qk_norm_rope.qk_norm_rope(
                *qk_norm_rope.ref.split_heads(x, HEADS, KV_HEADS)[:2], g, c, s, eps=EPS
            ),
            lambda x, g, c=cos, s=sin: qk_norm_rope.ref.qk_norm_rope(
                *qk_norm_rope.ref.split_heads(x, HEADS, KV_HEADS)[:2], g, c, s, eps=EPS
            ),
            (qkv, gain),
            grads[:2],
            (2 * qk, 4 * qk + packed),
            (0, 0),
        )
        yield Case(
            "qkv_norm_rope",
            f"{tokens} x {heads} heads of {HEAD_DIM}, {rotated} rotated",
            lambda x, g, c=cos, s=sin: qk_norm_rope.qkv_norm_rope(x, g, c, s, num_kv_heads=KV_HEADS, eps=EPS),
            lambda x, g, c=cos, s=sin: qk_norm_rope.ref.qkv_norm_rope(x, g, c, s, num_kv_heads=KV_HEADS, eps=EPS),
            (qkv, gain),
            grads,
            (2 * packed, 2 * packed + packed + qk + packed),
            (0, 0),
        )


CASES: dict[str, Callable[[int, torch.device], Iterator[Case]]] = {
    "softcapped_ce": cross_entropy_cases,
    "mlp_act": mlp_cases,
    "qk_norm_rope": norm_rope_cases,
}


def timed(case: Case, variant: str, function: Callable[..., object], ceilings: Ceilings) -> list[Row]:
    """Rows for the forward without gradients and for forward and backward together."""
    device = case.inputs[0].device
    with torch.no_grad():
        forward_ms = median_ms(lambda: function(*case.inputs), device)
    times = [("forward", forward_ms, case.bytes_moved[0], case.flops[0])]
    if case.output_grads:
        leaves = [x.detach().clone().requires_grad_() for x in case.inputs]

        def both() -> object:
            out = function(*leaves)
            return torch.autograd.grad(out if isinstance(out, tuple) else (out,), leaves, case.output_grads)

        times.append(("forward + backward", median_ms(both, device), case.bytes_moved[1], case.flops[1]))
    rows = []
    for direction, ms, moved, flops in times:
        floor = ceilings.floor_ms(moved, flops)
        rows.append(
            Row(case.name, case.shape, variant, direction, ms, moved / ms / 1e6, flops / ms / 1e9, floor, floor / ms)
        )
    return rows


def variants(case: Case, device: torch.device) -> Iterator[tuple[str, Callable[..., object]]]:
    yield "torch eager", case.reference
    if device.type == "cuda":
        yield "torch compiled", torch.compile(case.reference, fullgraph=True, dynamic=False)
        yield "kernel eager", case.kernel
        yield "kernel compiled", torch.compile(case.kernel, fullgraph=True, dynamic=False)


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


def sweep(tokens: int, device: torch.device) -> dict[str, float]:
    """Milliseconds of other tile sizes than the ones chosen, for whoever chooses again on another GPU."""
    from underpar.kernels.mlp_act import triton as mlp

    x, grad = (torch.randn(tokens, MODEL_DIM, device=device).bfloat16() for _ in range(2))
    w_up = torch.randn(HIDDEN, MODEL_DIM, device=device).bfloat16()
    w_down = w_up.t().contiguous()
    saved = torch.rand(tokens, HIDDEN, device=device).bfloat16()
    candidates: dict[str, Callable[[], object]] = {
        "mlp_act up: torch.mm without activation": lambda: torch.mm(x, w_up.t()),
        "mlp_act grad_pre: torch.mm without derivative": lambda: torch.mm(grad, w_down),
    }
    for m, n, k, warps, stages in [
        (128, 256, 64, 8, 3),
        (128, 256, 64, 8, 4),
        (256, 128, 64, 8, 3),
        (128, 128, 64, 8, 4),
        (128, 128, 64, 4, 4),
        (128, 128, 128, 8, 2),
        (64, 256, 64, 4, 4),
    ]:
        tile = {"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k, "num_warps": warps, "num_stages": stages}
        label = f"{m} x {n} x {k}, {warps} warps, {stages} stages"
        candidates[f"mlp_act up: {label}"] = partial(mlp.launch_up, x, w_up, 0.0, tile)
        candidates[f"mlp_act grad_pre: {label}"] = partial(mlp.launch_grad_pre, grad, w_down, saved, 0.0, tile)
    return {label: time_or_nan(label, function, device) for label, function in candidates.items()}


def time_or_nan(label: str, function: Callable[[], object], device: torch.device) -> float:
    """A tile that does not fit in shared memory is part of a sweep's answer, not its end."""
    from triton.runtime.errors import OutOfResources

    try:
        return median_ms(function, device)
    except OutOfResources as reason:
        print(f"{label}: {reason}", file=sys.stderr)
        return float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="operations to time")
    parser.add_argument("--tokens", type=int, default=None, help="rows (262,144; on a CPU 256)")
    parser.add_argument("--sweep", action="store_true", help="time other tile sizes too (GPU)")
    parser.add_argument("--out", type=Path, default=None, help="JSON file to write")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if arguments.sweep and device.type != "cuda":
        parser.error("--sweep launches kernels and needs a CUDA device; leave it out on a CPU")
    tokens = arguments.tokens or (262_144 if device.type == "cuda" else 256)
    torch.manual_seed(0)
    ceilings = measured_ceilings(device)
    print(f"ceilings: copy {ceilings.copy_gb_per_s:,.0f} GB/s, matmul {ceilings.matmul_tflop_per_s:,.1f} TFLOP/s")
    rows: list[Row] = []
    for name in arguments.only:
        for case in CASES[name](tokens, device):
            torch.compiler.reset()
            print(f"\n{case.name}: {case.shape}")
            for variant, function in variants(case, device):
                for row in timed(case, variant, function, ceilings):
                    rows.append(row)
                    speed = f"{row.tflop_per_s:7.1f} TFLOP/s" if row.tflop_per_s else f"{row.gb_per_s:7.0f} GB/s  "
                    print(f"  {variant:16} {row.direction:18} {row.ms:9.4f} ms {speed} {row.of_floor:6.1%} of floor")
    swept = sweep(tokens, device) if arguments.sweep else {}
    for label, ms in swept.items():
        print(f"{label:60} {ms:9.4f} ms")
    if arguments.out:
        record = {**environment(device), "tokens": tokens, "ceilings": asdict(ceilings)}
        record |= {"rows": [asdict(row) for row in rows], "sweep_ms": {k: v for k, v in swept.items() if v == v}}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
