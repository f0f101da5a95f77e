"""Where the kernels can run here, and what counts as right.

A test marked `gpu` launches kernels. It takes the fixture `kernel_device`: a CUDA device, or the CPU when Triton's
interpreter is on, which test_interpreter.py switches on in a process of its own (Triton decides when it is imported).
"""

import os
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture
def kernel_device() -> torch.device:
    if INTERPRETED:
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    pytest.skip("launching a kernel needs a CUDA device; small cases run under the interpreter in test_interpreter.py")


@pytest.fixture
def cuda() -> torch.device:
    """A real GPU: for real shapes, and for what the interpreter gets wrong (products of bf16, compiled graphs)."""
    if INTERPRETED or not torch.cuda.is_available():
        pytest.skip("needs a CUDA device: too large for the interpreter, or outside what it computes")
    return torch.device("cuda")


@pytest.fixture(params=["fp32", "narrow"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """fp32, and the 16-bit type of training: bf16 on a GPU, fp16 in the interpreter.

    The interpreter cuts bf16 off instead of rounding it, and multiplies matrices of bf16 as if they were integers.
    """
    if request.param == "fp32":
        return torch.float32
    return torch.float16 if INTERPRETED else torch.bfloat16


def relative_error(out: Tensor, exact: Tensor) -> float:
    """||out - exact|| / ||exact|| in float64; 0 when both are empty or zero, NaN never passes a comparison."""
    difference = torch.linalg.vector_norm(out.detach().double().cpu() - exact.detach().double().cpu())
    size = torch.linalg.vector_norm(exact.detach().double().cpu())
    return (difference / size).item() if size > 0 else difference.item()


@pytest.fixture
def assert_no_worse() -> Callable[..., None]:
    """Asserts that the kernel's error against float64 is at most `slack` times that of plain torch at the same dtype.

    An error below `floor` passes as well; it defaults to a small part of the last place, since plain torch may be exact
    by luck on a handful of numbers.
    """

    def check(kernel: Tensor, plain: Tensor, exact: Tensor, slack: float, floor: float | None = None) -> None:
        assert kernel.shape == exact.shape
        assert kernel.dtype == plain.dtype
        kernel_error, plain_error = relative_error(kernel, exact), relative_error(plain, exact)
        print(
            f"kernel {kernel_error:.3e}, plain torch {plain_error:.3e}, ratio {kernel_error / (plain_error or 1):.2f}"
        )
        floor = torch.finfo(kernel.dtype).eps / 16 if floor is None else floor
        assert kernel_error <= max(slack * plain_error, floor)

    return check
