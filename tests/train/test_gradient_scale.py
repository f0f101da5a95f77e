"""The size of gradients is a setting; the loss that is reported is not."""

from pathlib import Path

import torch
from train_jobs import make_trainer

from underpar.optim.schedules import Progress
from underpar.train.training import GradientScale, MeanGradient, SummedGradient


def gradients(folder: Path, data: Path, scale: GradientScale) -> tuple[float, list[torch.Tensor]]:
    trainer = make_trainer(folder, data, gradient_scale=scale)
    settings = trainer.schedule.at(Progress(0, 0, 0.0), trainer.budget)
    loss = trainer.accumulate(trainer.loader.fetch(settings.shape), settings)
    trainer.loader.close()
    return float(loss), [p.grad.clone() for p in trainer.model.parameters() if p.grad is not None]


def test_sums_grow_with_the_batch_and_the_loss_stays_a_mean(tmp_path: Path, data: Path) -> None:
    mean_loss, means = gradients(tmp_path / "a", data, MeanGradient())
    loss, sums = gradients(tmp_path / "b", data, SummedGradient(shares=8))
    assert loss == mean_loss
    for mean, summed in zip(means, sums, strict=True):
        torch.testing.assert_close(summed, mean * (192 / 8), rtol=1e-4, atol=1e-6)
    assert (MeanGradient().divisor(192), SummedGradient().divisor(192)) == (192, 8)
