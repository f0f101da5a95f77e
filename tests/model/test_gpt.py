"""The baseline's architecture: exact counts, layer order, starting values."""

import math

import pytest
import torch

from support import BOS, busy, dense, random_tokens, seeded, tiny_config
from underpar.core.config import Config
from underpar.core.errors import ConfigError
from underpar.core.phase import EVALUATION, Phase
from underpar.core.roles import Role
from underpar.kernels.exclusive_gate import exclusive_gate
from underpar.model.cost import model_cost, on_meta
from underpar.model.gpt import GPTConfig
from underpar.model.plan import (
    Fork,
    Join,
    Lanes,
    LayerPlan,
    Pop,
    Push,
    Recurrence,
    Run,
    Straight,
    UNet,
    executions,
    skip_rows,
    validate_plan,
)  # fmt: skip
from underpar.nn.attention import Attention
from underpar.nn.embeddings import UntiedHead
from underpar.nn.fake_quantise import FakeIntPerRow
from underpar.nn.frame import Visit
from underpar.nn.gates import SparseGate
from underpar.nn.linear import Linear, project_together
from underpar.nn.lookback import BigramHash, BigramProductHash, SmearGate
from underpar.nn.mlp import MLP
from underpar.nn.module import Module, parameter_roles
from underpar.nn.recurrence import FrozenMix
from underpar.nn.rope import Rope, StretchedRope
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
    model.blocks[3].register_forward_hook(lambda _m, _i, out: seen.update(out=out[0].total().detach()))
    model.blocks[4].register_forward_pre_hook(lambda _m, args: seen.update(read=args[0].total().detach()))
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


# ------------------------------------------------------------------------------------------------- the late line


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("golf/pr122", 19_941_440), ("golf/pr1736", 35_989_658), ("golf/pr1787", 35_945_658), ("golf/pr1855", 35_945_671),
    ],
)  # fmt: skip
def test_published_recipes_have_their_published_number_of_parameters(name: str, params: int) -> None:
    assert on_meta(registry.resolve(name).config.model).num_parameters() == params


def test_the_breakdown_of_pr1787() -> None:
    model = on_meta(registry.resolve("golf/pr1787").config.model)
    sizes = {name: param.numel() for name, param in model.named_parameters()}
    assert sizes["embedding.weight"] == 4_194_304
    assert sizes["skips.weight"] == sizes["skips.gate"] == 8 * 512
    assert (sizes["lanes.keep"], sizes["lanes.write"]) == (22, 44)
    block = {name.removeprefix("blocks.3."): size for name, size in sizes.items() if name.startswith("blocks.3.")}
    assert block == {
        "residual.mix": 1024, "attn_scale": 512, "mlp_scale": 512, "attention.q_gain": 8, "attention.gate.weight": 96,
        "attention.q.weight": 512 * 512, "attention.k.weight": 256 * 512, "attention.v.weight": 256 * 512,
        "attention.out.weight": 512 * 512, "mlp.up.weight": 2048 * 512, "mlp.down.weight": 2048 * 512,
    }  # fmt: skip


def test_recurrence_runs_in_the_published_order() -> None:
    topology = UNet(recurrence=Recurrence(first=3, last=5, passes=3), lanes=Lanes(first=8))
    looped, once = topology.plan(11), topology.plan(11, looped=False)
    first, second = split_at_first_pop(looped)
    assert executions(first) == [0, 1, 2, 3, 4, 5, 3, 4]
    assert executions(second) == [5, 3, 4, 5, 6, 7, 8, 9, 10]
    first, second = split_at_first_pop(once)
    assert executions(first) == [0, 1, 2, 3, 4]
    assert executions(second) == [5, 6, 7, 8, 9, 10]
    assert (skip_rows(looped), skip_rows(once)) == (8, 5)
    fork = looped.index(Fork())
    assert executions(looped[fork:]) == [8, 9, 10]
    assert looped[-1] == Join(0.5)


def split_at_first_pop(plan: LayerPlan) -> tuple[LayerPlan, LayerPlan]:
    at = next(i for i, step in enumerate(plan) if isinstance(step, Pop))
    return plan[:at], plan[at:]


def test_both_branches_write_to_both_lanes() -> None:
    config = tiny_config()
    config.topology = UNet(lanes=Lanes(first=1))
    model = busy(config.frozen())
    tokens = random_tokens(1, 6)
    frame = model._frame(tokens, dense(tokens), EVALUATION)
    mix = model.lanes
    assert mix is not None
    lanes = (torch.randn(1, 6, 32), torch.randn(1, 6, 32))
    attended, fed = torch.randn(1, 6, 32), torch.randn(1, 6, 32)
    scales = torch.randn(32), torch.randn(32)
    first, second = (lane.total() for lane in mix(lanes, (attended, fed), scales, 1))
    keep, write = mix.keep[1], mix.write[1]
    attended, fed = scales[0] * attended, scales[1] * fed
    torch.testing.assert_close(first, keep[0] * lanes[0] + write[0, 0] * attended + write[1, 0] * fed)
    torch.testing.assert_close(second, keep[1] * lanes[1] + write[0, 1] * attended + write[1, 1] * fed)
    assert frame.values is None


def test_a_fresh_sparse_gate_halves_and_a_fresh_smear_is_nothing() -> None:
    config = tiny_config()
    config.attention = Attention(num_heads=4, num_kv_heads=2, gate=SparseGate())
    config.smear = SmearGate()
    model = seeded(config.frozen())
    x = torch.randn(1, 5, 32)
    gate = model.blocks[0].attention.gate  # type: ignore[union-attr]
    assert torch.equal(torch.sigmoid(gate(x, x)), torch.full((1, 5, 4), 0.5))  # type: ignore[operator, arg-type]
    tokens = random_tokens(1, 5)
    e = model.embedding(tokens, torch.float32)
    assert model.smear is not None
    assert torch.equal(model.smear(e, dense(tokens)), e)


def test_smear_reads_the_token_before_but_not_across_a_document_start() -> None:
    config = tiny_config()
    config.smear = SmearGate()
    model = busy(config.frozen())
    tokens = torch.tensor([[5, 6, BOS, 7]])
    e = model.embedding(tokens, torch.float32)
    smeared = model.smear(e, dense(tokens))  # type: ignore[misc]
    assert torch.equal(smeared[0, 0], e[0, 0])
    assert torch.equal(smeared[0, 2], e[0, 2])
    weight, strength = model.smear.weight, model.smear.strength  # type: ignore[union-attr]
    for t in (1, 3):
        gate = strength * torch.sigmoid((weight * e[0, t, :12]).sum())  # type: ignore[operator]
        torch.testing.assert_close(smeared[0, t], e[0, t] + gate * e[0, t - 1])


def test_exclusive_attention_leaves_nothing_along_the_own_value() -> None:
    y, v = torch.randn(2, 5, 4, 8), torch.randn(2, 5, 2, 8)
    out = exclusive_gate(y, v)
    along = torch.einsum("bthd,bthd->bth", out, v.repeat_interleave(2, dim=2))
    torch.testing.assert_close(along, torch.zeros_like(along), atol=1e-5, rtol=0)
    kept = y - out
    torch.testing.assert_close(kept, torch.einsum("bthd,bthd->bth", y, (u := unit(v)))[..., None] * u)


def unit(v: torch.Tensor) -> torch.Tensor:
    repeated = v.repeat_interleave(2, dim=2)
    return repeated / repeated.norm(dim=-1, keepdim=True)


def test_bigram_buckets_by_hand() -> None:
    hashed = BigramHash(buckets=10_240)
    tokens, before = torch.tensor([[300, 65_535]]), torch.tensor([[7, 65_535]])
    alone = torch.tensor([[False, False]])
    wrap = lambda z: (z + 2**31) % 2**32 - 2**31  # noqa: E731
    want = [((wrap(36_313 * t) ^ wrap(27_191 * b)) % 10_239) for t, b in ((300, 7), (65_535, 65_535))]
    assert hashed.hash(tokens, before, alone).tolist() == [want]
    assert hashed.hash(tokens, before, ~alone).tolist() == [[10_239, 10_239]]
    assert BigramProductHash().hash(tokens, before, alone).tolist()[0][0] == (7 * 92_821 + 300) % 4096


def test_stretched_rope_changes_nothing_up_to_the_length_of_training() -> None:
    positions = torch.arange(64)
    plain, stretched = Rope(dims=16), StretchedRope(dims=16, train_length=32)
    assert torch.equal(stretched.tables(positions, 64, 32)[0], plain.tables(positions, 64, 32)[0])
    cos, _ = stretched.tables(positions, 64, 128)
    torch.testing.assert_close(cos[:, 1], torch.cos(positions * (10_000 * 4 ** (16 / 14)) ** (-2 / 16)))


def test_recurrence_keeps_what_the_mix_says_of_the_pass_before() -> None:
    """With beta 0 and alpha 1 for itself, every later pass hands on what the first pass put out."""
    config = tiny_config()
    config.num_layers = 4
    config.topology = UNet(recurrence=Recurrence(first=1, last=1, passes=3))
    config.recurrence_mix = FrozenMix(beta=(0.0,), alpha=(1.0,))
    model = busy(config.frozen())
    tokens = random_tokens(1, 6)
    seen = []
    model.blocks[1].register_forward_hook(lambda _m, _i, out: seen.append(out[0].total().detach()))
    fed: list[torch.Tensor] = []
    model.blocks[1].register_forward_pre_hook(lambda _m, args: fed.append(args[0].total().detach()))
    model.hidden(tokens, dense(tokens))
    assert len(seen) == 3
    skip = model.skips
    assert skip is not None
    torch.testing.assert_close(fed[1], seen[0])  # still in the first half: no skip between the passes


def test_fake_quantisation_meets_the_grid_and_passes_the_gradient() -> None:
    config = tiny_config().frozen()
    model, plain = busy(config), busy(config)
    model.fake_quantiser = FakeIntPerRow(bits=4)
    tokens, targets = random_tokens(1, 12), random_tokens(1, 12, seed=1)
    ctx = dense(tokens)
    on, off = Phase(quantised=True), Phase(quantised=False)
    assert torch.equal(model(tokens, targets, ctx, off), plain(tokens, targets, ctx))
    with torch.no_grad():
        for name, param in plain.named_parameters():
            if parameter_roles(plain)[name] is Role.MATRIX:
                step = param.abs().amax(1, keepdim=True) / 7
                param.copy_(torch.round(param / step) * step)
    torch.testing.assert_close(model(tokens, targets, ctx, on), plain(tokens, targets, ctx))
    for each, phase in ((model, on), (plain, off)):
        each(tokens, targets, ctx, phase).mean().backward()
    for (name, a), b in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)
    assert model.distinct_phases([on, off]) == (on, off)
    assert plain.distinct_phases([on, off]) == (off,)


def test_visits_see_every_site_and_a_visit_that_adds_nothing_changes_nothing() -> None:
    config = tiny_config()
    config.num_layers = 4
    config.topology = UNet(recurrence=Recurrence(first=1, last=2, passes=2), lanes=Lanes(first=3))
    model = busy(config.frozen())
    seen: list[tuple[int, int, str]] = []

    class Watch(Visit):
        def __init__(self, execution: int, layer: int, *, inside: bool) -> None:
            self.execution, self.layer, self.needs_hidden = execution, layer, inside

        def __call__(self, site: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            seen.append((self.execution, self.layer, site))
            return y

    class Watcher:
        def __init__(self, *, inside: bool) -> None:
            self.inside = inside

        def at(self, execution: int, layer: int) -> Visit:
            return Watch(execution, layer, inside=self.inside)

        def head(self) -> Visit:
            return Watch(-1, -1, inside=False)

    tokens = random_tokens(2, 9)
    want = model.logits(tokens, dense(tokens))
    assert torch.equal(model.logits(tokens, dense(tokens), Watcher(inside=False)), want)
    order = [0, 1, 2, 1, 2, 3]
    outer = {(i, layer, site) for i, layer in enumerate(order) for site in ("q", "k", "v", "out", "attention", "mlp")}
    assert set(seen) == outer | {(-1, -1, "head")}
    seen.clear()
    torch.testing.assert_close(model.logits(tokens, dense(tokens), Watcher(inside=True)), want)
    assert set(seen) == outer | {(i, layer, s) for i, layer in enumerate(order) for s in ("up", "down")} | {
        (-1, -1, "head")
    }
