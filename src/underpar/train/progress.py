"""Progress on the terminal: a live bar for people, plain lines for files and pipes."""

import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from underpar.core.budget import Budget
from underpar.core.units import format_count, format_seconds
from underpar.optim.schedules import Progress as RunProgress
from underpar.optim.schedules import fraction_done, remaining_steps
from underpar.train.events import Event


class ConsoleProgress:
    """Shows step, loss, tokens per second, time left and the used share of the budget, on stderr."""

    def __init__(self, budget: Budget, name: str) -> None:
        self.budget, self.name = budget, name
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._first: tuple[int, float] | None = None
        self._last_line = 0.0

    def log(self, event: Event) -> None:
        handler = getattr(self, f"_{event['event']}", None)
        if handler:
            handler(event)

    def _start(self, event: Event) -> None:
        first, most = event["batch_tokens"], event["most_batch_tokens"]
        tokens = f"{first:,}" if first == most else f"{first:,} to {most:,}"
        self._say(
            f"{self.name}: {format_count(event['params'])} parameters, {tokens} tokens a step, "
            f"{event['world_size']} process(es) on {event['device']}"
        )
        if event["compile_seconds"]:
            self._say(f"compiled in {format_seconds(event['compile_seconds'])}")
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(bar_width=28), TextColumn("{task.fields[note]}"),
                console=self._console, transient=True,
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task("training", total=1.0, note="")

    def _step(self, event: Event) -> None:
        if self._first is None:
            self._first = (event["tokens"], event["train_seconds"])
        now = RunProgress(event["step"], event["tokens"], event["train_seconds"])
        done = fraction_done(now, self.budget)
        left = remaining_steps(now, self.budget) * now.seconds / now.step
        speed = now.tokens / now.seconds if now.seconds else 0.0
        of = f" (of {event['targets']} targets)" if event["targets"] > 1 else ""
        note = (
            f"step {now.step:,}  loss {event['loss_nats']:.4f}{of}  {format_count(speed)} tok/s  "
            f"{done:4.0%} of budget  {format_seconds(left)} left"
        )
        if self._bar:
            self._bar.update(self._task, completed=done, note=note)
        elif now.seconds - self._last_line >= 10 or now.step == 1:
            self._last_line = now.seconds
            self._say(note)

    def _validation(self, event: Event) -> None:
        weights = f"  ({event['weights']} weights)" if event["weights"] != "raw" else ""
        self._say(f"step {event['step']:,}  validation {event['loss_nats']:.4f} nats  {event['bpb']:.4f} bpb{weights}")

    def _recompilation(self, event: Event) -> None:
        self._say(f"warning: step {event['step']:,} compiled {event['graphs']} graph(s) while the clock ran")

    def _checkpoint(self, event: Event) -> None:
        self._say(f"step {event['step']:,}  checkpoint {event['path']}")

    def _stop(self, event: Event) -> None:
        self._say(
            f"stopped at step {event['step']:,} after {format_seconds(event['train_seconds'])}: {event['reason']}"
        )

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def close(self) -> None:
        if self._bar:
            self._bar.stop()
