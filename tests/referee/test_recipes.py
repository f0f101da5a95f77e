"""The models of the house's own recipes, made small, are valid predictors through the windows that score them."""

import numpy as np
import pytest
import torch

from underpar.data.sample import sample_documents
from underpar.data.tokenizer_base import ByteTokenizer
from underpar.model.gpt import GPT
from underpar.recipes import registry
from underpar.referee.plan import Plan
from underpar.referee.verdict import Ruling
from underpar.referee.windowed import WindowedPredictor

from .attacks.judging import failed, judged

TINY = (
    "data.tokenizer=Bytes", "model.vocab_size=260", "model.model_dim=32", "model.attention.num_heads=2",
    "model.attention.num_kv_heads=1", "evaluate.window.context=64",
)  # fmt: skip
SCORED = (
    "quickstart", "golf/baseline", "golf/pr122", "golf/packed", "golf/lanes", "golf/pr1736", "golf/pr1855",
    "golf/learned_recurrence", "golf/value_embedding", "golf/attention_out_gate", "golf/query_gate", "golf/bigram_hash",
    "golf/bigram_product_hash", "golf/early_smear", "golf/early_smear_after_norm",
)  # fmt: skip
"""Every window, and every component that looks at another token in a way of its own."""
PLAN = Plan(
    segment_tokens=130, flip_trials=4, canaries=("uniform",), canary_tokens=300, sweep_positions=4, sweep_ids=260, swaps=1,
    boundaries=2, warm_up=True, world=2, whole_stream=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def text() -> np.ndarray:
    tokenizer = ByteTokenizer()
    parts = [np.append([tokenizer.bos_id], tokenizer.encode_ids(d.text[:50])) for d in sample_documents("val")][:8]
    return np.concatenate(parts).astype(np.uint16)


def lively(model: GPT) -> GPT:
    """Every parameter off its start, so that no branch is nothing because its weights are zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for param in model.parameters():
            param.add_((0.1 * torch.randn(param.shape, generator=generator)).to(param.dtype))
    model.compute_dtype = torch.float32
    return model.float().eval()


@pytest.mark.parametrize("name", SCORED)
def test_a_recipe_is_a_valid_predictor(name: str, text: np.ndarray) -> None:
    window = registry.resolve(name).config.evaluate.window
    stride = ("evaluate.window.stride=32",) if hasattr(window, "stride") else ()
    resolved = registry.resolve(name, overrides=[*TINY, *stride]).config
    torch.manual_seed(3)
    model = lively(resolved.model.build())
    box = WindowedPredictor(model, resolved.evaluate.window, 260, ByteTokenizer().bos_id, batch_tokens=2048)
    verdict = judged(box, text, plan=PLAN)
    assert failed(verdict) == {}, verdict.reason
    assert verdict.ruling is Ruling.VALID
    assert {c.id for c in verdict.checks if c.passed} >= {"causality.flip", "causality.order", "normalisation.sweep"}
