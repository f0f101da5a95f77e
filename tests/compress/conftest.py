"""Weights with the shapes and the statistics of real ones."""

import pytest
import torch

from underpar.core.roles import Role

BLOCK = {
    "q": (512, 512),
    "k": (256, 512),
    "v": (256, 512),
    "out": (512, 512),
    "up": (1024, 512),
    "down": (512, 1024),
    "attn_scale": (512,),
    "mlp_scale": (512,),
    "resid_mix": (2, 512),
    "q_gain": (8,),
}
GAINS = ("attn_scale", "mlp_scale", "resid_mix", "q_gain")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small tensors and shared cores: torch's threads would cost more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def baseline_shapes() -> dict[str, tuple[tuple[int, ...], Role]]:
    """The published 17,059,912-parameter baseline: name -> (shape, role)."""
    shapes: dict[str, tuple[tuple[int, ...], Role]] = {"tok_emb": ((1024, 512), Role.EMBEDDING)}
    for layer in range(9):
        for name, shape in BLOCK.items():
            shapes[f"blocks.{layer}.{name}"] = (shape, Role.GAIN if name in GAINS else Role.MATRIX)
    return shapes | {"skip_weights": ((4, 512), Role.GAIN)}


@pytest.fixture(scope="session")
def baseline_tensors(baseline_shapes):
    """Gaussian tensors of the baseline's shapes; the embedding in bfloat16, the rest in float32."""
    generator = torch.Generator().manual_seed(1)
    drawn = {name: (torch.randn(shape, generator=generator), role) for name, (shape, role) in baseline_shapes.items()}
    table, role = drawn["tok_emb"]
    return drawn | {"tok_emb": (table.bfloat16(), role)}


@pytest.fixture(scope="session")
def trained_like():
    """A small model with the statistics measured on one trained with Muon: Gaussian but for uneven rows and columns."""
    generator = torch.Generator().manual_seed(2)

    def matrix(rows: int, cols: int, row_spread: float, col_spread: float) -> torch.Tensor:
        row, col = (
            torch.randn(n, 1, generator=generator).mul(s).exp() for n, s in ((rows, row_spread), (cols, col_spread))
        )
        return 0.2 * row * torch.randn(rows, cols, generator=generator) * col.T

    tensors = {"tok_emb": (matrix(512, 192, 0.45, 0.2).bfloat16(), Role.EMBEDDING)}
    for layer in range(2):
        tensors[f"blocks.{layer}.qkv"] = (matrix(384, 192, 0.1, 0.1), Role.MATRIX)
        tensors[f"blocks.{layer}.up"] = (matrix(512, 192, 0.55, 0.1), Role.MATRIX)
        tensors[f"blocks.{layer}.down"] = (matrix(192, 512, 0.1, 0.55), Role.MATRIX)
        tensors[f"blocks.{layer}.scale"] = (1 + 0.1 * torch.randn(192, generator=generator), Role.GAIN)
        tensors[f"blocks.{layer}.gate"] = (torch.randn(8, 12, generator=generator), Role.GATE)
    return tensors
