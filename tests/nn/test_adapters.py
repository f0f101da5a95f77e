"""Adapters: nothing at first, one set a document and an execution, and nowhere a second forward."""

import pytest
import torch

from support import busy, dense, random_tokens, tiny_config
from underpar.core.errors import ConfigError
from underpar.model.gpt import GPT
from underpar.model.plan import Lanes, Recurrence, UNet
from underpar.nn.adapters import SITES, LoRA
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


@pytest.mark.parametrize("sites", [("q", "k", "v", "attention", "mlp", "head"), ("out",)])
def test_fresh_adapters_reproduce_the_plain_logits_exactly(sites: tuple[str, ...]) -> None:
    model, tokens = late_model(), random_tokens(3, 11)
    adapters = model.adapters(LoRA(rank=4, alpha=6.0, sites=sites).frozen(), documents=3)
    assert torch.equal(model.logits(tokens, dense(tokens), adapters), model.logits(tokens, dense(tokens)))


def test_adapters_inside_the_mlp_agree_with_the_fused_path() -> None:
    model, tokens = late_model(), random_tokens(2, 7)
    adapters = model.adapters(LoRA(rank=2, sites=("up", "down")).frozen(), documents=2)
    plain = model.logits(tokens, dense(tokens))
    torch.testing.assert_close(model.logits(tokens, dense(tokens), adapters), plain)


def test_every_execution_has_its_own_and_every_site_gets_a_gradient() -> None:
    model, tokens = late_model(), random_tokens(2, 9)
    adapters = model.adapters(LoRA(rank=3, sites=SITES).frozen(), documents=2)
    assert adapters.executions == [0, 1, 2, 1, 2, 3, 4]
    with torch.no_grad():
        for name, param in adapters.named_parameters():
            if ".b." in name:
                param.normal_(std=0.02)
    model(tokens, random_tokens(2, 9, seed=1), dense(tokens), visitor=adapters).mean().backward()
    for name, param in adapters.named_parameters():
        assert param.grad is not None, name
        assert param.grad.any(), name


def test_a_document_is_corrected_by_its_own_adapter_alone() -> None:
    model, tokens = late_model(), random_tokens(2, 9)
    adapters = model.adapters(LoRA(rank=3).frozen(), documents=2)
    with torch.no_grad():
        for name, param in adapters.named_parameters():
            if ".b." in name:
                param[1].normal_(std=0.1)
    plain, adapted = model.logits(tokens, dense(tokens)), model.logits(tokens, dense(tokens), adapters)
    assert torch.equal(adapted[0], plain[0])
    assert not torch.allclose(adapted[1], plain[1])
    adapters.reset(redraw=False)
    assert torch.equal(model.logits(tokens, dense(tokens), adapters), plain)


def test_the_product_by_hand() -> None:
    config = tiny_config()
    config.num_layers = 1
    model, tokens = busy(config.frozen()), random_tokens(2, 5)
    adapters = model.adapters(LoRA(rank=2, alpha=5.0, sites=("head",)).frozen(), documents=2)
    a, b = adapters.output.a["head"], adapters.output.b["head"]
    with torch.no_grad():
        b.normal_()
    hidden = model.hidden(tokens, dense(tokens))
    raw = model.head.projection(hidden) + 2.5 * torch.einsum("btd,brd,bor->bto", hidden, a, b)
    cap = model.head.softcap
    found = model.logits(tokens, dense(tokens), adapters)
    torch.testing.assert_close(found, cap * torch.tanh(raw / cap), rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no site 'querry'"):
        LoRA(sites=("querry",)).frozen()
    other = busy(tiny_config().frozen()).adapters(LoRA(rank=2).frozen(), documents=1)
    tokens = random_tokens(1, 5)
    with pytest.raises(ConfigError, match="the adapters are for the order"):
        late_model().logits(tokens, dense(tokens), other)
