"""Launch configurations other than the ones chosen, for whoever chooses again: `benchmarks/kernels.py --tiles`.

The kernels are launched directly, without autograd; every module is imported late because it needs the triton package.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
from torch import Tensor

from kernel_cases import EPS, Shapes, num_bytes
from underpar.kernels import qk_norm_rope

Tile = dict[str, int]


@dataclass(frozen=True)
class Launch:
    name: str
    shape: str
    direction: str
    tile: str
    call: Callable[[], object]
    bytes_moved: int
    flops: int = 0


def named(tile: Tile) -> str:
    return ", ".join(f"{key.lower()} {value}" for key, value in tile.items())


def bf16(*shape: int, device: torch.device) -> Tensor:
    return torch.randn(*shape, device=device, dtype=torch.bfloat16)


def exclusive_gate_tiles(tokens: int, shapes: Shapes, device: torch.device) -> Iterator[Launch]:
    from underpar.kernels.exclusive_gate import triton as kernels

    heads, kv_heads, dim = shapes.heads, shapes.kv_heads, shapes.head_dim
    y, grad = (bf16(1, tokens, heads, dim, device=device) for _ in range(2))
    v = qk_norm_rope.ref.split_heads(bf16(1, tokens, (heads + 2 * kv_heads) * dim, device=device), heads, kv_heads)[2]
    logits = bf16(1, tokens, heads, device=device)
    read = num_bytes(y, v, logits)
    for rows, warps in product((8, 16, 32, 64), (2, 4, 8)):
        tile = {"ROWS": rows, "num_warps": warps}
        if 8 <= rows * dim / (8 * 32 * warps) * 8 <= 32:  # numbers of a tensor in a thread
            for direction, call, moved in (
                ("forward", partial(kernels.launch_forward, y, v, logits, 1.0, tile), read + num_bytes(y)),
                ("backward", partial(kernels.launch_backward, grad, y, v, logits, 1.0, tile), 2 * read + num_bytes(y)),
            ):
                yield Launch("exclusive_gate", f"{tokens} tokens", direction, named(tile), call, moved)


def residual_norm_tiles(tokens: int, shapes: Shapes, device: torch.device) -> Iterator[Launch]:
    from underpar.kernels.residual_norm import triton as kernels

    dim = shapes.model_dim
    x, branch, x0, *grads = (bf16(tokens, dim, device=device) for _ in range(5))
    scale, mix = torch.randn(dim, device=device), torch.randn(2, dim, device=device)
    row = num_bytes(x)
    for embedding, mixing in ((None, None), (x0, mix)):
        streams = 2 if embedding is None else 3
        label = f"{tokens} x {dim}, {'residual' if embedding is None else 'mixed'}"
        arguments = ([x, branch], [scale], embedding, mixing, 1.0, EPS)
        for rows, warps, stages, per_sm in (
            (4, 4, 1, 4096), (1, 1, 1, 4096), (2, 2, 1, 4096), (2, 4, 1, 4096), (8, 8, 1, 4096), (4, 4, 1, 8),
            (4, 4, 2, 6), (1, 1, 2, 16), (2, 4, 3, 6),
        ):  # fmt: skip
            tile = {"ROWS": rows, "num_warps": warps, "STAGES": stages, "per_sm": per_sm}
            call = partial(kernels.launch_forward, *arguments, False, tile)
            yield Launch("residual_norm", label, "forward", named(tile), call, (streams + 2) * row)
        for rows, warps, stages, per_sm in (
            (1, 1, 1, 8), (1, 1, 1, 12), (1, 1, 1, 16), (1, 1, 1, 24), (1, 1, 2, 8), (1, 1, 2, 12), (1, 2, 1, 8),
            (1, 2, 2, 8), (2, 4, 1, 4), (2, 4, 2, 4), (4, 8, 1, 2), (4, 8, 2, 2),
        ):  # fmt: skip
            tile = {"ROWS": rows, "num_warps": warps, "STAGES": stages, "per_sm": per_sm}
            call = partial(kernels.launch_backward, (None, *grads), *arguments, tile)
            yield Launch("residual_norm", label, "backward", named(tile), call, (2 + 2 * streams) * row)


def norm_rope_tiles(tokens: int, shapes: Shapes, device: torch.device) -> Iterator[Launch]:
    from underpar.kernels.qk_norm_rope import triton as kernels

    heads, kv_heads, dim = shapes.heads, shapes.kv_heads, shapes.head_dim
    qkv = bf16(1, tokens, (heads + 2 * kv_heads) * dim, device=device)
    views = qk_norm_rope.ref.split_heads(qkv, heads, kv_heads)[:2]
    grads, out = (tuple(bf16(*x.shape, device=device) for x in views) for _ in range(2))
    cos, sin = torch.randn(2, tokens, shapes.rotated[0] // 2, device=device).unbind()
    tables = (torch.ones(heads, device=device), cos, sin, EPS)
    row, angles = num_bytes(*views), num_bytes(cos, sin)
    for num_tokens, warps in ((1, 2), (2, 2), (2, 4), (4, 4), (8, 4), (8, 8)):
        tile = {"TOKENS": num_tokens, "num_warps": warps}
        for direction, call, moved in (
            ("forward", partial(kernels.launch_forward, views, out, *tables, tile), 2 * row + angles),
            ("backward", partial(kernels.launch_backward, grads, views, out, *tables, tile), 3 * row + angles),
        ):
            yield Launch("qk_norm_rope", f"{tokens} tokens", direction, named(tile), call, moved)


def mlp_tiles(tokens: int, shapes: Shapes, device: torch.device) -> Iterator[Launch]:
    from underpar.kernels.mlp_act import triton as kernels

    dim = shapes.model_dim
    hidden, slope = shapes.mlps[0]
    x, grad = (bf16(tokens, dim, device=device) for _ in range(2))
    w_up = (torch.randn(hidden, dim, device=device) / dim**0.5).bfloat16()
    w_down = (torch.randn(dim, hidden, device=device) / hidden**0.5).bfloat16()
    saved = bf16(tokens, hidden, device=device) if slope else bf16(tokens, hidden, device=device).square()
    label, flops = f"{tokens} x {dim} -> {hidden}, slope {slope:g}", 2 * tokens * dim * hidden
    up_bytes = num_bytes(x) + num_bytes(saved) * (2 if slope else 1)
    down_bytes = num_bytes(grad) + 2 * num_bytes(saved)
    yield Launch("mlp_act", label, "up", "torch.mm alone", lambda: torch.mm(x, w_up.t()), up_bytes, flops)
    yield Launch("mlp_act", label, "grad_pre", "torch.mm alone", lambda: torch.mm(grad, w_down), down_bytes, flops)
    for m, n, k, warps, stages in (
        (128, 256, 64, 8, 3), (128, 256, 64, 8, 4), (256, 128, 64, 8, 3), (256, 128, 64, 8, 4), (128, 128, 64, 8, 4),
    ):  # fmt: skip
        tile = {"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k, "num_warps": warps, "num_stages": stages}
        yield Launch(
            "mlp_act", label, "up", named(tile), partial(kernels.launch_up, x, w_up, slope, tile), up_bytes, flops
        )
        for ahead in (0, 1, 2) if stages == 3 else ():
            ahead_tile = tile | {"AHEAD": ahead}
            call = partial(kernels.launch_grad_pre, grad, w_down, saved, slope, ahead_tile)
            yield Launch("mlp_act", label, "grad_pre", named(ahead_tile), call, down_bytes, flops)


def cross_entropy_tiles(tokens: int, shapes: Shapes, device: torch.device) -> Iterator[Launch]:
    from underpar.kernels.softcapped_ce import triton as kernels

    for vocab_size, softcap in shapes.vocabularies:
        logits = 5 * bf16(tokens, vocab_size, device=device)
        targets = torch.randint(vocab_size, (tokens,), device=device)
        _, lse = kernels.launch_forward(logits, targets, softcap)
        grad = torch.full((tokens,), 1 / tokens, device=device)
        label, size = f"{tokens} x {vocab_size}, cap {softcap:g}", num_bytes(logits)
        for warps, block in product((4, 8, 16), (4096, 8192)):
            tile = {"ROWS": max(1, kernels.TILE // min(block, vocab_size)), "BLOCK": block, "num_warps": warps}
            call: Callable[[], object] = partial(kernels.launch_forward, logits, targets, softcap, tile)
            yield Launch("softcapped_ce", label, "forward", named(tile), call, size)
            call = partial(kernels.launch_backward, grad, logits, targets, lse, softcap, None, tile)
            yield Launch("softcapped_ce", label, "backward", named(tile), call, 2 * size)


def fp8_head_tiles(tokens: int, shapes: Shapes, device: torch.device) -> Iterator[Launch]:
    """What surrounds the products: the loss both ways, writing fp8, and turning it."""
    from underpar.kernels.fp8_head import ref
    from underpar.kernels.fp8_head import triton as heads
    from underpar.kernels.multi_target_ce import Cap
    from underpar.kernels.multi_target_ce import triton as kernels

    cap, unit = Cap(23.0, 5.0, 7.5), torch.ones(1, device=device)
    for vocab_size, _ in shapes.vocabularies:
        rows = (tokens if vocab_size <= 8192 else tokens // 4) // 16 * 16
        logits, targets = 5 * bf16(rows, vocab_size, device=device), torch.randint(vocab_size, (rows,), device=device)
        shared = (logits, targets, torch.tensor([1.0, 0.5, 0.25], device=device))
        _, lse = kernels.launch_forward(*shared, cap, rows)
        grad = torch.full((rows,), 1 / rows, device=device)
        label, size = f"{rows} x {vocab_size}", num_bytes(logits)
        grad8 = kernels.launch_backward(grad, *shared, lse, cap, rows, unit, ref.E5M2)
        for high, wide, warps in (
            (32, 32, 4),
            (32, 64, 4),
            (64, 32, 4),
            (64, 64, 8),
            (32, 32, 8),
            (64, 16, 4),
            (16, 64, 4),
        ):
            tile = {"ROWS": high, "COLUMNS": wide, "num_warps": warps}
            call: Callable[[], object] = partial(heads.launch_turn, grad8, tile)
            yield Launch("fp8_head", label, "turn", named(tile), call, size)
        for block, warps in ((1024, 2), (1024, 4), (2048, 4), (2048, 8), (4096, 8)):
            tile = {"BLOCK": block, "num_warps": warps}
            call = partial(kernels.launch_forward, *shared, cap, rows, tile)
            yield Launch("multi_target_ce", label, "forward", named(tile), call, size)
            call = partial(kernels.launch_backward, grad, *shared, lse, cap, rows, unit, ref.E5M2, tile)
            yield Launch("multi_target_ce", label, "backward in fp8", named(tile), call, size + size // 2)


TILES: dict[str, Callable[[int, Shapes, torch.device], Iterator[Launch]]] = {
    "exclusive_gate": exclusive_gate_tiles,
    "residual_norm": residual_norm_tiles,
    "qk_norm_rope": norm_rope_tiles,
    "mlp_act": mlp_tiles,
    "softcapped_ce": cross_entropy_tiles,
    "fp8_head": fp8_head_tiles,
}
