"""Embedding and head as one table, and their parting; updates on every second step."""

from pathlib import Path

import pytest
import torch

from support import dense, random_tokens, seeded, tiny_config
from underpar.core.errors import ConfigError
from underpar.core.world import World
from underpar.model.gpt import GPT
from underpar.nn.embeddings import UntiedHead
from underpar.nn.layers import TheseLayers
from underpar.nn.value_embedding import ValueEmbedding
from underpar.optim.muon import Muon
from underpar.optim.partition import Labelled, Optim, Optimisers
from underpar.optim.schedules import Settings
from underpar.optim.sharded_adam import ShardedAdam


def two_tables() -> GPT:
    config = tiny_config()
    config.head = UntiedHead()
    model = seeded(config)
    with torch.no_grad():
        table = 0.05 * torch.randn(model.embedding.weight.shape, generator=torch.Generator().manual_seed(3))
        model.embedding.weight.copy_(model.head.projection.weight.copy_(table))
    return model


def optim(every: int = 2) -> Optim:
    def adam(lr: float) -> ShardedAdam:
        return ShardedAdam(lr=lr, beta1=0.5, weight_decay=0.01, every=every)

    return Optim(matrix=Muon(lr=0.01), embedding=adam(0.02), head=adam(0.01), gain=adam(0.03))


def settings(step: int, parting: int = 5) -> Settings:
    return Settings(lr_scale=1 - step / 50, momentum=0.9, step=step, tied=step < parting)


def train(model: GPT, optimisers: Optimisers, steps: range) -> list[dict[str, float]]:
    used = []
    for number in steps:
        tokens = random_tokens(2, 8, seed=number)
        model(tokens, tokens.roll(-1, 1), dense(tokens)).mean().backward()
        used.append(optimisers.step(settings(number)))
    return used


def test_tied_tables_move_as_one_with_the_gradients_of_both() -> None:
    model, both = two_tables(), two_tables()
    optimisers = optim(every=1).build(model, World())
    start = both.head.projection.weight.detach().clone()
    tokens = random_tokens(2, 8, seed=0)
    both(tokens, tokens.roll(-1, 1), dense(tokens)).mean().backward()
    total = both.head.projection.weight.grad + both.embedding.weight.grad
    train(model, optimisers, range(1))
    moved = model.head.projection.weight.detach() - start
    assert torch.equal(model.embedding.weight, model.head.projection.weight)
    clear = total.abs() > 1e-9
    assert torch.equal(moved[clear].sign(), -total[clear].sign())


def test_tables_part_at_the_first_update_after_and_share_their_past() -> None:
    """Tied is asked for until step 5, updates fall on odd steps: step 5 is the last update together."""
    model = two_tables()
    optimisers = optim().build(model, World())
    equal, alike = [], []
    used = []
    for number in range(9):
        used += train(model, optimisers, range(number, number + 1))
        equal.append(torch.equal(model.embedding.weight, model.head.projection.weight))
        state = optimisers.state_tensors()
        alike.append(torch.equal(state["embedding.weight.exp_avg"], state["head.projection.weight.exp_avg"]))
    assert equal == [True] * 7 + [False] * 2  # steps 6 waits, 7 is the first update apart
    assert alike[4:8] == [False, True, True, False]  # before, the embedding had no past of its own
    assert [step["optim.tied"] for step in used if "optim.tied" in step][-3:] == [0.0, 0.0, 0.0]
    assert used[5]["optim.tied"] == 1.0
    assert "optim.embedding.lr" not in used[5]
    assert used[7]["optim.embedding.lr"] == pytest.approx(0.02 * (1 - 7 / 50))


@pytest.mark.parametrize("pause", [2, 3, 5, 6, 7])
def test_a_checkpoint_anywhere_goes_on_bit_identically(pause: int, tmp_path: Path) -> None:
    """Between two updates gradients wait, and belong to the state; so does whether the tables have parted."""
    from safetensors.torch import load_file, save_file

    model, twin = two_tables(), two_tables()
    optimisers, others = optim().build(model, World()), optim().build(twin, World())
    train(model, optimisers, range(pause))
    saved = {f"o.{k}": v.contiguous() for k, v in optimisers.state_tensors().items()}
    save_file(saved | {f"m.{k}": v.detach().clone() for k, v in model.named_parameters()}, tmp_path / "x")
    found = load_file(tmp_path / "x")
    twin.load_state_dict({k[2:]: v for k, v in found.items() if k.startswith("m.")}, strict=False)
    others.load_state_tensors({k[2:]: v for k, v in found.items() if k.startswith("o.")})
    train(model, optimisers, range(pause, 10))
    train(twin, others, range(pause, 10))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    assert not torch.equal(model.embedding.weight, model.head.projection.weight)


def test_gradients_add_up_until_their_step() -> None:
    model, twin = two_tables(), two_tables()
    optimisers = optim().build(model, World())
    before = model.skips.weight.detach().clone()
    train(model, optimisers, range(1))
    assert torch.equal(model.skips.weight, before)
    assert all(p.grad is None for name, p in model.named_parameters() if name.endswith("up.weight"))
    first = model.skips.weight.grad.clone()
    twin.load_state_dict(model.state_dict())
    tokens = random_tokens(2, 8, seed=1)
    twin(tokens, tokens.roll(-1, 1), dense(tokens)).mean().backward()
    train(model, optimisers, range(1, 2))
    mean = optimisers.state_tensors()["skips.weight.exp_avg"]
    torch.testing.assert_close(mean, 0.5 * (first + twin.skips.weight.grad))


def test_reset_ties_again_and_forgets_what_waits() -> None:
    model, fresh = two_tables(), two_tables()
    optimisers, others = optim().build(model, World()), optim().build(fresh, World())
    train(model, optimisers, range(7))
    optimisers.reset()
    model.load_state_dict(fresh.state_dict())
    train(model, optimisers, range(8))
    train(fresh, others, range(8))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True))


def test_one_embedding_and_one_head_are_needed() -> None:
    from underpar.optim.adam import Adam

    plain = Optim(matrix=Muon(lr=0.01), embedding=Adam(lr=0.02), gain=Adam(lr=0.03))
    optimisers = plain.build(seeded(tiny_config()), World())
    with pytest.raises(ConfigError, match=r"has 0 parameters labelled 'head'"):
        optimisers.step(settings(0))


def test_a_tied_embedding_needs_an_optimiser_of_its_own() -> None:
    config = tiny_config()
    config.head, config.value_embedding = UntiedHead(), ValueEmbedding(dim=8, layers=TheseLayers(layers=(1,)))
    model = seeded(config)
    with pytest.raises(ConfigError, match="shares its optimiser with 1 other parameters"):
        optim().build(model, World()).step(settings(0))
    model.value_embedding.labels["table"] = "values"
    with pytest.raises(ConfigError, match="shares its optimiser with 1 other parameters; give those one of their own"):
        optim().build(model, World()).step(settings(0))
    apart = optim()
    apart.by_label = (Labelled(label="values", optimiser=ShardedAdam()),)
    apart.build(model, World()).step(settings(0))


def test_labels_take_parameters_out_of_their_role() -> None:
    model = two_tables()
    model.blocks[0].labels["attn_scale"] = "special"
    chosen = optim()
    chosen.by_label = (Labelled(label="special", optimiser=ShardedAdam(lr=0.5)),)
    optimisers = chosen.build(model, World())
    assert set(optimisers.groups["special"].params) == {"blocks.0.attn_scale"}
    assert "blocks.0.attn_scale" not in optimisers.groups["gain"].params
    assert optimisers.step(settings(0))["optim.special.lr"] == pytest.approx(0.5)


def test_a_label_that_nothing_has_is_an_error() -> None:
    chosen = optim()
    chosen.by_label = (Labelled(label="gian", optimiser=ShardedAdam(lr=0.5)),)
    with pytest.raises(ConfigError, match=r"by_label names 'gian', but the model has no such parameter; .*gain"):
        chosen.build(two_tables(), World())


def test_a_label_named_twice_is_an_error() -> None:
    chosen = optim()
    chosen.by_label = tuple(Labelled(label="x", optimiser=ShardedAdam(lr=lr)) for lr in (0.1, 0.2))
    with pytest.raises(ConfigError, match="by_label names 'x' twice"):
        chosen.frozen()
