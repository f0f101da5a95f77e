"""The folder of one run, read: configuration, environment, and what each stage left there."""

import hashlib
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from underpar.core.errors import RecordError
from underpar.records.logs import RunLog, read_log

STAGES: dict[str, str] = {
    "config.json": "train",
    "environment.json": "train",
    "train.json": "train",
    "train.jsonl": "train",
    "train.log": "train",
    "artifact.upar": "pack",
    "artifact.json": "pack",
    "code.tar.xz": "pack",
    "score.json": "score",
    "documents.npz": "score",
    "baselines.json": "score",
    "verdict.json": "verify",
}
"""Every file that a run can hold, and the verb that writes it."""

FIELDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "config.json": (("seed",), ("recipe", "fingerprint", "config")),
    "train.json": (("steps", "tokens", "train_seconds", "params", "step_ms_median", "tokens_per_second"), ()),
    "artifact.json": (
        ("artifact_bytes", "container_bytes", "code_bytes", "payload_bytes"),
        ("sha256", "codec", "quantiser", "by_role", "by_tensor"),
    ),
    "score.json": (("bytes", "tokens", "bpb", "loss_nats", "eval_seconds"), ("window", "artifact_sha256")),
    "baselines.json": (("text_bytes",), ("compressors",)),
    "verdict.json": ((), ("verdict",)),
}
"""Of each file: the fields that must be numbers, and the others that must be there."""

JsonObject = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One run folder. Each property is the parsed file, or None where the stage has not been run."""

    folder: Path

    @cached_property
    def config(self) -> JsonObject:
        """config.json; every run has it. Raises RecordError."""
        return self.require("config.json")

    @cached_property
    def environment(self) -> JsonObject | None:
        return self._object("environment.json")

    @cached_property
    def train(self) -> JsonObject | None:
        return self._object("train.json")

    @cached_property
    def artifact(self) -> JsonObject | None:
        return self._object("artifact.json")

    @cached_property
    def score(self) -> JsonObject | None:
        return self._object("score.json")

    @cached_property
    def verdict(self) -> JsonObject | None:
        return self._object("verdict.json")

    @cached_property
    def baselines(self) -> JsonObject | None:
        return self._object("baselines.json")

    @cached_property
    def trace(self) -> JsonObject | None:
        return self._object("trace.json")

    @cached_property
    def effects(self) -> list[JsonObject]:
        """Of each changed setting, whether it made a difference: path, old, new, matters, why. Empty where nobody looked."""
        found = (self._object("effects.json") or {}).get("settings")
        return [e for e in found if isinstance(e, dict) and "path" in e] if isinstance(found, list) else []

    @cached_property
    def events(self) -> list[JsonObject]:
        """The events of train.jsonl; a line cut short by a kill is dropped, other damage raises RecordError."""
        path = self.folder / "train.jsonl"
        return list(_json_lines(path)) if path.is_file() else []

    @property
    def steps(self) -> list[JsonObject]:
        """Step events in order. A resumed run repeats steps after its checkpoint: the later one counts."""
        return _latest_by_step(e for e in self.events if e.get("event") == "step")

    @property
    def validations(self) -> list[JsonObject]:
        return _latest_by_step(e for e in self.events if e.get("event") == "validation")

    @cached_property
    def log(self) -> RunLog:
        return read_log(self.folder / "train.log")

    @cached_property
    def documents(self) -> dict[str, Sequence[float]] | None:
        """Columns `bits`, `bytes`, `tokens` over documents, as numpy arrays of equal length."""
        path = self.folder / "documents.npz"
        return _columns(path) if path.is_file() else None

    @property
    def name(self) -> str:
        return str(self.config["recipe"])

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def label(self) -> str:
        return f"seed {self.seed}"

    @property
    def budget(self) -> JsonObject:
        """The node of the configuration that holds the limits, {} when there is none."""
        return next((n for n in _nodes(self.config.get("config")) if n.get("type") == "Budget"), {})

    @property
    def science(self) -> Any:
        """The configuration tree without the seed: what runs of one record must share."""
        return without_seed(self.config.get("config"), self.seed)

    @property
    def fingerprint(self) -> str:
        return str(self.config["fingerprint"])

    def require(self, name: str) -> JsonObject:
        """The parsed JSON object of one file. Raises RecordError naming the command that writes it."""
        found = self._object(name)
        if found is None:
            raise RecordError(f"{self.folder}: no {name}; run 'underpar {STAGES[name]}' on it first")
        return found

    def require_file(self, name: str) -> Path:
        """The path of one file. Raises RecordError naming the command that writes it."""
        path = self.folder / name
        if not path.is_file():
            raise RecordError(f"{self.folder}: no {name}; run 'underpar {STAGES[name]}' on it first")
        return path

    def _object(self, name: str) -> JsonObject | None:
        path = self.folder / name
        if not path.is_file():
            return None
        data = read_json(path)
        numbers, others = FIELDS.get(name, ((), ()))
        for key in (*numbers, *others):
            if key not in data:
                raise RecordError(f"{path}: no '{key}'; rerun 'underpar {STAGES[name]}'")
        for key in numbers:
            if isinstance(data[key], bool) or not isinstance(data[key], int | float):
                raise RecordError(f"{path}: {key} is {data[key]!r}, not a number; rerun 'underpar {STAGES[name]}'")
        return data


def load_run(folder: Path) -> Run:
    """The run in `folder`. Raises RecordError when it is not a run folder or its config.json lacks a field."""
    run = Run(Path(folder))
    if not (run.folder / "config.json").is_file():
        raise RecordError(f"{folder}: not a run folder (no config.json); pass folders such as runs/<recipe>/seed<n>")
    run.require("config.json")
    return run


def load_runs(folders: Iterable[Path]) -> list[Run]:
    """Runs in order of seed. Raises RecordError for no folder or a folder given twice."""
    runs = [load_run(f) for f in folders]
    if not runs:
        raise RecordError("no run folders given; pass folders such as runs/<recipe>/seed<n>")
    places = [r.folder.resolve() for r in runs]
    for run, place in zip(runs, places, strict=True):
        if places.count(place) > 1:
            raise RecordError(f"{run.folder} is given twice; name each run once")
    return sorted(runs, key=lambda r: r.seed)


def read_json(path: Path) -> JsonObject:
    """One JSON object. Raises RecordError naming the file when it is not one."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (OSError, ValueError) as problem:
        raise RecordError(f"{path}: not JSON ({problem}); rerun the stage that writes it") from None
    if not isinstance(data, dict):
        raise RecordError(f"{path}: holds a {type(data).__name__}, not an object; rerun the stage that writes it")
    return data


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tree_fingerprint(tree: Any) -> str:
    """The fingerprint of a configuration tree in JSON form: the same 16 digits as `core.config.fingerprint`."""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def without_seed(tree: Any, seed: int) -> Any:
    """`tree` without the fields called `seed` that hold this run's seed."""
    if isinstance(tree, Mapping):
        return {k: without_seed(v, seed) for k, v in tree.items() if not (k == "seed" and v == seed)}
    return [without_seed(v, seed) for v in tree] if isinstance(tree, list) else tree


def first_difference(a: Any, b: Any, path: str = "") -> str | None:
    """The path of the first leaf where two JSON trees differ, with both values; None when equal."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            here = f"{path}.{key}" if path else key
            if key not in a or key not in b:
                return f"{here} is only in one"
            found = first_difference(a[key], b[key], here)
            if found:
                return found
        return None
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        found_all = (first_difference(x, y, f"{path}[{i}]") for i, (x, y) in enumerate(zip(a, b, strict=True)))
        return next((f for f in found_all if f), None)
    return None if a == b else f"{path}: {_short(a)} against {_short(b)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _nodes(tree: Any) -> Iterator[JsonObject]:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def _json_lines(path: Path) -> Iterator[JsonObject]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        # a killed run leaves half a line, and the resumed run writes its first event behind it
        for text in (line, line[max(0, line.rfind('{"event"')) :]):
            try:
                event = json.loads(text)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event
            break
        else:
            if number < len(lines):
                raise RecordError(f"{path}: line {number} is not JSON ({line[:40]!r}); the file is damaged")


def _latest_by_step(events: Iterable[JsonObject]) -> list[JsonObject]:
    latest: dict[int, JsonObject] = {}
    for event in events:
        latest[int(event["step"])] = event
    return [latest[step] for step in sorted(latest)]


def _columns(path: Path) -> dict[str, Sequence[float]]:
    import numpy as np

    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            columns = {name: archive[name] for name in ("bits", "bytes", "tokens")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as problem:
        raise RecordError(f"{path}: not a documents archive ({problem}); rerun 'underpar score'") from None
    if len({len(c) for c in columns.values()}) != 1:
        raise RecordError(f"{path}: bits, bytes and tokens differ in length; rerun 'underpar score'")
    return columns


_LAYER = re.compile(r"(?:^|\.)(\d+)\.([A-Za-z_]\w*)")


def layer_and_part(tensor: str) -> tuple[int | None, str]:
    """(layer index, part of the layer) of a tensor name: 'blocks.3.attn.q.weight' -> (3, 'attn')."""
    match = _LAYER.search(tensor)
    return (int(match[1]), match[2]) if match else (None, tensor.split(".", 1)[0])
