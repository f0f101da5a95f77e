"""Optional places to send events to. Each needs its package, which is imported only when the sink is asked for."""

from pathlib import Path
from typing import Any

from underpar.core.errors import ConfigError, suggest
from underpar.train.events import Event, Sink

_SKIPPED = frozenset({"event", "step"})


def _numbers(event: Event) -> dict[str, float]:
    return {k: float(v) for k, v in event.items() if k not in _SKIPPED and isinstance(v, int | float)}


class TensorBoard:
    """Scalars for TensorBoard, by step."""

    def __init__(self, folder: Path, name: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder / "tensorboard"))

    def log(self, event: Event) -> None:
        for key, value in _numbers(event).items():
            self._writer.add_scalar(f"{event['event']}/{key}", value, event.get("step", 0))

    def close(self) -> None:
        self._writer.close()


class _RunLogger:
    """Weights & Biases and Trackio share one interface: init, log, finish."""

    module: str

    def __init__(self, folder: Path, name: str) -> None:
        import importlib

        self._api: Any = importlib.import_module(self.module)
        self._api.init(project="underpar", name=name)

    def log(self, event: Event) -> None:
        numbers = _numbers(event)
        if numbers:
            self._api.log({f"{event['event']}/{k}": v for k, v in numbers.items()}, step=event.get("step"))

    def close(self) -> None:
        self._api.finish()


class WandB(_RunLogger):
    """Weights & Biases."""

    module = "wandb"


class Trackio(_RunLogger):
    """Trackio, local first."""

    module = "trackio"


SINKS: dict[str, Any] = {"tensorboard": TensorBoard, "wandb": WandB, "trackio": Trackio}


def open_sinks(names: list[str], folder: Path, run_name: str) -> list[Sink]:
    """Build sinks by name. Raises ConfigError for an unknown name or a package that is not installed."""
    opened: list[Sink] = []
    for name in names:
        if name not in SINKS:
            raise ConfigError(f"no sink '{name}'; {suggest(name, SINKS)}")
        try:
            opened.append(SINKS[name](folder, run_name))
        except ImportError as problem:
            raise ConfigError(f"sink '{name}' needs a package: pip install {name} ({problem})") from None
    return opened
