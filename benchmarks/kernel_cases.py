"""What benchmarks/kernels.py times: every operation at the shapes of a model, with the fewest bytes and operations it needs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from underpar.kernels import (
    exclusive_gate,
    fp8_head,
    mlp_act,
    multi_target_ce,
    qk_norm_rope,
    residual_norm,
    softcapped_ce,
)

EPS = 1.19e-7


@dataclass(frozen=True)
class Shapes:
    """The sizes of a model that its kernels see."""

    model_dim: int
    mlps: tuple[tuple[int, float], ...]
    """Hidden width and negative slope."""
    vocabularies: tuple[tuple[int, float], ...]
    """Size and soft cap."""
    rotated: tuple[int, ...]
    row_tokens: int | None
    """None: one packed row."""
    heads: int = 8
    kv_heads: int = 4
    head_dim: int = 64


MODELS = {
    "speedrun": Shapes(768, ((3072, 0.0),), ((50304, 30.0),), (64,), None, heads=6, kv_heads=6, head_dim=128),
    "late": Shapes(512, ((2048, 0.5),), ((8192, 30.0),), (16,), None),
    "baseline": Shapes(
        512, ((1024, 0.0), (2048, 0.0), (2048, 0.5)), ((1024, 30.0), (8192, 30.0), (50304, 15.0)), (64, 16), 1024
    ),
}


@dataclass(frozen=True)
class Case:
    """One operation at one shape. Bytes and operations are the fewest possible, forward and forward with backward."""

    name: str
    shape: str
    kernels: dict[str, Callable[..., object]]
    reference: Callable[..., object]
    inputs: tuple[Tensor, ...]
    output_grads: tuple[Tensor, ...]
    bytes_moved: tuple[int, int]
    flops: tuple[int, int] = (0, 0)


def num_bytes(*tensors: Tensor) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def cross_entropy_cases(tokens: int, shapes: Shapes, device: torch.device) -> Iterator[Case]:
    for vocab_size, softcap in shapes.vocabularies:
        rows = tokens if vocab_size <= 8192 else tokens // 4
        logits = (5 * torch.randn(rows, vocab_size, device=device, dtype=torch.bfloat16)).contiguous()
        targets = torch.randint(vocab_size, (rows,), device=device)
        size = num_bytes(logits)
        yield Case(
            "softcapped_ce",
            f"{rows} x {vocab_size}, cap {softcap:g}",
            {"kernel": partial(softcapped_ce.softcapped_cross_entropy, targets=targets, softcap=softcap)},
            partial(softcapped_ce.ref.softcapped_cross_entropy, targets=targets, softcap=softcap),
            (logits,),
            (torch.full((rows,), 1 / max(rows, 1), device=device),),
            (size, 3 * size),
        )


def multi_target_cases(tokens: int, shapes: Shapes, device: torch.device) -> Iterator[Case]:
    cap = multi_target_ce.Cap(23.0, 5.0, 7.5)
    for vocab_size, _ in shapes.vocabularies:
        rows = tokens if vocab_size <= 8192 else tokens // 4
        logits = (5 * torch.randn(rows, vocab_size, device=device, dtype=torch.bfloat16)).contiguous()
        targets = torch.randint(vocab_size, (rows,), device=device)
        size = num_bytes(logits)
        for count in (1, 3):
            weights = torch.tensor([1.0, 0.5, 0.25][:count], device=device)
            yield Case(
                "multi_target_ce",
                f"{rows} x {vocab_size}, {count} targets",
                {
                    "kernel": partial(
                        multi_target_ce.multi_target_cross_entropy, targets=targets, weights=weights, cap=cap
                    )
                },
                partial(
                    multi_target_ce.ref.multi_target_cross_entropy,
                    targets=targets,
                    weights=weights,
                    cap=cap,
                    row_tokens=rows,
                ),
                (logits,),
                (torch.full((rows,), 1 / max(rows, 1), device=device),),
                (size, 3 * size),
            )


def fp8_head_cases(tokens: int, shapes: Shapes, device: torch.device) -> Iterator[Case]:
    """The kernel takes fp8 where the GPU has it; the reference is the same head in bf16 behind the same loss kernel."""
    cap, dim = multi_target_ce.Cap(23.0, 5.0, 7.5), shapes.model_dim
    for vocab_size, _ in shapes.vocabularies:
        rows = (tokens if vocab_size <= 8192 else tokens // 4) // 16 * 16
        hidden = torch.randn(rows, dim, device=device).bfloat16()
        weight = (torch.randn(vocab_size, dim, device=device) / dim**0.5).bfloat16()
        targets = torch.randint(vocab_size, (rows,), device=device)
        settings = {"targets": targets, "weights": torch.tensor([1.0], device=device), "cap": cap}

        def in_bf16(x: Tensor, w: Tensor, settings: dict = settings) -> Tensor:
            return multi_target_ce.multi_target_cross_entropy(F.linear(x, w), **settings)

        logits, product = 2 * rows * vocab_size, 2 * rows * vocab_size * dim
        yield Case(
            "fp8_head",
            f"{rows} x {dim} x {vocab_size}",
            {"kernel": partial(fp8_head.fp8_head_loss, **settings)},
            in_bf16,
            (hidden, weight),
            (torch.full((rows,), 1 / max(rows, 1), device=device),),
            (2 * logits, 5 * logits),
            (product, 3 * product),
        )


def mlp_cases(tokens: int, shapes: Shapes, device: torch.device) -> Iterator[Case]:
    dim = shapes.model_dim
    for hidden, slope in shapes.mlps:
        x = torch.randn(tokens, dim, device=device).bfloat16()
        w_up = (torch.randn(hidden, dim, device=device) / dim**0.5).bfloat16()
        w_down = (torch.randn(dim, hidden, device=device) / hidden**0.5).bfloat16()
        stream, inner = num_bytes(x), 2 * tokens * hidden
        product = 2 * tokens * dim * hidden
        forward = 2 * stream + 2 * inner  # x in, out out, post written and read again
        # grad and what tells the derivative in for grad_pre; grad and post in for w_down; grad_pre and x for w_up; grad_pre
        backward = (stream + 2 * inner) + (stream + inner) + (stream + inner) + (stream + inner)
        yield Case(
            "mlp_act",
            f"{tokens} x {dim} -> {hidden}, slope {slope:g}",
            {"kernel": partial(mlp_act.mlp_act, negative_slope=slope)},
            partial(mlp_act.ref.mlp_act, negative_slope=slope),
            (x, w_up, w_down),
            (torch.randn_like(x),),
            (forward, forward + backward),
            (2 * product, 6 * product),
        )


def norm_rope_cases(tokens: int, shapes: Shapes, device: torch.device) -> Iterator[Case]:
    heads, kv_heads, dim = shapes.heads, shapes.kv_heads, shapes.head_dim
    seq = min(shapes.row_tokens or tokens, tokens)
    batch = tokens // seq
    qkv = torch.randn(batch, seq, (heads + 2 * kv_heads) * dim, device=device, dtype=torch.bfloat16)
    q, k, v = qk_norm_rope.ref.split_heads(qkv, heads, kv_heads)
    gain = 1 + torch.rand(heads, device=device)
    for rotated in shapes.rotated:
        positions = torch.arange(seq, device=device) % 1500  # documents of a packed row start again at zero
        angle = torch.outer(positions, 10_000.0 ** (-torch.arange(0, rotated, 2, device=device) / rotated))
        tables = {"cos": angle.cos(), "sin": angle.sin(), "eps": EPS}
        grads = tuple(torch.randn(x.shape, device=device, dtype=torch.bfloat16) for x in (q, k, v))
        qk, packed, angles = num_bytes(q, k), num_bytes(qkv), num_bytes(tables["cos"], tables["sin"])
        label = f"{batch} x {seq} tokens of {heads} + 2 x {kv_heads} heads of {dim}, {rotated} rotated"
        yield Case(
            "qk_norm_rope",
            label,
            {"kernel": partial(qk_norm_rope.qk_norm_rope, **tables)},
            partial(qk_norm_rope.ref.qk_norm_rope, **tables),
            (q, k, gain),
            grads[:2],
            (2 * qk + angles, 5 * qk + 2 * angles),
        )
        yield Case(
            "qkv_norm_rope",
            label,
            {"kernel": partial(qk_norm_rope.qkv_norm_rope, **tables, num_kv_heads=kv_heads)},
            partial(qk_norm_rope.ref.qkv_norm_rope, **tables, num_kv_heads=kv_heads),
            (qkv, gain),
            grads,
            (2 * packed + angles, 2 * packed + packed + qk + packed + 2 * angles),
        )


def exclusive_gate_cases(tokens: int, shapes: Shapes, device: torch.device) -> Iterator[Case]:
    heads, kv_heads, dim = shapes.heads, shapes.kv_heads, shapes.head_dim
    y, grad = (torch.randn(1, tokens, heads, dim, device=device, dtype=torch.bfloat16) for _ in range(2))
    qkv = torch.randn(1, tokens, (heads + 2 * kv_heads) * dim, device=device, dtype=torch.bfloat16)
    v = qk_norm_rope.ref.split_heads(qkv, heads, kv_heads)[2]
    logits = torch.randn(1, tokens, heads, device=device, dtype=torch.bfloat16)

    def gate_alone(y: Tensor, logits: Tensor, function: Callable[..., Tensor]) -> Tensor:
        return function(y, None, logits, factor=2.0)

    public, ref = exclusive_gate.exclusive_gate, exclusive_gate.ref.exclusive_gate
    for label, kernel, reference, inputs in (
        ("exclusive, gated", partial(public, factor=1.0), partial(ref, factor=1.0), (y, v, logits)),
        ("exclusive", public, partial(ref, logits=None, factor=1.0), (y, v)),
        ("gated", partial(gate_alone, function=public), partial(gate_alone, function=ref), (y, logits)),
    ):
        read = num_bytes(*inputs)
        forward = read + num_bytes(y)
        yield Case(
            "exclusive_gate",
            f"{tokens} x {heads} heads of {dim}, {kv_heads} of v, {label}",
            {"kernel": kernel},
            reference,
            inputs,
            (grad,),
            (forward, forward + num_bytes(grad) + 2 * read),
        )


def residual_norm_cases(tokens: int, shapes: Shapes, device: torch.device) -> Iterator[Case]:
    dim = shapes.model_dim
    x, branch, skip, x0, *grads = (torch.randn(tokens, dim, device=device, dtype=torch.bfloat16) for _ in range(7))
    scale, gate, other = (1 + 0.1 * torch.randn(dim, device=device) for _ in range(3))
    mix = torch.randn(2, dim, device=device)
    row = num_bytes(x)

    def plain(function: Callable[..., tuple], x: Tensor, branch: Tensor, scale: Tensor) -> tuple:
        return function([x, branch], [None, scale], eps=EPS)[-2:]

    def mixed(
        function: Callable[..., tuple], keep: bool, x: Tensor, b: Tensor, s: Tensor, x0: Tensor, m: Tensor
    ) -> tuple:
        return function([x, b], [None, s], x0, m, eps=EPS, keep_total=keep)[0 if keep else 1 :]

    def skipped(function: Callable[..., tuple], *tensors: Tensor) -> tuple:
        return function(list(tensors[:3]), list(tensors[3:6]), *tensors[6:], eps=EPS)[1:]

    def reference(streams, weights, x0=None, mix=None, *, eps, keep_total=False):
        return residual_norm.ref.residual_norm(streams, weights, x0, mix, gain=1.0, eps=eps)

    mix_norm = residual_norm.residual_mix_norm
    boundary = (x, branch, scale, x0, mix)
    lerped = (x, branch, skip, scale, gate, other, x0, mix)
    for label, kernel, plain_torch, inputs, streams, outputs in (
        ("residual", partial(plain, residual_norm.residual_norm), partial(plain, reference), boundary[:3], 2, 2),
        ("mixed", partial(mixed, mix_norm, False), partial(mixed, reference, False), boundary, 3, 2),
        ("mixed, total kept", partial(mixed, mix_norm, True), partial(mixed, reference, True), boundary, 3, 3),
        ("skip, mixed", partial(skipped, mix_norm), partial(skipped, reference), lerped, 4, 2),
    ):
        forward = (streams + outputs) * row
        yield Case(
            "residual_norm",
            f"{tokens} x {dim}, {label}",
            {"kernel": kernel},
            plain_torch,
            inputs,
            tuple(grads[:outputs]),
            (forward, forward + (outputs + 2 * streams) * row),
        )


CASES: dict[str, Callable[[int, Shapes, torch.device], Iterator[Case]]] = {
    "exclusive_gate": exclusive_gate_cases,
    "residual_norm": residual_norm_cases,
    "qk_norm_rope": norm_rope_cases,
    "mlp_act": mlp_cases,
    "softcapped_ce": cross_entropy_cases,
    "multi_target_ce": multi_target_cases,
    "fp8_head": fp8_head_cases,
}
