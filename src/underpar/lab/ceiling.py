"""What this machine can do at best: a large matrix product and a large copy."""

import statistics
import time
from collections.abc import Callable

import torch


def median_seconds(work: Callable[[], object], *, device: str, repeats: int, warmup: int = 3) -> float:
    """Median time of `work`, by device events on CUDA, by the host clock elsewhere."""
    for _ in range(warmup):
        work()
    if device == "cpu":
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
        return statistics.median(times)
    pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for start, stop in pairs:
        start.record()
        work()
        stop.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(stop) for start, stop in pairs) / 1e3


def matmul_flops_per_second(device: str, dtype: torch.dtype) -> float:
    """Rate of a square product of random matrices: 8192 on CUDA, 1024 on a CPU."""
    size = 1024 if device == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2.0 * size**3 / median_seconds(lambda: a @ b, device=device, repeats=10)


def copy_bytes_per_second(device: str) -> float:
    """Rate of a copy, bytes read plus bytes written: 4 GiB on CUDA, 256 MiB on a CPU."""
    size = (1 << 28) if device == "cpu" else (1 << 32)
    source = torch.empty(size, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    return 2.0 * size / median_seconds(lambda: target.copy_(source), device=device, repeats=10)
