"""Twenty losses of a small model of the baseline's shape: a refactor must not move them.

After a change that is meant to move them: python tests/golden/test_golden_losses.py, and say why in the commit.
"""

import json
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pytest
import torch

from support import BOS, document_tokens, write_train_shards
from underpar.core.world import World
from underpar.data.loaders import StepLoader
from underpar.recipes import registry
from underpar.train.events import Sinks
from underpar.train.loop import Trainer

GOLDEN = Path(__file__).with_name("losses.json")
STEPS = 20
OVERRIDES = (
    "model.vocab_size=320", "model.model_dim=32", "model.num_layers=9", "data.tokenizer.vocab_size=320",
    "data.loader=SequentialRows(batch_tokens=1024, seq_len=64, spans=8)", "train.micro_batch_tokens=512",
    "train.warmup_steps=1", "train.log_every_steps=1", f"budget.train_steps={STEPS}", "budget.train_seconds=None",
    "schedule.learning_rate.steps=10", "schedule.momentum.steps=15",
)  # fmt: skip
"""The baseline, made small: nine layers, skips, grouped queries, tied bfloat16 embedding, Muon and Adam, both schedules."""


class Losses:
    def __init__(self) -> None:
        self.found: list[float] = []

    def log(self, event: dict[str, float]) -> None:
        if event["event"] == "step":
            self.found.append(event["loss_nats"])

    def close(self) -> None:
        pass


def train(folder: Path) -> list[float]:
    write_train_shards(folder / "data", *(document_tokens(9_000, vocab_size=320, seed=s) for s in (3, 4)))
    config = registry.resolve("golf/baseline", overrides=OVERRIDES).config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = config.model.build()
    world, losses = World(), Losses()
    loader = StepLoader(
        folder / "data", config.data.loader, BOS, world, micro_batch_tokens=config.train.micro_batch_tokens
    )
    Trainer(
        model=model, optimisers=config.optim.build(model, world), schedule=config.schedule, budget=config.budget,
        loader=loader, training=config.train, world=world, folder=folder / "checkpoints", fingerprint="golden",
        sinks=Sinks(required=[losses]),
    ).run()  # fmt: skip
    return losses.found


def test_losses_are_the_golden_ones(tmp_path: Path) -> None:
    """Within 2e-3: libraries add in another order on other processors, and a bfloat16 embedding amplifies that."""
    golden = json.loads(GOLDEN.read_text())
    found = train(tmp_path)
    assert len(found) == len(golden["losses"]) == STEPS
    assert found == pytest.approx(golden["losses"], abs=2e-3)


def test_the_golden_run_learns() -> None:
    losses = json.loads(GOLDEN.read_text())["losses"]
    assert losses[-1] < losses[0] - 0.3


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        GOLDEN.write_text(json.dumps({"overrides": OVERRIDES, "losses": train(Path(place))}, indent=1) + "\n")
    print(f"wrote {GOLDEN}")
