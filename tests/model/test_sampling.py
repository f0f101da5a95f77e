"""Documents of a model's own: the distribution it predicts, whatever the batch; and what may stand beside them."""

import pytest
import torch
from torch import Tensor

from support import BOS, VOCAB, busy, tiny_config
from underpar.data.context import Context, packed_context, row_context
from underpar.model.gpt import GPT
from underpar.model.sample import sample
from underpar.nn.lookback import SmearGate

TOKENS = 40
"""Of a document: two of the lengths that passes are rounded up to."""


@pytest.fixture(scope="module")
def model() -> GPT:
    config = tiny_config()
    config.smear = SmearGate(width=12)
    return busy(config.frozen())


def draws(count: int, length: int, seed: int = 0) -> Tensor:
    return torch.rand(count, length - 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense(rows: Tensor) -> tuple[Tensor, Context]:
    return rows, row_context(rows, BOS)


def packed(rows: Tensor) -> tuple[Tensor, Context]:
    inputs = rows.reshape(1, -1)
    return inputs, packed_context(inputs, BOS, TOKENS, span_tokens=rows.shape[1])


def written(model: GPT, wanted: Tensor, context: object = dense, **changed: float) -> Tensor:
    options = {"bos_id": BOS, "vocab_size": VOCAB, "temperature": 1.0, "batch_tokens": 256} | changed
    return sample(model, wanted, context, **options)  # type: ignore[arg-type]


@torch.no_grad()
def one_by_one(model: GPT, wanted: Tensor, temperature: float, *, restarts: bool) -> list[int]:
    """The same document alone: the whole distribution of each next token, from exactly what there is so far."""
    tokens = [BOS]
    for draw in wanted.tolist():
        begin = max(i for i, token in enumerate(tokens) if token == BOS) if restarts else 0
        sofar = torch.tensor([tokens[begin:]])
        logits = model.logits(sofar, row_context(sofar, BOS))[0, -1].double() / temperature
        tokens.append(int((torch.softmax(logits, -1).cumsum(-1) > draw).nonzero()[0]))
    return tokens


@pytest.mark.parametrize("context", [dense, packed])
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_each_token_is_drawn_from_what_the_model_predicts_behind_those_before(
    model: GPT, context: object, temperature: float
) -> None:
    wanted = draws(8, TOKENS)
    rows = written(model, wanted, context, temperature=temperature)
    assert rows.shape == (8, TOKENS)
    assert (rows[:, 1:] == BOS).any()  # a document that ended within its row
    for row, numbers in zip(rows, wanted, strict=True):
        assert row.tolist() == one_by_one(model, numbers, temperature, restarts=context is packed)


@pytest.mark.parametrize("context", [dense, packed])
def test_batches_have_no_influence_and_draws_decide(model: GPT, context: object) -> None:
    rows = written(model, draws(8, TOKENS), context)
    assert torch.equal(rows, written(model, draws(8, TOKENS), context, batch_tokens=4096))
    assert torch.equal(rows[3:], written(model, draws(8, TOKENS)[3:], context))
    assert not torch.equal(rows, written(model, draws(8, TOKENS, seed=1), context))


def test_padded_ids_are_never_drawn(model: GPT) -> None:
    rows = written(model, draws(8, TOKENS), vocab_size=20)
    assert rows.max() < 20
    assert len(rows.unique()) > 10
