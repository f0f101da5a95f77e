"""Test-time training on a CUDA device: compiled and uncompiled agree, nothing compiles late, the host waits for nobody."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from ttt_jobs import documents, phased, small_model, small_stream

from support import BOS
from underpar.core.world import World
from underpar.evaluate.adapted import Parts
from underpar.evaluate.document_ttt import Book, DocumentTrainer
from underpar.evaluate.queue import documents_of
from underpar.evaluate.scorers import adaptive_scorer
from underpar.model.compiled import compile_model, graphs_compiled

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
CUDA = World(device="cuda:0")


@pytest.fixture
def allowed_waits() -> Iterator[None]:
    """Whatever the test forbids is allowed again at its end."""
    yield
    torch.cuda.set_sync_debug_mode("default")


def test_compiled_equals_uncompiled() -> None:
    """float32 on both sides; TF32 is off by default."""
    stream, adaptation = small_stream(), phased()
    model = small_model().cuda()
    plain = adaptive_scorer(adaptation, model, bos_id=BOS, world=CUDA).charge(stream).nats
    scorer = adaptive_scorer(
        adaptation, model, bos_id=BOS, world=CUDA, compiler=compile_model, plain=compile_model(model)
    )
    first = scorer.charge(stream)
    graphs = graphs_compiled()
    again = scorer.charge(stream)
    assert graphs_compiled() == graphs
    np.testing.assert_allclose(first.nats, plain, rtol=0, atol=1e-3)
    np.testing.assert_allclose(first.nats, again.nats, rtol=0, atol=1e-3)


def test_the_host_waits_for_the_device_nowhere_in_a_step(allowed_waits: None) -> None:
    stream, model = small_stream(), small_model().cuda().requires_grad_(False)
    trainer = DocumentTrainer(documents(), model, Parts(BOS, CUDA, None, model))
    trainer.prepare()
    book = Book(stream.tokens, CUDA.device)
    every = documents_of(stream.document_starts, book.targets)
    torch.cuda.set_sync_debug_mode("error")
    assert trainer.run(every, book)
    torch.cuda.set_sync_debug_mode("default")
    assert (book.counts == 1).all()
    assert (book.nats() > 0).all()
