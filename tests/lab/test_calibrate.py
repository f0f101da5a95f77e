"""Calibration: sums over training text that equal those by hand, through the one forward."""

from pathlib import Path

import pytest
import torch

from support import BOS, VOCAB, busy, document_tokens, tiny_config, write_train_shards
from underpar.compress.precision import Gptq, IntRows
from underpar.compress.quantise import SdClip, quantise
from underpar.compress.rules import ByRule, Rule
from underpar.core.errors import ConfigError, DataError
from underpar.data.context import packed_context
from underpar.data.loaders import DocumentPacking, SequentialRows, TokenStream
from underpar.lab.calibrate import BATCH_TOKENS, calibrate
from underpar.model.gpt import GPT
from underpar.model.plan import Lanes, Recurrence, UNet
from underpar.nn.module import parameter_roles
from underpar.train.calibration import GeneratedText, Subject, TrainingText

LOADER = DocumentPacking(batch_tokens=1024, seq_len=128, spans=2)
TOKENS = 512
"""Of one pass, in these tests: the reference attention is quadratic in them."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_train_shards(folder, document_tokens(4000), document_tokens(2000, seed=1))
    return folder


@pytest.fixture(autouse=True)
def small_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BATCH_TOKENS, "cpu", TOKENS)


def model() -> GPT:
    config = tiny_config()
    config.num_layers = 4
    config.topology = UNet(recurrence=Recurrence(first=1, last=1, passes=2), lanes=Lanes(first=3))
    return busy(config.frozen())


def of(subject: GPT, data: Path) -> Subject:
    return Subject(subject, data, LOADER, BOS, VOCAB)


def test_sums_equal_those_of_hooks_on_the_same_text(data: Path) -> None:
    subject = model()
    found, _ = calibrate(of(subject, data), TrainingText(), TOKENS)
    piece = torch.from_numpy(TokenStream(data).read(0, TOKENS + 1).astype("int64"))
    inputs, targets = piece[None, :-1], piece[None, 1:]
    context = packed_context(inputs, BOS, 128)
    hidden = subject.hidden(inputs, context).detach()
    torch.testing.assert_close(found["embedding.weight"].gram, hidden[0].T @ hidden[0], rtol=1e-3, atol=1e-2)
    logits = subject.head.projection(hidden).detach().requires_grad_()
    capped = subject.head.softcap * torch.tanh(logits / subject.head.softcap)
    torch.nn.functional.cross_entropy(capped[0], targets[0], reduction="sum").backward()
    assert logits.grad is not None
    want = logits.grad[0].square().sum(0)
    assert found["embedding.weight"].output_gradient is not None
    torch.testing.assert_close(found["embedding.weight"].output_gradient, want, rtol=1e-3, atol=1e-3)


def test_every_matrix_is_seen_and_recurrent_layers_more_often(data: Path) -> None:
    subject = model()
    found, _ = calibrate(of(subject, data), TrainingText(), 2 * TOKENS + 1)
    roles = parameter_roles(subject)
    assert set(found) == {name for name, role in roles.items() if role in ("matrix", "embedding")}
    assert found["blocks.0.mlp.up.weight"].tokens == 2 * TOKENS
    assert found["blocks.1.mlp.up.weight"].tokens == 4 * TOKENS  # two passes
    for name, hessian in found.items():
        weight = dict(subject.named_parameters())[name]
        assert hessian.gram.shape == (weight.shape[1], weight.shape[1])
        assert torch.equal(hessian.gram, hessian.gram.T)
        assert hessian.output_gradient is not None
        assert hessian.output_gradient.shape == weight.shape[:1]
    assert all(param.grad is None for param in subject.parameters())


def test_gptq_with_these_hessians_loses_less_than_rounding(data: Path) -> None:
    subject = model()
    hessians, _ = calibrate(of(subject, data), TrainingText(), TOKENS)
    roles = parameter_roles(subject)
    tensors = {name: (param.detach(), roles[name]) for name, param in subject.named_parameters()}
    losses = {}
    for kind in (Gptq, IntRows):
        rules = (Rule(role="matrix", precision=kind(bits=3, clip=SdClip(sigmas=2.5))), Rule(precision=IntRows(bits=8)))
        encoded = quantise(tensors, ByRule(rules=rules).frozen(), hessians)
        total = 0.0
        for item in encoded:
            if item.name in hessians and "blocks" in item.name:
                codes, scales = item.parts["codes"].float(), item.parts["scales"].float()
                error = tensors[item.name][0] - codes * scales[:, None]
                total += float(((error @ hessians[item.name].gram) * error).sum()) / hessians[item.name].tokens
        losses[kind] = total
    assert losses[Gptq] < 0.9 * losses[IntRows]


def test_too_little_text_is_an_error(tmp_path: Path) -> None:
    write_train_shards(tmp_path, document_tokens(500))
    with pytest.raises(DataError, match="500 training tokens, calibration wants more than"):
        calibrate(of(model(), tmp_path), TrainingText(), 1000)


def test_generated_text_needs_no_shards_and_depends_on_the_seed_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = of(model(), tmp_path)  # an empty folder
    text, other_text = GeneratedText(document_tokens=16), GeneratedText(document_tokens=16, seed=1)
    found, seconds = calibrate(subject, text, 2 * TOKENS)
    assert seconds > 0
    assert found["blocks.0.mlp.up.weight"].tokens == 2 * TOKENS
    monkeypatch.setitem(BATCH_TOKENS, "cpu", 2 * TOKENS)
    again, _ = calibrate(subject, text, 2 * TOKENS)
    other, _ = calibrate(subject, other_text, 2 * TOKENS)
    for name, hessian in found.items():
        assert hessian.output_gradient is not None
        torch.testing.assert_close(again[name].gram, hessian.gram, rtol=1e-4, atol=1e-2)
        assert not torch.allclose(other[name].gram, hessian.gram, rtol=1e-2, atol=1e-1)


def test_spans_are_the_documents_end_to_end(tmp_path: Path) -> None:
    subject = of(model(), tmp_path)
    spans = list(GeneratedText(document_tokens=40).spans(subject, 250, 100, 512))
    assert [len(span) for span in spans] == [101, 101]
    assert spans[0][-1] == spans[1][0]
    text = torch.cat([spans[0][:-1], spans[1]])
    assert (text[::40] == BOS).all()
    assert text.max() < VOCAB


def test_every_shape_of_a_full_batch_is_rehearsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject, text = of(model(), tmp_path), GeneratedText(document_tokens=40)
    shapes: list[torch.Size] = []
    hidden = subject.model.hidden
    monkeypatch.setattr(
        subject.model, "hidden", lambda tokens, ctx: (shapes.append(tokens.shape), hidden(tokens, ctx))[1]
    )
    text.rehearse(subject, 512)
    rehearsed, count = set(shapes), len(shapes)
    list(text.spans(subject, 300, 100, 512))
    assert count == 2
    assert set(shapes[count:]) == rehearsed


def test_documents_longer_than_rows_are_refused() -> None:
    with pytest.raises(ConfigError, match="document_tokens = 128, but training has rows of 64 tokens"):
        GeneratedText().check_loader(SequentialRows(batch_tokens=512, seq_len=64))
    GeneratedText(document_tokens=256).check_loader(LOADER)  # packed: attention restarts anyway
