"""Adapters: nothing at first, one set a document and an execution, and nowhere a second forward."""

import pytest
import torch
from torch import Tensor

from support import busy, dense, random_tokens, tiny_config
from underpar.core.errors import ConfigError
from underpar.model.gpt import GPT
from underpar.model.plan import Lanes, Recurrence, UNet
from underpar.nn.adapters import SITES, AdapterLayout, LoRA
from underpar.nn.attention import Attention
from underpar.nn.gates import SparseGate
from underpar.nn.layers import AllLayers
from underpar.nn.lookback import SmearGate
from underpar.nn.residual import GatedSkips


def late_model() -> GPT:
    config = tiny_config()
    config.num_layers = 5
    config.attention = Attention(num_heads=4, num_kv_heads=2, exclude_self=AllLayers(), gate=SparseGate())
    config.topology = UNet(recurrence=Recurrence(first=1, last=2, passes=2), lanes=Lanes(first=3))
    config.skips, config.smear = GatedSkips(), SmearGate()
    return busy(config.frozen())


def begun(model: GPT, lora: LoRA, documents: int, seed: int = 0) -> tuple[AdapterLayout, Tensor]:
    """Adapters as they start: a layout, and a row of numbers a document."""
    layout = model.adapter_layout(lora.frozen())
    rows = torch.empty(documents, layout.numbers)
    for index, row in enumerate(rows):
        layout.begin(row, layout.bounds(), torch.Generator().manual_seed(seed + index))
    return layout, rows


@pytest.mark.parametrize("sites", [("q", "k", "v", "attention", "mlp", "head"), ("out",), ("k", "attention")])
def test_fresh_adapters_reproduce_the_plain_logits_exactly(sites: tuple[str, ...]) -> None:
    model, tokens = late_model(), random_tokens(3, 11)
    layout, rows = begun(model, LoRA(rank=4, alpha=6.0, sites=sites), 3)
    assert torch.equal(model.logits(tokens, dense(tokens), layout.visitor(rows)), model.logits(tokens, dense(tokens)))


def test_adapters_inside_the_mlp_agree_with_the_fused_path() -> None:
    model, tokens = late_model(), random_tokens(2, 7)
    layout, rows = begun(model, LoRA(rank=2, sites=("up", "down")), 2)
    plain = model.logits(tokens, dense(tokens))
    torch.testing.assert_close(model.logits(tokens, dense(tokens), layout.visitor(rows)), plain)


def test_every_execution_has_its_own_and_every_site_gets_a_gradient() -> None:
    model, tokens = late_model(), random_tokens(2, 9)
    layout, rows = begun(model, LoRA(rank=3, sites=SITES), 2)
    assert layout.executions == [0, 1, 2, 1, 2, 3, 4]
    rows = rows.add(0.02).requires_grad_()
    model(tokens, random_tokens(2, 9, seed=1), dense(tokens), visitor=layout.visitor(rows)).mean().backward()
    assert rows.grad is not None
    for place in layout.split(rows.grad):
        for read, (a, by_site) in place.items():
            assert a.any(), read
            for site, b in by_site.items():
                assert b.any(), site


def test_a_document_is_corrected_by_its_own_adapter_alone() -> None:
    model, tokens = late_model(), random_tokens(2, 9)
    layout, rows = begun(model, LoRA(rank=3), 2)
    rows[1].add_(0.1)
    plain, adapted = (model.logits(tokens, dense(tokens), v) for v in (None, layout.visitor(rows)))
    assert torch.equal(adapted[0], plain[0])
    assert not torch.allclose(adapted[1], plain[1])
    layout.begin(rows[1], layout.bounds(), None)
    assert torch.equal(model.logits(tokens, dense(tokens), layout.visitor(rows)), plain)


def test_a_warm_start_keeps_a_and_a_fresh_one_draws_it_again_within_its_bounds() -> None:
    layout, rows = begun(late_model(), LoRA(rank=3, sites=("q", "down")), 2)
    assert not torch.equal(rows[0], rows[1])
    used = rows.add(0.1)
    layout.begin(used[0], layout.bounds(), None)
    layout.begin(used[1], layout.bounds(), torch.Generator().manual_seed(0))
    assert torch.equal(used[1], rows[0])
    for kept, before in zip(layout.split(used[:1]), layout.split(rows[:1]), strict=True):
        for read, (a, by_site) in kept.items():
            torch.testing.assert_close(a, before[read][0] + 0.1)
            assert before[read][0].abs().max() <= a.shape[2] ** -0.5
            assert before[read][0].abs().max() > 0.9 * a.shape[2] ** -0.5
            assert not any(b.any() for b in by_site.values())


def test_the_product_by_hand() -> None:
    config = tiny_config()
    config.num_layers = 1
    model, tokens = busy(config.frozen()), random_tokens(2, 5)
    layout, rows = begun(model, LoRA(rank=2, alpha=5.0, sites=("head",)), 2)
    rows.normal_(generator=torch.Generator().manual_seed(0))
    a, by_site = layout.split(rows)[-1]["head"]
    hidden = model.hidden(tokens, dense(tokens))
    raw = model.head.projection(hidden) + 2.5 * torch.einsum("btd,brd,bor->bto", hidden, a, by_site["head"])
    cap = model.head.softcap
    found = model.logits(tokens, dense(tokens), layout.visitor(rows))
    torch.testing.assert_close(found, cap * torch.tanh(raw / cap), rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no site 'querry'"):
        LoRA(sites=("querry",)).frozen()
    layout, rows = begun(busy(tiny_config().frozen()), LoRA(rank=2), 1)
    tokens = random_tokens(1, 5)
    with pytest.raises(ConfigError, match="the adapters are for the order"):
        late_model().logits(tokens, dense(tokens), layout.visitor(rows))
