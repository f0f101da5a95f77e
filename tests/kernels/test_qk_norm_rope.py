"""QK norm, RoPE and query gain: the reference against its formula, the kernel against float64."""

import math

import pytest
import torch
from torch import Tensor

from underpar.core.errors import ConfigError
from underpar.kernels.qk_norm_rope import op, qk_norm_rope, qkv_norm_rope, ref

EPS = 1.19e-7
SLACK = {torch.float32: 6.0, torch.bfloat16: 1.1, torch.float16: 1.1}
"""By dtype of the output. Observed up to 4.1 in fp32 (gradient of the gain: a sum of both signs, in another order; all
else up to 1.1) and 1.00 in 16 bits."""

# (batch, time, heads, kv heads, head_dim, rotated dims[, angles a token]), each with its reason.
SHAPES = [
    pytest.param((2, 8, 8, 4, 64, 64), id="baseline-heads"),
    pytest.param((1, 5, 8, 4, 64, 16), id="partial-rotation-and-a-tile-cut-short"),
    pytest.param((3, 7, 6, 1, 16, 16), id="padded-heads-tiles-cross-rows"),
    pytest.param((1, 3, 2, 2, 128, 126), id="rotation-leaves-two-dims"),
    pytest.param((2, 4, 1, 1, 32, 0), id="no-rotation"),
    pytest.param((0, 4, 8, 4, 64, 64), id="no-rows"),
    pytest.param((2, 5, 6, 6, 32, 16, 2), id="paired-heads"),
    pytest.param((1, 5, 12, 4, 16, 16, 4), id="four-angles"),
]


def angles(time: int, rotated: int, device: torch.device) -> tuple[Tensor, Tensor]:
    frequency = 10_000.0 ** (-torch.arange(0, rotated, 2, dtype=torch.float64) / max(rotated, 1))
    angle = torch.arange(time, dtype=torch.float64)[:, None] * frequency
    return angle.cos().float().to(device), angle.sin().float().to(device)


def make(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, time, heads, kv_heads, dim, rotated, *several = shape
    generator = torch.Generator().manual_seed(sum(shape))
    qkv = torch.randn(batch, time, (heads + 2 * kv_heads) * dim, generator=generator).to(dtype).to(device)
    gain = (1 + torch.rand(heads, generator=generator)).to(device)
    if several:  # an angle for every slot of the stream in which heads take turns
        tables = (table.view(time, several[0], rotated // 2) for table in angles(time * several[0], rotated, device))
        return qkv, gain, *tables
    return qkv, gain, *angles(time, rotated, device)


def output_gradients(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    batch, time, heads, kv_heads, dim = shape[:5]
    generator = torch.Generator().manual_seed(1 + sum(shape))
    # (B, H, T, D) in memory, as attention returns them.
    return [
        torch.randn(batch, h, time, dim, generator=generator).to(dtype).to(device).transpose(1, 2)
        for h in (heads, kv_heads, kv_heads)
    ]


def results(function, qkv: Tensor, gain: Tensor, cos: Tensor, sin: Tensor, kv_heads: int, grads: list[Tensor]):
    """Outputs q', k', v and the gradients of qkv and gain."""
    qkv, gain = qkv.detach().clone().requires_grad_(), gain.detach().clone().requires_grad_()
    outputs = function(qkv, gain, cos, sin, kv_heads)
    return *outputs, *torch.autograd.grad(
        outputs, (qkv, gain), [g.to(o.dtype) for g, o in zip(grads, outputs, strict=True)]
    )


def reference(qkv: Tensor, gain: Tensor, cos: Tensor, sin: Tensor, kv_heads: int):
    return ref.qkv_norm_rope(qkv, gain, cos, sin, num_kv_heads=kv_heads, eps=EPS)


def packed_kernel(qkv: Tensor, gain: Tensor, cos: Tensor, sin: Tensor, kv_heads: int):
    return op.qkv_norm_rope(qkv, gain, cos, sin, kv_heads, EPS)


def views_kernel(qkv: Tensor, gain: Tensor, cos: Tensor, sin: Tensor, kv_heads: int):
    q, k, v = ref.split_heads(qkv, gain.shape[0], kv_heads)
    return *op.qk_norm_rope(q, k, gain, cos, sin, EPS), v


def test_reference_is_the_written_formula() -> None:
    qkv, gain, cos, sin = make((1, 6, 2, 1, 8, 4), torch.float64, torch.device("cpu"))
    q, k, v = ref.split_heads(qkv, 2, 1)
    out_q, out_k, out_v = qkv_norm_rope(qkv, gain.double(), cos, sin, num_kv_heads=1, eps=EPS)
    for x, out, scale in ((q, out_q, gain.double()), (k, out_k, torch.ones(1, dtype=torch.float64))):
        position, head = 5, x.shape[2] - 1
        vector = x[0, position, head].tolist()
        rms = math.sqrt(sum(value * value for value in vector) / 8 + EPS)
        a, b, c, d, *rest = [value / rms * scale[head].item() for value in vector]
        cos0, cos1, sin0, sin1 = *cos[position].tolist(), *sin[position].tolist()
        expected = [a * cos0 + c * sin0, b * cos1 + d * sin1, c * cos0 - a * sin0, d * cos1 - b * sin1, *rest]
        torch.testing.assert_close(out[0, position, head], torch.tensor(expected, dtype=torch.float64))
    assert torch.equal(out_v, v)


def test_heads_take_the_angles_of_a_token_in_turn() -> None:
    qkv, gain, cos, sin = make((2, 5, 6, 4, 8, 8, 2), torch.float64, torch.device("cpu"))
    q, k, _ = ref.split_heads(qkv, 6, 4)
    together = qk_norm_rope(q, k, gain.double(), cos, sin, eps=EPS)
    for turn in (0, 1):
        own = slice(turn, None, 2)
        apart = qk_norm_rope(q[:, :, own], k[:, :, own], gain.double()[own], cos[:, turn], sin[:, turn], eps=EPS)
        for some, alone in zip(together, apart, strict=True):
            assert torch.equal(some[:, :, own], alone)


def test_scores_depend_on_distance_alone() -> None:
    cos, sin = angles(40, 32, torch.device("cpu"))
    q, k = torch.randn(2, 32, dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    rows_q, rows_k = (x.expand(1, 40, 1, 32) for x in (q, k))
    out_q, out_k = qk_norm_rope(rows_q, rows_k, one, cos.double(), sin.double(), eps=EPS)
    scores = (out_q[0, :, 0] @ out_k[0, :, 0].T).numpy()
    for distance in (0, 3, 17):
        diagonal = torch.tensor(scores.diagonal(-distance).copy())
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5, rtol=1e-5)


def test_reference_gradients_match_finite_differences() -> None:
    qkv, gain, cos, sin = make((1, 3, 2, 1, 4, 4), torch.float64, torch.device("cpu"))
    qkv.requires_grad_()
    gain = gain.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, g: qkv_norm_rope(x, g, cos, sin, num_kv_heads=1, eps=EPS), (qkv, gain))


def test_misfits_are_one_line_errors() -> None:
    qkv, gain, cos, sin = make((1, 4, 2, 1, 8, 8), torch.float32, torch.device("cpu"))
    q, k, _ = ref.split_heads(qkv, 2, 1)
    for call, message in [
        (lambda: qkv_norm_rope(qkv[..., 1:], gain, cos, sin, num_kv_heads=1, eps=EPS), r"\(1, 4, 31\).*multiple of 4"),
        (lambda: qk_norm_rope(q, k[:, :3], gain, cos, sin, eps=EPS), r"k \(1, 3, 1, 8\)"),
        (lambda: qk_norm_rope(q, k.double(), gain, cos, sin, eps=EPS), "k is torch.float64"),
        (lambda: qk_norm_rope(q, k, gain[:1], cos, sin, eps=EPS), r"gain \(1,\)"),
        (lambda: qk_norm_rope(q, k, gain, cos[:3], sin[:3], eps=EPS), r"cos \(3, 4\)"),
        (lambda: qk_norm_rope(q, k, gain, *(t.view(4, 2, 2) for t in (cos, sin)), eps=EPS), "A a divisor of both"),
        (lambda: qk_norm_rope(q, k, gain, cos, sin, eps=0.0), "eps is 0.0"),
    ]:
        with pytest.raises(ConfigError, match=message) as failure:
            call()
        assert "\n" not in str(failure.value)


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", [packed_kernel, views_kernel], ids=["packed", "views"])
@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_parity(kernel, shape, dtype, kernel_device, assert_no_worse) -> None:
    qkv, gain, cos, sin = make(shape, dtype, kernel_device)
    grads = output_gradients(shape, dtype, kernel_device)
    ours = results(kernel, qkv, gain, cos, sin, shape[3], grads)
    plain = results(reference, qkv, gain, cos, sin, shape[3], grads)
    exact = results(reference, qkv.double(), gain.double(), cos.double(), sin.double(), shape[3], grads)
    assert all(out.is_contiguous() for out in ours[:2])
    for out, plain_out, exact_out in zip(ours, plain, exact, strict=True):
        assert_no_worse(out, plain_out, exact_out, SLACK[out.dtype])


@pytest.mark.gpu
def test_a_head_of_zeros_stays_zero(kernel_device) -> None:
    shape = (1, 4, 2, 1, 16, 16)
    qkv, gain, cos, sin = make(shape, torch.float32, kernel_device)
    grads = output_gradients(shape, torch.float32, kernel_device)
    outputs = results(packed_kernel, torch.zeros_like(qkv), gain, cos, sin, 1, grads)
    assert all(out.isfinite().all() for out in outputs)
    assert not outputs[0].any()


@pytest.mark.gpu
def test_positions_of_a_packed_row_may_start_again(kernel_device) -> None:
    shape = (1, 11, 4, 2, 16, 8)
    qkv, gain, *_ = make(shape, torch.float32, kernel_device)
    positions = torch.tensor([0, 1, 2, 0, 1, 2, 3, 4, 5, 6, 0])
    cos, sin = (table[positions] for table in angles(11, 8, torch.device("cpu")))
    whole = packed_kernel(qkv, gain, cos.to(kernel_device), sin.to(kernel_device), 2)
    for start, end in ((0, 3), (3, 10), (10, 11)):
        alone = packed_kernel(qkv[:, start:end], gain, *angles(end - start, 8, kernel_device), 2)
        for packed, document in zip(whole, alone, strict=True):
            torch.testing.assert_close(packed[:, start:end], document)


@pytest.mark.gpu
def test_operators_are_well_formed(kernel_device) -> None:
    shape = (2, 3, 4, 2, 16, 8)
    qkv, gain, cos, sin = make(shape, torch.float32, kernel_device)
    grads = output_gradients(shape, torch.float32, kernel_device)
    q, k = (x.contiguous() for x in ref.split_heads(qkv, 4, 2)[:2])
    torch.library.opcheck(op.qkv_norm_rope_backward, (*grads, qkv, gain, cos, sin, 2, EPS))
    torch.library.opcheck(op.qk_norm_rope_backward, (*grads[:2], q, k, gain, cos, sin, EPS))
    for x in (qkv, q, k, gain):
        x.requires_grad_()
    torch.library.opcheck(op.qkv_norm_rope, (qkv, gain, cos, sin, 2, EPS))
    torch.library.opcheck(op.qk_norm_rope, (q, k, gain, cos, sin, EPS))


@pytest.mark.gpu
def test_real_shape_compiles_to_one_graph(cuda, assert_no_worse) -> None:
    shape = (64, 1024, 8, 4, 64, 64)
    qkv, gain, cos, sin = make(shape, torch.bfloat16, cuda)
    grads = output_gradients(shape, torch.bfloat16, cuda)

    def public(qkv: Tensor, gain: Tensor, cos: Tensor, sin: Tensor, kv_heads: int):
        return qkv_norm_rope(qkv, gain, cos, sin, num_kv_heads=kv_heads, eps=EPS)

    ours = results(torch.compile(public, fullgraph=True, dynamic=False), qkv, gain, cos, sin, 4, grads)
    plain = results(reference, qkv, gain, cos, sin, 4, grads)
    exact = results(reference, qkv.double(), gain.double(), cos.double(), sin.double(), 4, grads)
    for out, plain_out, exact_out in zip(ours, plain, exact, strict=True):
        assert_no_worse(out, plain_out, exact_out, SLACK[out.dtype])
