"""Residual sum, mixture and norm: the reference against its formula, the kernel against float64."""

import math

import pytest
import torch
from torch import Tensor

from underpar.core.errors import ConfigError
from underpar.kernels.residual_norm import op, ref, residual_mix_norm, residual_norm

EPS = 1.19e-7
GAIN = 0.5
SLACK = {torch.float32: 3.0, torch.bfloat16: 1.1, torch.float16: 1.1}
"""By dtype of the output; the gradients of the weights are fp32 sums over rows in another order."""

# (streams, of which weighted, mixture, total kept): what a model uses, and the extremes.
FORMS = {
    "after-attention": (2, 1, False, False),
    "between-blocks": (2, 1, True, False),
    "between-blocks-total-kept": (2, 1, True, True),
    "skip": (3, 3, True, True),
    "lanes": (4, 4, False, False),
    "first-block": (1, 0, True, False),
    "norm-alone": (1, 0, False, False),
}
# (rows, dim), each with its reason.
SHAPES = [
    pytest.param((11, 512), id="model-dim-rows-fill-no-tile"),
    pytest.param((5, 24), id="padded-dim"),
    pytest.param((0, 64), id="no-rows"),
]


def make(form: str, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """Streams, weights and, with a mixture, x0 and mix, in one list."""
    num_streams, num_weights, has_mix, _ = FORMS[form]
    rows, dim = shape
    generator = torch.Generator().manual_seed(rows + dim + num_streams)
    streams = [torch.randn(rows, dim, generator=generator).to(dtype) for _ in range(num_streams + has_mix)]
    weights = [1 + 0.3 * torch.randn(dim, generator=generator) for _ in range(num_weights)]
    mix = [torch.tensor([[1.0], [0.5]]) + 0.3 * torch.randn(2, dim, generator=generator)] if has_mix else []
    everything = [*streams[:num_streams], *weights, *streams[num_streams:], *mix]
    return [x.to(device) for x in everything]


def parts(form: str, tensors: list[Tensor]) -> tuple[list[Tensor], list[Tensor], Tensor | None, Tensor | None]:
    num_streams, num_weights, has_mix, _ = FORMS[form]
    streams, weights = tensors[:num_streams], tensors[num_streams : num_streams + num_weights]
    return streams, weights, tensors[-2] if has_mix else None, tensors[-1] if has_mix else None


def kernel(form: str, tensors: list[Tensor]) -> tuple[Tensor, ...]:
    return op.residual_norm(*parts(form, tensors), GAIN, EPS, FORMS[form][3])


def reference(form: str, tensors: list[Tensor]) -> tuple[Tensor, ...]:
    streams, weights, x0, mix = parts(form, tensors)
    return ref.residual_norm(streams, [None] * (len(streams) - len(weights)) + weights, x0, mix, gain=GAIN, eps=EPS)


def public(form: str, tensors: list[Tensor]) -> tuple[Tensor | None, ...]:
    streams, weights, x0, mix = parts(form, tensors)
    every = [None] * (len(streams) - len(weights)) + weights
    if x0 is None or mix is None:
        return None, *residual_norm(streams, every, gain=GAIN, eps=EPS)
    return residual_mix_norm(streams, every, x0, mix, gain=GAIN, eps=EPS, keep_total=FORMS[form][3])


def results(function, form: str, tensors: list[Tensor]) -> list[Tensor]:
    """Those results that the form asks for, and the gradients of every input."""
    leaves = [x.detach().clone().requires_grad_() for x in tensors]
    outputs = [out for out in function(form, leaves)[0 if FORMS[form][3] else 1 :] if out is not None]
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(out.shape, generator=generator).to(out) for out in outputs]
    return [*outputs, *torch.autograd.grad(outputs, leaves, grads)]


def test_reference_is_the_written_formula() -> None:
    x, branch, scale, x0, mix = make("between-blocks", (3, 4), torch.float64, torch.device("cpu"))
    total, mixed, normed = residual_mix_norm([x, branch], [None, scale], x0, mix, gain=0.5, eps=1e-3, keep_total=True)
    row = 1
    expected_total = [a + s * b for a, b, s in zip(x[row].tolist(), branch[row].tolist(), scale.tolist(), strict=True)]
    expected = [m0 * t + m1 * e for t, e, m0, m1 in zip(expected_total, x0[row].tolist(), *mix.tolist(), strict=True)]
    rms = math.sqrt(sum(value * value for value in expected) / 4 + 1e-3)
    for out, values in ((total, expected_total), (mixed, expected), (normed, [0.5 * v / rms for v in expected])):
        torch.testing.assert_close(out[row], torch.tensor(values, dtype=torch.float64), rtol=1e-6, atol=1e-7)


def test_without_weights_or_mixture_it_is_the_norm() -> None:
    (x,) = make("norm-alone", (2, 8), torch.float64, torch.device("cpu"))
    total, normed = residual_norm([x.view(1, 2, 8)], [None], eps=EPS)
    assert torch.equal(total[0], x)
    torch.testing.assert_close(normed[0].square().mean(-1), torch.ones(2, dtype=torch.float64), rtol=1e-6, atol=0)


@pytest.mark.parametrize("form", ["after-attention", "skip"])
def test_reference_gradients_match_finite_differences(form) -> None:
    leaves = [x.double().requires_grad_() for x in make(form, (2, 3), torch.float64, torch.device("cpu"))]
    assert torch.autograd.gradcheck(lambda *tensors: public(form, list(tensors))[1:], leaves)


def test_misfits_are_one_line_errors() -> None:
    x, branch, scale, x0, mix = make("between-blocks", (3, 4), torch.float32, torch.device("cpu"))
    for call, message in [
        (lambda: residual_norm([], [], eps=EPS), "0 streams"),
        (lambda: residual_norm([x] * 5, [None] * 5, eps=EPS), "5 streams and 5 weights; need 1 to 4"),
        (lambda: residual_norm([x, branch], [scale], eps=EPS), "2 streams and 1 weights"),
        (lambda: residual_norm([x, branch[:2]], [None, scale], eps=EPS), r"a stream is \(2, 4\)"),
        (lambda: residual_norm([x, branch.double()], [None, scale], eps=EPS), "torch.float64"),
        (lambda: residual_norm([x, branch], [None, scale[:3]], eps=EPS), r"a weight is \(3,\)"),
        (lambda: residual_mix_norm([x], [None], x0, mix[:1], eps=EPS), r"mix is \(1, 4\)"),
        (lambda: residual_mix_norm([x], [None], x0[:2], mix, eps=EPS), r"a stream is \(2, 4\)"),
        (lambda: residual_norm([x], [None], eps=0.0), "eps is 0.0"),
        (lambda: residual_norm([x], [None], gain=math.nan, eps=EPS), "gain is nan"),
    ]:
        with pytest.raises(ConfigError, match=message) as failure:
            call()
        assert "\n" not in str(failure.value)


@pytest.mark.gpu
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_parity(form, shape, dtype, kernel_device, assert_no_worse) -> None:
    tensors = make(form, shape, dtype, kernel_device)
    ours = results(kernel, form, tensors)
    plain = results(reference, form, tensors)
    exact = results(reference, form, [x.double() for x in tensors])
    for out, plain_out, exact_out in zip(ours, plain, exact, strict=True):
        assert_no_worse(out, plain_out, exact_out, SLACK[out.dtype])


@pytest.mark.gpu
def test_unused_results_cost_no_gradient(kernel_device) -> None:
    tensors = make("between-blocks-total-kept", (5, 32), torch.float32, kernel_device)
    for used in range(3):
        leaves, others = ([x.clone().requires_grad_() for x in tensors] for _ in range(2))
        ours = torch.autograd.grad(
            kernel("between-blocks-total-kept", leaves)[used].square().sum(), leaves, allow_unused=True
        )
        expected = torch.autograd.grad(
            reference("between-blocks-total-kept", others)[used].square().sum(), others, materialize_grads=True
        )
        for grad, expected_grad in zip(ours, expected, strict=True):
            torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
def test_a_row_of_zeros_stays_zero(kernel_device) -> None:
    out = results(kernel, "norm-alone", [torch.zeros(3, 64, device=kernel_device)])
    assert all(x.isfinite().all() for x in out)
    assert not out[1].any()


@pytest.mark.gpu
@pytest.mark.parametrize("form", ["after-attention", "between-blocks-total-kept", "first-block"])
def test_operators_are_well_formed(form, kernel_device) -> None:
    tensors = make(form, (6, 16), torch.float32, kernel_device)
    streams, weights, x0, mix = parts(form, tensors)
    grad = torch.randn_like(streams[0])
    torch.library.opcheck(op.residual_norm_backward, (None, grad, grad, streams, weights, x0, mix, GAIN, EPS))
    leaves = [x.detach().clone().requires_grad_() for x in tensors]
    torch.library.opcheck(op.residual_norm, (*parts(form, leaves), GAIN, EPS, FORMS[form][3]))


@pytest.mark.gpu
@pytest.mark.parametrize("form", FORMS)
def test_real_shape_compiles_to_one_graph(form, cuda, assert_no_worse) -> None:
    tensors = make(form, (65_537, 512), torch.bfloat16, cuda)
    ours = results(torch.compile(public, fullgraph=True, dynamic=False), form, tensors)
    plain = results(reference, form, tensors)
    exact = results(reference, form, [x.double() for x in tensors])
    for out, plain_out, exact_out in zip(ours, plain, exact, strict=True):
        # Sums of 65,537 products of either sign, in fp32: the order alone moves them by some units of the last place.
        assert_no_worse(out, plain_out, exact_out, SLACK[out.dtype], 2e-6 if out.dtype == torch.float32 else None)
