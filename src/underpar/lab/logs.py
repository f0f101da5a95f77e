"""The human log of a run, in the lines that the field's tools already parse."""

from pathlib import Path
from typing import Any, Self

from underpar.core.budget import Budget
from underpar.core.whole import write_whole
from underpar.core.world import World
from underpar.evaluate.windows import Sliding, Window
from underpar.recipes.base import Packing, Recipe
from underpar.records import logs
from underpar.train.events import Event

PACKED = (logs.Calibrated, logs.SerializedModel, logs.CodeSize, logs.TotalSize)
SCORED = (
    logs.ValTokens, logs.FinalRoundtrip, logs.FinalRoundtripExact, logs.FinalSliding, logs.FinalSlidingExact,
)  # fmt: skip


class PublishedLog:
    """A sink that writes training events as published log lines, appending on resume."""

    def __init__(
        self, path: Path, *, seed: int, budget: Budget, warmup_steps: int, micro_batches: int, resume: bool
    ) -> None:
        self._path, self._seed, self._budget = path, seed, budget
        self._warmup_steps, self._micro_batches = warmup_steps, micro_batches
        if not resume:
            path.write_text("")

    @classmethod
    def of(cls, config: Recipe, path: Path, world: World, *, resume: bool = False) -> Self:
        """The log of a recipe's run."""
        share = config.data.loader.batch_tokens // world.size
        return cls(
            path,
            seed=config.seed,
            budget=config.budget,
            warmup_steps=config.train.warmup_steps,
            micro_batches=-(-share // config.train.micro_batch_tokens),
            resume=resume,
        )

    def write(self, *lines: logs.LogLine) -> None:
        """Append lines."""
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
        self.write(
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
            self.write(logs.Reserve(reserve, round((cap - reserve) * 1e3)))

    def _step(self, event: Event) -> None:
        milliseconds = event["train_seconds"] * 1e3
        self.write(
            logs.TrainStep(
                event["step"], self._total, event["loss_nats"], round(milliseconds), milliseconds / event["step"]
            )
        )

    def _validation(self, event: Event) -> None:
        milliseconds = event["train_seconds"] * 1e3
        self.write(
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
            self.write(logs.StopAtCap(round(event["train_seconds"] * 1e3), event["step"], self._total))

    def close(self) -> None:
        """Nothing is held open."""


def append_memory(path: Path, allocated_bytes: int, reserved_bytes: int) -> None:
    """The device-memory line."""
    _replace(path, (), (memory_line(allocated_bytes, reserved_bytes),))


def append_sizes(path: Path, info: dict[str, Any], packing: Packing) -> None:
    """The size lines, from the packer's figures, instead of those of an earlier artifact."""
    lines = size_lines(info["container_bytes"], info["code_bytes"], packing)
    if info["hessians"]:
        lines = (calibration_line(info["hessians"], info["calibration_seconds"]), *lines)
    _replace(path, PACKED + SCORED, lines)


def append_score(path: Path, score: dict[str, Any], window: Window, packing: Packing) -> None:
    """The final score lines of the packed and re-loaded model, instead of those of an earlier scoring."""
    _replace(path, SCORED, score_lines(score, window, packing))


def memory_line(allocated_bytes: int, reserved_bytes: int) -> logs.LogLine:
    """Device memory of training."""
    return logs.PeakMemory(allocated_bytes >> 20, reserved_bytes >> 20)


def calibration_line(hessians: int, seconds: float) -> logs.LogLine:
    """The clock of calibration."""
    return logs.Calibrated(hessians, seconds)


def size_lines(container_bytes: int, code_bytes: int, packing: Packing) -> tuple[logs.LogLine, ...]:
    """Model, code, and both."""
    label = f"{packing.quantiser.label}+{packing.codec.name}"
    return (
        logs.SerializedModel(label, container_bytes),
        logs.CodeSize(code_bytes),
        logs.TotalSize(label, container_bytes + code_bytes),
    )


def score_lines(score: dict[str, Any], window: Window, packing: Packing) -> tuple[logs.LogLine, ...]:
    """What the packed and re-loaded model costs on the held-out text."""
    loss, bpb, milliseconds = score["loss_nats"], score["bpb"], round(score["eval_seconds"] * 1e3)
    tag = f"{packing.quantiser.label}_{packing.codec.name}"
    first: tuple[logs.LogLine, ...] = ()
    if score.get("adaptation"):
        before = score["before_adaptation"]
        own_milliseconds = round(before["eval_seconds"] * 1e3)
        first = (logs.FinalRoundtrip(tag, before["loss_nats"], before["bpb"], own_milliseconds),)
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
    return (*first, logs.ValTokens("fineweb_val_*.bin", score["tokens"]), *final)


def _replace(path: Path, kinds: tuple[type[logs.LogLine], ...], lines: tuple[logs.LogLine, ...]) -> None:
    """Append lines once those of these kinds are gone: a log tells of one artifact and one score."""
    old = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [line for line in old if not isinstance(logs.parse_line(line), kinds)]
    write_whole(path, "".join(f"{line}\n" for line in (*kept, *lines)))
