"""Which parameters each optimiser gets, their state, and what they report."""

import pytest
import torch

from support import busy, dense, random_tokens, seeded, tiny_config
from underpar.core.config import field_types
from underpar.core.errors import ConfigError
from underpar.core.roles import Role
from underpar.core.world import World
from underpar.nn.embeddings import UntiedHead
from underpar.nn.module import parameter_roles
from underpar.optim.adam import Adam
from underpar.optim.group import OptimiserConfig
from underpar.optim.muon import Muon
from underpar.optim.muoneqr import MuonEqR
from underpar.optim.normuon import NorMuon
from underpar.optim.partition import Optim
from underpar.optim.schedules import Settings
from underpar.train.events import EffectTrace

MATRIX = [Muon(lr=0.04), NorMuon(lr=0.02), MuonEqR(lr=0.02, weight_decay=0.1, buffer_dtype="bfloat16")]


def make_optim(matrix: OptimiserConfig | None = None) -> Optim:
    return Optim(matrix=matrix or Muon(lr=0.04), embedding=Adam(lr=0.05), gain=Adam(lr=0.03))


def steps(model, optimisers, count: int, seed: int = 0) -> None:
    for step in range(count):
        tokens = random_tokens(2, 8, seed=seed + step)
        model(tokens, tokens.roll(-1, 1), dense(tokens)).mean().backward()
        optimisers.step(Settings(lr_scale=0.5, momentum=0.9))
        model.zero_grad(set_to_none=True)


@pytest.mark.parametrize("matrix", MATRIX, ids=str)
def test_state_taken_and_put_back_goes_on_bit_identically(matrix: OptimiserConfig) -> None:
    model, twin = busy(tiny_config()), busy(tiny_config())
    optimisers, others = (make_optim(matrix).build(m, World()) for m in (model, twin))
    empty = [name for name in optimisers.state_tensors() if not name.endswith((".momentum", ".second_moment"))]
    assert not empty  # Adam has nothing before its first step
    steps(model, optimisers, 3)
    twin.load_state_dict(model.state_dict())
    others.load_state_tensors({k: v.clone() for k, v in optimisers.state_tensors().items()})
    steps(model, optimisers, 2, seed=10)
    steps(twin, others, 2, seed=10)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    mine, other = optimisers.state_tensors(), others.state_tensors()
    assert mine.keys() == other.keys()
    assert all(torch.equal(mine[k], other[k]) for k in mine)


@pytest.mark.parametrize("matrix", MATRIX, ids=str)
def test_reset_is_as_if_no_step_had_been_taken(matrix: OptimiserConfig) -> None:
    model, fresh = busy(tiny_config()), busy(tiny_config())
    optimisers, others = (make_optim(matrix).build(m, World()) for m in (model, fresh))
    steps(model, optimisers, 3)
    optimisers.reset()
    model.load_state_dict(fresh.state_dict())
    steps(model, optimisers, 2, seed=5)
    steps(fresh, others, 2, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True))


# ------------------------------------------------------------------------------------------------- partition


def test_every_parameter_gets_the_optimiser_of_its_role() -> None:
    optimisers = make_optim().build(seeded(tiny_config()), World())
    names = {role: set(group.params) for role, group in optimisers.groups.items()}
    assert names["embedding"] == {"embedding.weight"}
    assert "blocks.1.mlp.up.weight" in names["matrix"]
    assert names["gain"] >= {
        "skips.weight",
        "blocks.0.attn_scale",
        "blocks.0.attention.q_gain",
        "blocks.0.residual.mix",
    }
    assert sum(map(len, names.values())) == len(list(seeded(tiny_config()).parameters()))


def test_a_role_without_optimiser_is_an_error() -> None:
    config = tiny_config()
    config.head = UntiedHead()
    with pytest.raises(ConfigError, match=r"optim\.head is None, but the model has 1 parameters of that role"):
        make_optim().build(seeded(config), World())


def test_an_optimiser_without_role_is_an_error() -> None:
    optim = make_optim()
    optim.gate = Adam(lr=0.1)
    with pytest.raises(
        ConfigError, match=r"optim\.gate = Adam\(lr=0\.1\), but the model has no parameter of that role"
    ):
        optim.build(seeded(tiny_config()), World())


def test_muon_on_a_vector_is_refused() -> None:
    optim = make_optim()
    optim.gain = Muon()
    with pytest.raises(ConfigError, match=r"Muon needs 2-D parameters; \S+ has shape"):
        optim.build(seeded(tiny_config()), World())


def test_what_was_consumed_enters_the_effect_trace() -> None:
    model = busy(tiny_config())
    optimisers = make_optim().build(model, World())
    trace = EffectTrace()
    for step, settings in enumerate([Settings(1.0, 0.85), Settings(1.0, 0.9), Settings(0.5, 0.9)], start=1):
        tokens = random_tokens(1, 8)
        model(tokens, tokens, dense(tokens)).mean().backward()
        trace.record(step, optimisers.step(settings))
    assert trace.changes == {
        "optim.matrix.lr": [[1, 0.04], [3, 0.02]],
        "optim.matrix.momentum": [[1, 0.85], [2, 0.9]],
        "optim.embedding.lr": [[1, 0.05], [3, 0.025]],
        "optim.gain.lr": [[1, 0.03], [3, 0.015]],
    }
    assert trace.values_at("optim.matrix.lr", 2) == 0.04
    assert trace.values_at("optim.matrix.lr", 3) == 0.02
    with pytest.raises(KeyError):
        trace.values_at("optim.head.lr", 1)


def test_weight_decay_is_consumed_scaled_and_only_where_there_is_one() -> None:
    optim = make_optim(Muon(lr=0.04, weight_decay=0.1))
    optim.embedding = Adam(lr=0.05, weight_decay=0.08)
    used = optim.build(busy(tiny_config()), World()).step(Settings(lr_scale=0.5, momentum=0.9, decay_scale=0.75))
    assert {name: value for name, value in used.items() if name.endswith("decay")} == pytest.approx(
        {"optim.matrix.weight_decay": 0.075, "optim.embedding.weight_decay": 0.06}
    )


def test_a_taper_reaches_the_muon_family_alone() -> None:
    """What golf PR #1729 tapers; Adam of the same matrices keeps its decay."""
    settings = Settings(lr_scale=0.5, momentum=0.9, decay_scale=0.5, matrix_decay_scale=0.75)
    for matrix, scale in ((Muon(lr=0.04, weight_decay=0.1), 0.375), (Adam(lr=0.04, weight_decay=0.1), 0.5)):
        optim = make_optim(matrix)
        optim.embedding = Adam(lr=0.05, weight_decay=0.08)
        used = optim.build(busy(tiny_config()), World()).step(settings)
        decays = used["optim.matrix.weight_decay"], used["optim.embedding.weight_decay"]
        assert decays == pytest.approx((0.1 * scale, 0.04))


def test_decay_reaches_every_parameter_of_its_role_alone() -> None:
    optim = make_optim(MuonEqR(lr=0.04, weight_decay=0.5))
    optim.gain = Adam(lr=0.02, weight_decay=0.25)
    model = busy(tiny_config())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optim.build(model, World()).step(Settings(lr_scale=0.5, momentum=0.9))  # no gradient at all
    roles = parameter_roles(model)
    shrunk = {Role.MATRIX: 1 - 0.02 * 0.5, Role.GAIN: 1 - 0.01 * 0.25, Role.EMBEDDING: 1.0}
    for name, param in model.named_parameters():
        torch.testing.assert_close(param.detach(), before[name] * shrunk[roles[name]], rtol=1e-6, atol=0)


def test_a_frozen_parameter_stays_as_it_is() -> None:
    model = busy(tiny_config())
    frozen = model.blocks[0].mlp.up.weight.requires_grad_(False)
    before = frozen.detach().clone()
    optimisers = make_optim(Muon(lr=0.04, weight_decay=0.5)).build(model, World())
    steps(model, optimisers, 2)
    assert torch.equal(frozen, before)
    assert not any(name.startswith("blocks.0.mlp.up") for name in optimisers.state_tensors())


def test_every_role_is_a_field() -> None:
    assert {role.value for role in Role} == field_types(Optim).keys() - {"clip", "by_label"}
