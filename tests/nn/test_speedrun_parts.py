"""Components of the speedrun, each against its formula written out again."""

import math

import pytest
import torch
from torch import Tensor

from support import BOS
from underpar.core.errors import ConfigError
from underpar.core.phase import Phase, WindowSizes
from underpar.data.context import packed_context, row_context
from underpar.kernels.attention import attention
from underpar.kernels.attention.ref import packed_attention_ref
from underpar.kernels.qk_norm_rope import qk_norm_rope
from underpar.nn.attention import Attention
from underpar.nn.caps import RationalCap, SigmoidCap
from underpar.nn.key_offset import CrossingKeyOffset, IsolatedKeyOffset
from underpar.nn.layers import TheseLayers
from underpar.nn.lookback import BigramTable, CrossingSmearGate, SmearGate
from underpar.nn.loss import multi_target_losses
from underpar.nn.norm import EPS
from underpar.nn.pairs import AdjacentPairs, HeadPairs, RecordedPairs
from underpar.nn.residual import InputGatedSkips
from underpar.nn.rope import EndpointRope, WindowRope
from underpar.nn.stream import Stream
from underpar.nn.value_embedding import GatedValueTables


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def documents() -> Tensor:
    """(1, 12) with documents at 0, 5 and 9."""
    tokens = torch.arange(2, 14).unsqueeze(0)
    tokens[0, [0, 5, 9]] = BOS
    return tokens


# ------------------------------------------------------------------------------------------------- bigrams


@pytest.mark.parametrize(
    ("before", "token", "rows", "bucket"),
    [
        (50256, 464, 251_520, 19_030), (464, 3290, 251_520, 223_622), (50256, 50256, 251_520, 35_060),
        (50256, 464, 377_280, 143_001), (464, 3290, 377_280, 349_207), (50256, 50256, 377_280, 33_688),
    ],
)  # fmt: skip
def test_bigram_buckets_of_the_published_vectors(before: int, token: int, rows: int, bucket: int) -> None:
    one = lambda value: torch.tensor([[value]])  # noqa: E731
    found = BigramTable(buckets=rows).hash(one(token), one(before), torch.zeros(1, 1, dtype=torch.bool))
    assert found.item() == bucket


def test_only_the_first_token_of_a_row_has_the_reserved_bucket() -> None:
    """A document's first token is hashed with the last one of the document before."""
    table = BigramTable(buckets=40).build(8)
    with torch.no_grad():
        table.table.copy_(torch.arange(40.0).unsqueeze(1).expand(40, 8))
    tokens = documents()
    found = table(tokens, packed_context(tokens, BOS, 16), torch.float32)[0, :, 0]
    wanted = [
        ((36_313 * b) ^ (27_191 * a)) % 39 for a, b in zip(tokens[0, :-1].tolist(), tokens[0, 1:].tolist(), strict=True)
    ]
    assert found.tolist() == [39, *wanted]


# ------------------------------------------------------------------------------------------------- smear, skip, values


def test_smear_crosses_documents_only_where_it_says_so() -> None:
    tokens, e = documents(), normal(1, 12, 16)
    context = packed_context(tokens, BOS, 16)
    for config, crosses in ((SmearGate(), False), (CrossingSmearGate(), True)):
        smear = config.build(16)
        with torch.no_grad():
            smear.weight.copy_(normal(1, 12, seed=1))
            smear.strength.fill_(0.7)
        found = smear(e, context)
        gate = 0.7 * torch.sigmoid(e[..., :12] @ smear.weight.detach().T)
        wanted = e.clone()
        wanted[:, 1:] += (gate * torch.roll(e, 1, dims=1))[:, 1:]
        if not crosses:
            wanted[:, [5, 9]] = e[:, [5, 9]]
        torch.testing.assert_close(found, wanted)


def test_the_gated_skip_begins_at_the_published_factor() -> None:
    skips = InputGatedSkips().build(1, 16)
    x, saved, x0 = (normal(1, 5, 16, seed=seed) for seed in range(3))
    found = skips(Stream.of(x), Stream.of(saved), 0, x0).total()
    factor = 1 / (1 + math.exp(1.5))
    torch.testing.assert_close(found, x + factor * saved)
    assert factor == pytest.approx(0.18, abs=0.005)


def test_gated_values_are_those_of_the_layers_own_table() -> None:
    source = GatedValueTables(layers=TheseLayers(layers=(0, 2))).build(20, 3, 16, 4, 4)
    with torch.no_grad():
        source.tables.copy_(normal(40, 16))
        source.gates.copy_(normal(8, 12, seed=1))
    tokens, v, x = torch.tensor([[3, 7, 19]]), normal(1, 3, 4, 4, seed=2), normal(1, 3, 16, seed=3)
    assert source.adder(tokens, 1) is None
    add = source.adder(source.look_up(tokens, torch.float32), 2)
    assert add is not None
    gate = 2 * torch.sigmoid(x[..., :12] @ source.gates[4:].T)
    wanted = v + gate.unsqueeze(-1) * source.tables[20 + tokens].view(1, 3, 4, 4)
    torch.testing.assert_close(add(v, x), wanted)


# ------------------------------------------------------------------------------------------------- rotary positions


def test_frequencies_are_the_published_ones() -> None:
    f = EndpointRope().frequencies(128, 2048, None, torch.device("cpu"))
    assert len(f) == 32
    assert f[[0, 1, 15, 31]].tolist() == pytest.approx([1.0, 0.79964, 0.03495, 1 / 1024], abs=6e-6)


def test_the_softmax_scale_grows_with_the_long_window_as_published() -> None:
    rope = WindowRope()
    found = [rope.softmax_scale(blocks * 128) for blocks in (3, 7, 11, 13)]
    assert found == pytest.approx([0.1, 0.116946, 0.127518, 0.131778], abs=5e-7)
    assert rope.softmax_scale(20 * 128) == rope.softmax_scale(13 * 128)  # scoring looks further and stretches nothing


def test_frequencies_stretch_by_the_formula() -> None:
    rope, device = WindowRope(), torch.device("cpu")
    f = EndpointRope().frequencies(128, 2048, None, device).double()
    for before, after in ((3, 7), (7, 11), (11, 13)):
        w0, w1 = 128 * before, 128 * after
        for j in range(32):
            rotations = w0 * f[j].item() / (2 * math.pi)
            u = min(1.0, max(0.0, (rotations - 1) / 31))
            f[j] = f[j] * (w0 / w1 + u * (1 - w0 / w1))
        torch.testing.assert_close(rope.frequencies(128, 2048, w1, device).double(), f, rtol=1e-5, atol=0)
    assert torch.equal(rope.frequencies(128, 2048, 384, device), EndpointRope().frequencies(128, 2048, None, device))


def test_windows_of_training_must_grow() -> None:
    with pytest.raises(ConfigError, match="must grow"):
        WindowRope(windows=(896, 384)).frozen()


# ------------------------------------------------------------------------------------------------- heads


def test_recorded_pairs_are_a_plain_reshape() -> None:
    """Slot 2t holds heads 0, 1, 2 of token t and slot 2t + 1 heads 3, 4, 5."""
    x = torch.arange(2 * 6).view(1, 2, 6, 1)
    assert RecordedPairs().spread(x).flatten().tolist() == x.flatten().tolist()
    assert RecordedPairs().spread(x)[0, :, :, 0].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]


def test_adjacent_pairs_are_neighbours() -> None:
    x = torch.arange(2 * 6).view(1, 2, 6, 1)
    assert AdjacentPairs().spread(x)[0, :, :, 0].tolist() == [[0, 2, 4], [1, 3, 5], [6, 8, 10], [7, 9, 11]]


@pytest.mark.parametrize("pairs", [RecordedPairs(), AdjacentPairs()], ids=["recorded", "adjacent"])
def test_merging_undoes_spreading(pairs: HeadPairs) -> None:
    x = normal(1, 5, 6, 4)
    assert torch.equal(pairs.merge(pairs.spread(x)), x)


def test_pairs_need_an_even_number_of_heads_with_keys_of_their_own() -> None:
    with pytest.raises(ConfigError, match="even number of heads"):
        Attention(num_heads=4, num_kv_heads=2, pairs=AdjacentPairs()).frozen()


@pytest.mark.parametrize(("config", "own"), [(IsolatedKeyOffset(), (0, 5, 9)), (CrossingKeyOffset(), (0,))])
def test_unrotated_halves_of_keys_come_from_the_token_before(config: IsolatedKeyOffset, own: tuple[int, ...]) -> None:
    tokens, k = documents(), normal(1, 12, 2, 8)
    found = config(k, 4, packed_context(tokens, BOS, 16))
    wanted = k.clone()
    wanted[:, 1:, :, 4:] = k[:, :-1, :, 4:]
    wanted[:, list(own)] = k[:, list(own)]
    assert torch.equal(found, wanted)


# ------------------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize("window", [0, 1, 3, 11, 50])
@pytest.mark.parametrize("packed", [False, True])
def test_a_window_is_the_token_itself_and_so_many_before(window: int, packed: bool) -> None:
    q, k, v = (normal(1, 12, 2, 4, seed=seed).double() for seed in range(3))
    tokens = documents()
    context = packed_context(tokens, BOS, 12) if packed else row_context(tokens, BOS)
    found = attention(q, k, v, context.cu_seqlens, context.max_seqlen, window)
    for i in range(12):
        first = max(j for j in ((0, 5, 9) if packed else (0,)) if j <= i)
        seen = slice(max(first, i - window), i + 1)
        scores = torch.einsum("hd,jhd->hj", q[0, i], k[0, seen]) / 2.0
        wanted = torch.einsum("hj,jhd->hd", scores.softmax(-1), v[0, seen])
        torch.testing.assert_close(found[0, i], wanted)


def test_rows_of_a_batch_share_a_window() -> None:
    q, k, v = (normal(3, 10, 2, 4, seed=seed) for seed in range(3))
    together = attention(q, k, v, window=2)
    alone = torch.cat([packed_attention_ref(q[i : i + 1], k[i : i + 1], v[i : i + 1], None, 2) for i in range(3)])
    torch.testing.assert_close(together, alone)


def test_phase_windows_replace_those_of_the_model() -> None:
    from support import busy, random_tokens, tiny_config
    from underpar.nn.windows import Windows

    config = tiny_config()
    windows = Windows(short=3, long=9, long_layers=TheseLayers(layers=(1,)))
    config.attention = Attention(num_heads=4, num_kv_heads=2, windows=windows)
    model, tokens = busy(config.frozen()), random_tokens(1, 30)
    context = row_context(tokens, BOS)
    with torch.no_grad():
        own = model(tokens, tokens, context)
        same = model(tokens, tokens, context, Phase(windows=WindowSizes(3, 9)))
        other = model(tokens, tokens, context, Phase(windows=WindowSizes(5, 9)))
    assert torch.equal(own, same)
    assert torch.equal(own[0, :4], other[0, :4])  # nothing lies beyond the shorter window yet
    assert not torch.equal(own[0, 5:], other[0, 5:])


# ------------------------------------------------------------------------------------------------- losses


def test_caps_by_hand() -> None:
    z = torch.tensor([-40.0, -5.0, 0.0, 15.0, 60.0])
    torch.testing.assert_close(SigmoidCap()(z), 23 / (1 + torch.exp(-(z + 5) / 7.5)))
    torch.testing.assert_close(RationalCap()(z), 15 * z / torch.sqrt(z**2 + 225))


def test_later_targets_weigh_what_they_are_given_and_end_with_the_row() -> None:
    logits, targets = normal(2, 5, 7).double(), torch.tensor([[1, 4, 2, 0, 6], [3, 3, 5, 1, 2]])
    weights = torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64)
    found = multi_target_losses(logits, targets, weights)
    log_p = logits.log_softmax(-1)
    for row in range(2):
        for t in range(5):
            wanted = -sum(weights[k] * log_p[row, t, targets[row, t + k]] for k in range(3) if t + k < 5)
            assert found[row, t].item() == pytest.approx(float(wanted))


def test_one_target_of_weight_one_is_the_plain_loss() -> None:
    logits, targets = normal(2, 5, 7), torch.tensor([[1, 4, 2, 0, 6], [3, 3, 5, 1, 2]])
    plain = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(2, 5)
    torch.testing.assert_close(multi_target_losses(logits, targets, torch.ones(1)), plain)


def test_more_targets_than_the_row_has_are_left_out() -> None:
    logits, targets = normal(1, 2, 7), torch.tensor([[1, 4]])
    assert torch.isfinite(multi_target_losses(logits, targets, torch.ones(5))).all()


def test_heads_agree_on_several_targets() -> None:
    """The fused loss of the split head against the plain one of any head."""
    from underpar.nn.embeddings import Embedding, Fp8SplitHead, SplitHead

    table = Embedding(init_std=0.5, param_dtype="float32").build(30, 16)
    hidden, targets = normal(2, 6, 16), torch.arange(12).view(2, 6)
    weights = torch.tensor([1.0, 0.5, 0.1])
    heads = [config.build(table, 30, 16) for config in (SplitHead(), Fp8SplitHead())]
    wanted = multi_target_losses(heads[0].logits(hidden), targets, weights)
    for head in heads:
        torch.testing.assert_close(head.losses(hidden, targets, target_weights=weights), wanted)


# ------------------------------------------------------------------------------------------------- the published layout


ORDER = torch.tensor([*range(0, 64, 2), *range(1, 64, 2), *range(64, 128)])
"""Where a dimension of ours lies in a published head: neighbours there are halves here."""


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """x (T, H, 128), angles (T, H, 32): the published rotation of neighbouring dimensions, the last 64 left alone."""
    c, s = angles.cos(), angles.sin()
    first, second = x[..., 0:64:2], x[..., 1:64:2]
    out = x.clone()
    out[..., 0:64:2], out[..., 1:64:2] = c * first + s * second, c * second - s * first
    return out


def normed(x: Tensor) -> Tensor:
    return torch.nn.functional.rms_norm(x, (128,), eps=EPS)


def test_turning_halves_is_turning_neighbours_in_another_order() -> None:
    q, k, positions = normal(1, 9, 6, 128), normal(1, 9, 6, 128, seed=1), torch.arange(9)
    cos, sin = EndpointRope().tables(positions, 128, 2048)
    found, _ = qk_norm_rope(q[..., ORDER], k[..., ORDER], torch.ones(6), cos, sin, eps=EPS)
    angles = positions[:, None, None] * EndpointRope().frequencies(128, 2048, None, torch.device("cpu"))
    wanted = turned(normed(q[0]), angles.expand(9, 6, 32))
    torch.testing.assert_close(found[0], wanted[..., ORDER], rtol=1e-4, atol=1e-5)


def test_paired_heads_are_the_published_stream() -> None:
    """Phases alternate with the head's number, slots with the halves of the heads: the record's swapped pair included."""
    rope, length = EndpointRope(), 7
    q, k = normal(1, length, 6, 128), normal(1, length, 6, 128, seed=1)
    f = rope.frequencies(128, 2048, None, torch.device("cpu"))
    slots = 2 * torch.arange(length)[:, None] + torch.tensor([0, 1, 0, 1, 0, 1])
    wanted = turned(normed(q[0]), slots[..., None] * f).reshape(2 * length, 3, 128)
    tables = (t.view(length, 2, -1) for t in rope.tables(torch.arange(2 * length), 128, 2048))
    ours, _ = qk_norm_rope(q[..., ORDER], k[..., ORDER], torch.ones(6), *tables, eps=EPS)
    found = RecordedPairs().spread(ours)[0]
    torch.testing.assert_close(found, wanted[..., ORDER], rtol=1e-4, atol=1e-5)
