"""The baseline's architecture: exact counts, layer order, starting values."""

import math

import pytest
import torch

from support import busy, dense, random_tokens, seeded, tiny_config
from underpar.core.config import Config
from underpar.core.errors import ConfigError
from underpar.core.roles import Role
from underpar.model.cost import model_cost, on_meta
from underpar.model.gpt import GPTConfig
from underpar.model.plan import Pop, Push, Run, Straight, UNet, skip_rows, validate_plan
from underpar.nn.attention import Attention
from underpar.nn.embeddings import UntiedHead
from underpar.nn.linear import Linear, project_together
from underpar.nn.mlp import MLP
from underpar.nn.module import Module, parameter_roles
from underpar.nn.rope import Rope
from underpar.recipes import registry


def test_baseline_has_the_published_number_of_parameters() -> None:
    cost = model_cost(registry.resolve("golf/baseline").config.model, 1024)
    assert cost.params == 17_059_912
    attention = 512 * 512 + 2 * 256 * 512 + 512 * 512
    mlp = 2 * 1024 * 512
    gains = 9 * (2 * 512 + 512 + 512 + 8) + 4 * 512
    assert cost.params_by_role == {"matrix": 9 * (attention + mlp), "embedding": 1024 * 512, "gain": gains}
    assert sum(cost.params_by_role.values()) == cost.params


@pytest.mark.parametrize("name", ["golf/longcontext2048", "golf/seq4096"])
def test_its_descendants_change_no_parameter(name: str) -> None:
    config = registry.resolve(name).config
    assert model_cost(config.model, config.data.loader.seq_len).params == 17_059_912


def test_the_wider_published_model_counts_right_too() -> None:
    """8 layers, MLP ratio 3, vocabulary 2048: 19,941,440 in its training log."""
    config = GPTConfig(vocab_size=2048, num_layers=8, mlp=MLP(ratio=3.0))
    assert on_meta(config.frozen()).num_parameters() == 19_941_440


def test_roles_are_given_where_parameters_are_made() -> None:
    roles = parameter_roles(on_meta(GPTConfig(num_layers=2, head=UntiedHead()).frozen()))
    assert roles["embedding.weight"] is Role.EMBEDDING
    assert roles["head.projection.weight"] is Role.HEAD
    assert roles["blocks.0.attention.q.weight"] is Role.MATRIX
    assert roles["blocks.1.mlp.down.weight"] is Role.MATRIX
    gains = {"skips.weight", "blocks.0.residual.mix", "blocks.0.attn_scale", "blocks.1.attention.q_gain"}
    assert {roles[name] for name in gains} == {Role.GAIN}


def test_a_parameter_without_role_is_an_error() -> None:
    class Forgetful(Module):
        def __init__(self) -> None:
            super().__init__()
            self.secret = torch.nn.Parameter(torch.zeros(3))

    with pytest.raises(ConfigError, match=r"parameter 0\.secret has no role"):
        parameter_roles(torch.nn.Sequential(Forgetful()))


# ------------------------------------------------------------------------------------------------- layer order


def test_plan_of_nine_layers_pairs_the_skips_last_saved_first() -> None:
    plan = UNet().plan(9)
    assert plan == (
        Run(0), Push(), Run(1), Push(), Run(2), Push(), Run(3), Push(),
        Pop(0), Run(4), Pop(1), Run(5), Pop(2), Run(6), Pop(3), Run(7), Run(8),
    )  # fmt: skip
    assert skip_rows(plan) == 4


@pytest.mark.parametrize("num_layers", range(1, 13))
def test_every_u_net_runs_each_layer_once_and_takes_what_it_saved(num_layers: int) -> None:
    plan = UNet().plan(num_layers)
    validate_plan(plan, num_layers)
    assert [s.layer for s in plan if isinstance(s, Run)] == list(range(num_layers))
    assert sum(isinstance(s, Push) for s in plan) == sum(isinstance(s, Pop) for s in plan) == num_layers // 2
    stack: list[int] = []
    pairs = []
    for before, step, after in zip((None, *plan), plan, (*plan[1:], None), strict=False):
        if isinstance(step, Push):
            assert isinstance(before, Run)
            stack.append(before.layer)
        if isinstance(step, Pop):
            assert isinstance(after, Run)
            pairs.append((stack.pop(), after.layer, step.row))
    encoder = num_layers // 2
    assert pairs == [(encoder - 1 - i, encoder + i, i) for i in range(encoder)]


def test_skips_carry_the_stream_of_their_partner() -> None:
    """Changing row 0 of the skip weights by d moves the stream by d times what block 3 put out."""
    config = tiny_config()
    config.num_layers = 8
    model = busy(config)
    tokens = random_tokens(1, 6)
    seen: dict[str, torch.Tensor] = {}
    model.blocks[3].register_forward_hook(lambda _m, _i, out: seen.update(out=out.detach()))
    model.blocks[4].register_forward_pre_hook(lambda _m, args: seen.update(read=args[0].detach()))
    model.hidden(tokens, dense(tokens))
    saved, before = seen["out"], seen["read"]
    with torch.no_grad():
        dict(model.named_parameters())["skips.weight"][0] += 0.5
    model.hidden(tokens, dense(tokens))
    torch.testing.assert_close(seen["read"] - before, 0.5 * saved, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ((Run(0), Run(2)), "never runs layer 1 of 3"),
        ((Run(0), Run(1), Run(2), Run(3)), "runs layer 3, but there are 3"),
        ((Run(0), Pop(0), Run(1), Push(), Run(2)), "a skip that was never saved"),
    ],
)
def test_impossible_plans_are_refused(plan: tuple[object, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        validate_plan(plan, 3)  # type: ignore[arg-type]


def test_layers_may_run_more_than_once() -> None:
    validate_plan((Run(0), Run(1), Run(0), Run(1)), 2)


# ------------------------------------------------------------------------------------------------- starting values


def test_initial_values_are_the_published_ones() -> None:
    config = GPTConfig(vocab_size=1024, num_layers=2, model_dim=256, attention=Attention(num_heads=4, num_kv_heads=2))
    model = seeded(config.frozen())
    params = {name: param.detach() for name, param in model.named_parameters()}
    assert params["embedding.weight"].dtype == torch.bfloat16
    assert float(params["embedding.weight"].float().std()) == pytest.approx(0.005, rel=0.02)
    for name, param in params.items():
        if name.endswith(("out.weight", "down.weight")):
            assert not param.any(), name
        elif name.endswith(("q.weight", "k.weight", "v.weight", "up.weight")):
            bound = 1 / math.sqrt(param.shape[1])
            assert float(param.abs().max()) <= bound
            assert float(param.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05), name
    assert set(params["blocks.0.attention.q_gain"].tolist()) == {1.5}
    assert params["blocks.0.residual.mix"].tolist() == [[1.0] * 256, [0.0] * 256]
    assert all((p == 1).all() for n, p in params.items() if n.endswith(("attn_scale", "mlp_scale", "skips.weight")))


def test_logits_are_soft_capped_and_losses_are_their_cross_entropy() -> None:
    model = busy(tiny_config())
    with torch.no_grad():
        model.embedding.weight.mul_(100)
    tokens, targets = random_tokens(2, 9), random_tokens(2, 9, seed=1)
    logits = model.logits(tokens, dense(tokens))
    assert logits.dtype == torch.float32
    assert 25 < float(logits.detach().abs().max()) <= 30
    losses = model(tokens, targets, dense(tokens))
    exact = torch.nn.functional.cross_entropy(logits.double().flatten(0, 1), targets.flatten(), reduction="none")
    torch.testing.assert_close(losses.double().flatten(), exact, rtol=1e-5, atol=1e-5)


def test_layers_of_one_input_share_a_product() -> None:
    x = torch.randn(2, 3, 8)
    layers = {"q": Linear(8, 4), "k": Linear(8, 2), "v": Linear(8, 6)}
    for got, layer in zip(project_together(x, layers), layers.values(), strict=True):
        torch.testing.assert_close(got, layer(x))


# ------------------------------------------------------------------------------------------------- refusals


class Endless(UNet):
    """Never runs the last layer. Not registered: other tests read the list of topologies."""

    def plan(self, num_layers: int, looped: bool = True) -> tuple[Run, ...]:
        return tuple(Run(i) for i in range(num_layers - 1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_dim": 100}, "model_dim = 100 must be a multiple of num_heads = 8"),
        ({"model_dim": 24}, r"model_dim / num_heads = 3 must be even"),
        ({"attention": Attention(num_heads=8, num_kv_heads=3)}, "must be a multiple of num_kv_heads = 3"),
        ({"attention": Attention(rope=Rope(dims=66))}, r"rope\.dims = 66 is over model_dim / num_heads = 64"),
        ({"attention": Attention(rope=Rope(dims=15))}, "dims = 15 must be even"),
        ({"mlp": MLP(ratio=0.0001)}, "leaves no hidden unit"),
        ({"vocab_size": 70_000}, "vocab_size = 70000 is over 65,536"),
        ({"num_layers": 0}, "num_layers = 0 is out of range"),
        ({"topology": Endless()}, "never runs layer 8 of 9"),
    ],
)
def test_architectures_that_cannot_be_are_refused_before_anything_is_built(
    change: dict[str, Config | int], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        GPTConfig(**change).frozen()  # type: ignore[arg-type]


def test_straight_has_no_skips() -> None:
    config = tiny_config()
    config.topology = Straight()
    assert not [name for name, _ in seeded(config).named_parameters() if name.startswith("skips")]
