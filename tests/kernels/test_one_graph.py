"""Every public function of the room traces to one graph, checks and dispatch included."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from underpar.kernels import dispatch
from underpar.kernels.exclusive_gate import exclusive_gate
from underpar.kernels.mlp_act import mlp_act
from underpar.kernels.qk_norm_rope import qk_norm_rope, qkv_norm_rope
from underpar.kernels.residual_norm import residual_mix_norm, residual_norm
from underpar.kernels.softcapped_ce import cross_entropy

ANGLES = torch.linspace(0, 1, 20).view(5, 4)
FUNCTIONS: dict[str, tuple[Callable[..., object], list[tuple[int, ...]]]] = {
    "cross_entropy": (lambda x: cross_entropy(x, torch.arange(6)), [(6, 9)]),
    "exclusive_gate": (
        lambda y, v, logits: exclusive_gate(y, v, logits, factor=2.0),
        [(1, 5, 4, 8), (1, 5, 2, 8), (1, 5, 4)],
    ),
    "mlp_act": (lambda x, up, down: mlp_act(x, up, down, 0.5), [(2, 3, 8), (16, 8), (8, 16)]),
    "qk_norm_rope": (
        lambda q, k, g: qk_norm_rope(q, k, g, ANGLES.cos(), ANGLES.sin(), eps=1e-6),
        [(1, 5, 2, 8), (1, 5, 1, 8), (2,)],
    ),
    "qkv_norm_rope": (
        lambda x, g: qkv_norm_rope(x, g, ANGLES.cos(), ANGLES.sin(), num_kv_heads=1, eps=1e-6),
        [(1, 5, 32), (2,)],
    ),
    "residual_norm": (
        lambda x, y, w: residual_norm([x, y], [None, w], gain=0.5, eps=1e-6),
        [(2, 3, 8), (2, 3, 8), (8,)],
    ),
    "residual_mix_norm": (
        lambda x, y, w, mix: residual_mix_norm([x, y], [None, w], y, mix, eps=1e-6)[1:],
        [(2, 3, 8), (2, 3, 8), (8,), (2, 8)],
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_function_traces_whole(name: str) -> None:
    function, shapes = FUNCTIONS[name]
    inputs: list[Tensor] = [torch.randn(shape) for shape in shapes]
    compiled = torch.compile(function, fullgraph=True, dynamic=False, backend="eager")
    torch.testing.assert_close(compiled(*inputs), function(*inputs))


def test_questions_about_the_device_do_not_break_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def capability(index: object) -> tuple[int, int]:
        asked.append(index)
        return 9, 0

    monkeypatch.setattr(torch.cuda, "get_device_capability", capability)

    def function(x: Tensor) -> Tensor:
        return x + 1 if dispatch._capability(x.get_device() + 1) >= dispatch.HOPPER else x

    compiled = torch.compile(function, fullgraph=True, dynamic=False, backend="eager")
    assert compiled(torch.zeros(2)).tolist() == [1.0, 1.0]
    assert asked == [0]
