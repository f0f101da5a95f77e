"""The text on which packing measures what every weight reads: training text, or text of the model's own."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from underpar.core.config import Config, NonNegativeInt, PositiveFloat, Range, config
from underpar.core.errors import ConfigError, DataError
from underpar.data.context import Context, packed_context, row_context
from underpar.data.loaders import Loader, TokenStream
from underpar.model.gpt import GPT
from underpar.model.sample import STEP, sample


@dataclass(frozen=True, eq=False)
class Subject:
    """The model that is calibrated, and how it was trained."""

    model: GPT
    data: Path
    loader: Loader
    bos_id: int
    vocab_size: int
    """Ids below it are tokens; the model's own vocabulary may be padded."""

    def shaped(self, rows: Tensor) -> tuple[Tensor, Context]:
        """(n, t) int64 rows on the CPU, which do not follow each other -> inputs and context as in training."""
        if not self.loader.is_packed:
            return rows, row_context(rows, self.bos_id)
        inputs = rows.reshape(1, -1)
        return inputs, packed_context(inputs, self.bos_id, self.loader.seq_len, span_tokens=rows.shape[1])


class CalibrationText(Config):
    """Where the tokens come from."""

    def check_loader(self, loader: Loader) -> None:
        """Raises ConfigError where a model trained by `loader` would not know such text."""

    def rehearse(self, subject: Subject, batch_tokens: int) -> None:
        """Have the device build the kernels that `spans` will need, without reading any text."""

    def spans(self, subject: Subject, tokens: int, span_tokens: int, batch_tokens: int) -> Iterator[Tensor]:
        """About `tokens` tokens in all, at least one span: each (span_tokens + 1,) int64 on the CPU, the last one a target.

        batch_tokens: of a forward pass; no influence beyond rounding.
        """
        raise NotImplementedError


@config
class TrainingText(CalibrationText):
    """Stretches at even distances from the training shards. Its seconds are training time. Source: golf PR #1530 line."""

    def spans(self, subject: Subject, tokens: int, span_tokens: int, batch_tokens: int) -> Iterator[Tensor]:
        """Raises DataError when the training split has fewer tokens than a span."""
        stream = TokenStream(subject.data)
        if stream.total_tokens <= span_tokens:
            raise DataError(
                f"{subject.data} has {stream.total_tokens:,} training tokens, calibration wants more than {span_tokens:,}"
            )
        count = max(1, min(tokens, stream.total_tokens - 1) // span_tokens)
        for index in range(count):
            start = index * ((stream.total_tokens - span_tokens - 1) // count)
            yield torch.from_numpy(stream.read(start, span_tokens + 1).astype("int64"))


@config
class GeneratedText(CalibrationText):
    """Documents that the model writes itself: no training text is needed. Deterministic for a seed.

    At temperature 1 the squared derivatives that calibration sums are, in expectation, the Fisher information. Cost: about
    document_tokens / 2 forward passes over the text, see `model.sample`. Source of the idea: golf PR #1019.
    """

    document_tokens: Annotated[int, Range(at_least=2, at_most=65_536)] = 128
    """Length at which a document is cut off. Nothing farther apart is seen together."""
    temperature: PositiveFloat = 1.0
    """What logits are divided by: below 1 the text is more of what is likely."""
    seed: NonNegativeInt = 0

    def check_loader(self, loader: Loader) -> None:
        if not loader.is_packed and self.document_tokens > loader.seq_len:
            raise ConfigError(
                f"pack.calibration.document_tokens = {self.document_tokens}, but training has rows of {loader.seq_len} tokens; "
                "generate no longer documents"
            )

    def rehearse(self, subject: Subject, batch_tokens: int) -> None:
        """One pass of every length."""
        device, longest = str(subject.model.embedding.weight.device), -(-self.document_tokens // STEP) * STEP
        rows = max(1, batch_tokens // longest)
        for length in range(STEP, longest + 1, STEP):
            inputs, context = subject.shaped(torch.full((rows, length), subject.bos_id))
            with torch.no_grad():
                subject.model.hidden(inputs.to(device), context.to(device))

    def spans(self, subject: Subject, tokens: int, span_tokens: int, batch_tokens: int) -> Iterator[Tensor]:
        count = max(1, tokens // span_tokens)
        documents = -(-(count * span_tokens + 1) // self.document_tokens)
        generator = torch.Generator().manual_seed(self.seed)
        draws = torch.rand(documents, self.document_tokens - 1, generator=generator, dtype=torch.float64)
        text = sample(
            subject.model, draws, subject.shaped, bos_id=subject.bos_id, vocab_size=subject.vocab_size,
            temperature=self.temperature, batch_tokens=batch_tokens,
        ).flatten()  # fmt: skip
        for start in range(0, count * span_tokens, span_tokens):
            yield text[start : start + span_tokens + 1]
