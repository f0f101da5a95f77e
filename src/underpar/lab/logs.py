"""The human log of a run, in the lines that the field's tools already parse."""

from pathlib import Path
from typing import Any

from underpar.core.budget import Budget
from underpar.evaluate.windows import Sliding, Window
from underpar.recipes.base import Packing
from underpar.records import logs
from underpar.train.events import Event


class PublishedLog:
    """A sink that writes training events as published log lines, appending on resume."""

    def __init__(
        self, path: Path, *, seed: int, budget: Budget, warmup_steps: int, micro_batches: int, resume: bool
    ) -> None:
        self._path, self._seed, self._budget = path, seed, budget
        self._warmup_steps, self._micro_batches = warmup_steps, micro_batches
        if not resume:
            path.write_text("")

    def _write(self, *lines: logs.LogLine) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)

    @property
    def _total(self) -> int:
        return self._budget.train_steps or 0

    def log(self, event: Event) -> None:
        handler = getattr(self, f"_{event['event']}", None)
        if handler:
            handler(event)

    def _start(self, event: Event) -> None:
        self._write(
            logs.ModelParams(event["params"]),
            logs.WorldSize(event["world_size"], self._micro_batches),
            logs.BatchShape(
                event["batch_tokens"],
                event["seq_len"],
                self._total,
                self._warmup_steps,
                self._budget.train_seconds or 0.0,
            ),
            logs.Seed(self._seed),
        )
        reserve, cap = self._budget.calibration_seconds, self._budget.train_seconds
        if reserve and cap is not None:
            self._write(logs.Reserve(reserve, round((cap - reserve) * 1e3)))

    def _step(self, event: Event) -> None:
        milliseconds = event["train_seconds"] * 1e3
        self._write(
            logs.TrainStep(
                event["step"], self._total, event["loss_nats"], round(milliseconds), milliseconds / event["step"]
            )
        )

    def _validation(self, event: Event) -> None:
        milliseconds = event["train_seconds"] * 1e3
        self._write(
            logs.Validation(
                event["step"],
                self._total,
                event["loss_nats"],
                event["bpb"],
                round(milliseconds),
                milliseconds / event["step"],
            )
        )

    def _stop(self, event: Event) -> None:
        if event["reason"] == "train_seconds":
            self._write(logs.StopAtCap(round(event["train_seconds"] * 1e3), event["step"], self._total))

    def close(self) -> None:
        """Nothing is held open."""


def append_memory(path: Path, allocated_bytes: int, reserved_bytes: int) -> None:
    """The device-memory line."""
    _append(path, (logs.PeakMemory(allocated_bytes >> 20, reserved_bytes >> 20),))


def append_sizes(path: Path, info: dict[str, Any], packing: Packing) -> None:
    """The size lines, from the packer's figures."""
    label = f"{packing.quantiser.label}+{packing.codec.name}"
    lines: tuple[logs.LogLine, ...] = (
        logs.SerializedModel(label, info["container_bytes"]),
        logs.CodeSize(info["code_bytes"]),
        logs.TotalSize(label, info["artifact_bytes"]),
    )
    if info["hessians"]:
        lines = (logs.Calibrated(info["hessians"], info["calibration_seconds"]), *lines)
    _append(path, lines)


def append_score(path: Path, score: dict[str, Any], window: Window, packing: Packing) -> None:
    """The final score lines of the packed and re-loaded model."""
    loss, bpb, milliseconds = score["loss_nats"], score["bpb"], round(score["eval_seconds"] * 1e3)
    tag = f"{packing.quantiser.label}_{packing.codec.name}"
    if score.get("adaptation"):
        before = score["before_adaptation"]
        own_milliseconds = round(before["eval_seconds"] * 1e3)
        _append(path, (logs.FinalRoundtrip(tag, before["loss_nats"], before["bpb"], own_milliseconds),))
        tag += "_ttt"
    final: tuple[logs.LogLine, ...] = (
        logs.FinalRoundtrip(tag, loss, bpb, milliseconds),
        logs.FinalRoundtripExact(tag, loss, bpb),
    )
    if isinstance(window, Sliding) and not score.get("adaptation"):
        final = (
            logs.FinalSliding(window.stride, loss, bpb, milliseconds),
            logs.FinalSlidingExact(window.stride, loss, bpb),
        )
    _append(path, (logs.ValTokens("fineweb_val_*.bin", score["tokens"]), *final))


def _append(path: Path, lines: tuple[logs.LogLine, ...]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
