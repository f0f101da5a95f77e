"""Averaged weights: kept beside the loop, used wherever a number comes from, and gone again afterwards."""

from pathlib import Path
from typing import Any

import pytest
import torch
from train_jobs import AVERAGES, make_trainer, run_to_end, weights

from underpar.core.budget import Budget
from underpar.optim.averaging import SWA
from underpar.train.checkpoint import complete_checkpoints, load_checkpoint
from underpar.train.weights import averaged_weights, final_weights


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("average", ["ema", "swa"])
def test_averaging_never_touches_what_is_trained(tmp_path: Path, data: Path, average: str) -> None:
    plain, one = run_to_end(make_trainer(tmp_path / "a", data))
    averaged, two = run_to_end(make_trainer(tmp_path / "b", data, average=average, warmup_steps=2))
    assert equal(plain, averaged)
    assert one.losses() == two.losses()


@pytest.mark.parametrize("average", ["ema", "swa"])
def test_every_validation_sees_the_average_and_the_last_both(tmp_path: Path, data: Path, average: str) -> None:
    seen: list[dict[str, torch.Tensor]] = []

    def validate(model: Any) -> tuple[float, float]:
        seen.append({name: p.detach().clone() for name, p in model.named_parameters()})
        return 2.0 + len(seen), 1.0 + len(seen)

    trainer = make_trainer(tmp_path, data, average=average, validate=validate, validate_every_steps=5)
    last, memory = run_to_end(trainer)
    assert trainer.average is not None
    events = [e for e in memory.events if e["event"] == "validation"]
    assert [(e["step"], e["weights"], e["bpb"]) for e in events] == [
        (5, "averaged", 2.0), (10, "averaged", 3.0), (12, "raw", 4.0), (12, "averaged", 5.0),
    ]  # fmt: skip
    assert equal(seen[2], last)
    assert equal(seen[3], trainer.average.averaged())
    assert not equal(seen[3], last)


def test_the_result_has_both_numbers_and_says_which_counts(tmp_path: Path, data: Path) -> None:
    scores = iter([(2.5, 1.5), (2.25, 1.25)])
    result = make_trainer(tmp_path / "a", data, average="ema", validate=lambda _: next(scores)).run()
    assert result.validation == {"raw": {"loss_nats": 2.5, "bpb": 1.5}, "averaged": {"loss_nats": 2.25, "bpb": 1.25}}
    assert result.unquantised == {"loss_nats": 2.25, "bpb": 1.25}
    plain = make_trainer(tmp_path / "b", data, validate=lambda _: (2.0, 1.0)).run()
    assert plain.validation == {"raw": {"loss_nats": 2.0, "bpb": 1.0}}
    assert plain.unquantised == {"loss_nats": 2.0, "bpb": 1.0}
    assert make_trainer(tmp_path / "c", data).run().unquantised is None
    off = make_trainer(tmp_path / "d", data, validate=lambda _: (2.0, 1.0), validate_at_end=False).run()
    assert off.validation == {}


def test_a_failing_validation_leaves_the_trained_weights(tmp_path: Path, data: Path) -> None:
    trainer = make_trainer(tmp_path, data, average="ema")
    trainer.run()
    before = weights(trainer)

    def fail() -> None:
        with averaged_weights(trainer.model, trainer.average):
            assert not equal(weights(trainer), before)
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fail()
    assert equal(weights(trainer), before)


@pytest.mark.parametrize("average", ["ema", "swa"])
def test_a_checkpoint_alone_gives_the_average(tmp_path: Path, data: Path, average: str) -> None:
    trainer = make_trainer(tmp_path, data, average=average)
    trainer.run()
    assert trainer.average is not None
    checkpoint = load_checkpoint(complete_checkpoints(tmp_path / "checkpoints")[-1])
    found, which = final_weights(checkpoint, AVERAGES[average])
    assert which == "averaged"
    assert equal(found, trainer.average.averaged())
    raw, which = final_weights(checkpoint, None)
    assert which == "raw"
    assert equal(raw, weights(trainer))


def test_an_average_of_nothing_is_the_weights(tmp_path: Path, data: Path) -> None:
    trainer = make_trainer(tmp_path, data, average="swa", budget=Budget(train_steps=2))
    trainer.run()
    found, _ = final_weights(
        load_checkpoint(complete_checkpoints(tmp_path / "checkpoints")[-1]), SWA(start_below=0.01, every=1)
    )
    assert equal(found, weights(trainer))
