"""The one exam that every component takes. Components are listed in components.py."""

import json
from pathlib import Path

import pytest
import torch
from components import COMPONENTS, Component, example
from torch.utils.flop_counter import FlopCounterMode

from support import BOS, busy, seeded
from underpar.compress.codecs import Zlib
from underpar.compress.quantise import RoundToNearest, dequantise, quantise
from underpar.compress.writer import write_artifact
from underpar.core.config import fingerprint, from_dict, to_dict
from underpar.core.phase import Phase
from underpar.core.roles import Role
from underpar.core.world import World
from underpar.evaluate.load import load_model
from underpar.evaluate.windows import Flat
from underpar.model.cost import model_cost
from underpar.model.gpt import GPT, Block, GPTConfig
from underpar.model.plan import Run
from underpar.nn.module import parameter_roles
from underpar.optim.adam import Adam
from underpar.optim.partition import Optim


@pytest.fixture(params=COMPONENTS, ids=lambda c: c.name)
def component(request: pytest.FixtureRequest) -> Component:
    return request.param


def losses(model: GPT, component: Component, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(tokens, targets, component.context(tokens))


def test_the_future_never_moves_a_past_loss(component: Component) -> None:
    model = busy(component.config())
    tokens, targets = example()
    before = losses(model, component, tokens, targets)
    for edit in (5, 20, 39):
        edited, other_targets = tokens.clone(), targets.clone()
        edited[0, edit:] = torch.where(tokens[0, edit:] == BOS, BOS, (tokens[0, edit:] + 7) % 61 + 2)
        other_targets[0, edit:] = edited.roll(-1, 1)[0, edit:]
        after = losses(model, component, edited, other_targets)
        assert torch.equal(after[0, :edit], before[0, :edit])
        assert not torch.equal(after[0, edit:], before[0, edit:])


def test_the_past_matters_to_the_next_token(component: Component) -> None:
    """Else causality would hold for want of any connection."""
    model = busy(component.config())
    tokens, targets = example()
    edited = tokens.clone()
    edited[0, 14] = tokens[0, 14] % 60 + 3
    change = (losses(model, component, edited, targets) - losses(model, component, tokens, targets)).abs()
    assert float(change[0, 15]) > 1e-4


def test_packed_documents_do_not_touch_each_other(component: Component) -> None:
    model = busy(component.config())
    tokens, targets = example()
    edited = tokens.clone()
    edited[0, 1:12] = (tokens[0, 1:12] + 5) % 60 + 2
    before, after = losses(model, component, tokens, targets), losses(model, component, edited, targets)
    if component.crosses is not None:
        _crosses_as_it_says(model, component, tokens, targets)
    elif component.is_packed:
        assert torch.equal(after[0, 12:], before[0, 12:])
        alone = losses(model, component, tokens[:, 12:28], targets[:, 12:28])
        torch.testing.assert_close(alone[0], before[0, 12:28], rtol=1e-5, atol=1e-5)  # rotations start elsewhere
    else:
        assert not torch.equal(after[0, 12:], before[0, 12:])  # rows attend across documents, and say so


def _crosses_as_it_says(model: GPT, component: Component, tokens: torch.Tensor, targets: torch.Tensor) -> None:
    """What looks across documents by one token sees that token itself, or in a later layer what it knows of its document."""
    before = losses(model, component, tokens, targets)
    earlier, last = tokens.clone(), tokens.clone()
    earlier[0, 1:11] = (tokens[0, 1:11] + 5) % 60 + 2
    last[0, 11] = (tokens[0, 11] + 5) % 60 + 2
    same = torch.equal(losses(model, component, earlier, targets)[0, 12:], before[0, 12:])
    assert same == (component.crosses == "last token")
    assert not torch.equal(losses(model, component, last, targets)[0, 12:], before[0, 12:])


def test_blocks_start_as_nothing(component: Component, monkeypatch: pytest.MonkeyPatch) -> None:
    model = seeded(component.config())
    tokens, _ = example()
    with torch.no_grad():
        whole = model.hidden(tokens, component.context(tokens))
        for branch in ("attend", "feed"):
            monkeypatch.setattr(Block, branch, lambda _self, x, *_: torch.zeros_like(x))
        same = torch.equal(model.hidden(tokens, component.context(tokens)), whole)
    assert same == component.starts_as_nothing


def test_both_phases_of_recurrence_run_and_differ_where_layers_recur(component: Component) -> None:
    model = busy(component.config())
    tokens, targets = example()
    context = component.context(tokens)
    with torch.no_grad():
        once, looped = (model(tokens, targets, context, Phase(looped=looped)) for looped in (False, True))
    assert torch.isfinite(once).all()
    assert torch.equal(once, looped) == (not model.recurrent)
    assert len(model.distinct_phases([Phase(looped=False), Phase()])) == (2 if model.recurrent else 1)


def test_parameters_and_flops_are_as_predicted(component: Component) -> None:
    config = component.config()
    model = seeded(config)
    tokens, targets = example(length=48)
    cost = model_cost(config, 48)
    assert sum(p.numel() for p in model.parameters()) == cost.params == sum(cost.params_by_role.values())
    with FlopCounterMode(display=False) as counter:
        model(tokens, targets, component.context(tokens))
    products = sum(n for op, n in counter.get_flop_counts()["Global"].items() if "attention" not in str(op))
    attention = sum(_attention_flops(model, step.layer, 48) for step in model.plan if isinstance(step, Run))
    assert products + attention == pytest.approx(cost.forward_flops_per_token * 48)


def _attention_flops(model: GPT, layer: int, length: int) -> int:
    """Scores, and their use: two products of a head's width for every pair of a query and a key that it sees."""
    attention = model.blocks[layer].attention
    if attention is None:
        return 0
    windows = model.config.attention.windows
    reach = length * 2 if windows is None else windows.long if attention.is_long else windows.short
    slots, heads = (length, attention.num_heads) if attention.pairs is None else (2 * length, attention.num_heads // 2)
    return sum(2 * 2 * heads * attention.head_dim * min(slot + 1, reach + 1) for slot in range(slots))


def test_every_parameter_gets_a_finite_gradient_in_bfloat16(component: Component) -> None:
    model = busy(component.config())
    model.compute_dtype = torch.bfloat16
    tokens, targets = example()
    model(tokens, targets, component.context(tokens)).mean().backward()
    for name, param in model.named_parameters():
        assert param.grad is not None, name
        assert torch.isfinite(param.grad).all(), name
        assert param.grad.any(), name


def test_bfloat16_is_close_to_float32(component: Component) -> None:
    model = busy(component.config())
    tokens, targets = example()
    exact = losses(model, component, tokens, targets)
    model.compute_dtype = torch.bfloat16
    found = losses(model, component, tokens, targets)
    assert found.dtype == torch.float32
    assert float((found - exact).abs().mean()) < 0.05  # 8 bits: 0.008 to 0.017 seen


def test_compiled_equals_eager(component: Component) -> None:
    torch._dynamo.reset()
    model = busy(component.config(num_layers=1))  # tracing takes a second a layer
    tokens, targets = example()
    context = component.context(tokens)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=False)
    for run in (model, compiled):
        model.zero_grad()
        run(tokens, targets, context).mean().backward()
        if run is model:
            wanted = losses(model, component, tokens, targets), [p.grad.clone() for p in model.parameters()]  # type: ignore[union-attr]
    with torch.no_grad():
        torch.testing.assert_close(compiled(tokens, targets, context), wanted[0], rtol=1e-5, atol=1e-5)
    for param, grad in zip(model.parameters(), wanted[1], strict=True):
        assert param.grad is not None
        torch.testing.assert_close(param.grad, grad, rtol=1e-4, atol=1e-5)


def test_packed_and_loaded_gives_the_logits_of_what_was_quantised(component: Component, tmp_path: Path) -> None:
    config = component.config()
    model = busy(config)
    roles = parameter_roles(model)
    encoded = quantise({n: (p, roles[n]) for n, p in model.named_parameters()}, RoundToNearest(bits=6))
    header = {"model": to_dict(config), "window": to_dict(Flat(context=64).frozen()), "tokenizer": {"name": "none"}}
    write_artifact(tmp_path / "tiny.upar", header, encoded, Zlib())
    loaded = load_model(tmp_path / "tiny.upar").model
    twin = seeded(config, seed=7)
    with torch.no_grad():
        for name, value in dequantise(encoded).items():
            dict(twin.named_parameters())[name].copy_(value)
        tokens, _ = example()
        context = component.context(tokens)
        found, wanted = loaded.logits(tokens, context), twin.logits(tokens, context)
        original = model.logits(tokens, context)
    assert torch.equal(found, wanted)
    assert not torch.equal(found, original)  # 6 bits do lose something


def test_config_rebuilds_the_same_model_from_json(component: Component) -> None:
    config = component.config()
    again = from_dict(json.loads(json.dumps(to_dict(config))), GPTConfig)
    assert (again, fingerprint(again)) == (config, fingerprint(config))
    first, second = seeded(config), seeded(again)
    assert first.plan == second.plan
    pairs = zip(first.named_parameters(), second.named_parameters(), strict=True)
    assert all(a == b and torch.equal(p, q) and p.dtype == q.dtype for (a, p), (b, q) in pairs)


def test_every_role_has_an_optimiser(component: Component) -> None:
    model = seeded(component.config())
    roles = set(parameter_roles(model).values())
    optim = Optim(**{role.value: Adam(lr=0.008) for role in (Role.HEAD, Role.GATE) if role in roles})
    groups = optim.build(model, World()).groups
    assert sum(len(group.params) for group in groups.values()) == len(list(model.parameters()))


def test_names_are_unique() -> None:
    assert len({c.name for c in COMPONENTS}) == len(COMPONENTS)
