"""Did every setting that a run changed make a difference? One that was observed to make none is a silent no-op.

Two observations decide. A setting that nothing read cannot have mattered (`core.ledger`). A schedule is replayed over the
steps that the run really took, once as it was and once with the one setting as the reference has it: where no consumer was
ever given another value, the setting was read in vain. What this cannot see: a value that is read and then ignored.
"""

import copy
import dataclasses
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from underpar.core.config import Change, Config, default_of, diff, show
from underpar.core.errors import ConfigError
from underpar.core.ledger import ReadLedger
from underpar.core.recipe import Resolved
from underpar.core.world import World
from underpar.data.validation import ValStream
from underpar.evaluate.score import score
from underpar.evaluate.windows import Window
from underpar.lab.adopt import is_after_training
from underpar.lab.files import RunFolder, read_json, write_json
from underpar.nn.lookback import BigramTable, SparseBigramTable
from underpar.optim.schedules import Progress, Schedule, Settings
from underpar.optim.sharded import MatrixOptimiser
from underpar.recipes import Recipe, registry
from underpar.train.loop import Trainer
from underpar.train.preparation import rehearse

STAGES = ("train", "pack", "score")
"""Where settings are read. Until all have run, a setting that none has read is open."""


@dataclass(frozen=True)
class Effect:
    """One changed setting, and whether it was observed to matter: True, False, or None while that is open."""

    path: str
    old: str | None
    new: str | None
    matters: bool | None
    why: str


class Watch:
    """The changes of one run against its reference, and what training was seen to read of them.

    The reference is the recipe's parent, or for a recipe without one the recipe as it is registered.
    """

    def __init__(self, resolved: Resolved[Recipe]) -> None:
        entry = registry.find(resolved.name)
        self.against = (entry.parent or entry).name
        self.config, self.reference = resolved.config, registry.resolve(self.against).config
        self._at_track = registry.resolve(resolved.name, track=resolved.track).config
        self.changes = diff(self.reference, self.config)
        self._ledger = ReadLedger(resolved.config)

    def recording(self) -> AbstractContextManager[None]:
        """Reads inside the block count as training's. Not around compilation."""
        return self._ledger.recording()

    def rehearse(self, trainer: Trainer, world: World) -> None:
        """Let training and scoring read what they will read, where something changed. Leaves no trace. Collective."""
        if self.changes:
            with self.recording():
                rehearse(trainer)
                _rehearse_scoring(trainer, self.config.evaluate.window, world)

    def judge(self, trainer: Trainer) -> list[Effect]:
        """What training shows of every changed setting, when it has ended."""
        by_hand = {change.path for change in diff(self._at_track, self.config)}
        return judge_training(self.config, self.reference, self._ledger.reads, trainer, by_hand)

    def write(self, folder: RunFolder, trainer: Trainer) -> None:
        """effects.json; later stages complete it."""
        self._write(folder, self.judge(trainer))

    def write_taken(self, folder: RunFolder, trained: RunFolder) -> None:
        """effects.json where the training of another run was taken over: of training's settings, what that one showed."""
        shown = {(e.path, e.old, e.new): (e.matters, e.why) for e in _effects(trained)}
        found = []
        for change in self.changes:
            verdict: Verdict = None, "not read by training"
            if not is_after_training(change.path):
                verdict = shown.get(
                    (change.path, change.old, change.new), (True, "of the training that was taken over")
                )
            found.append(Effect(change.path, change.old, change.new, *verdict))
        self._write(folder, found)

    def _write(self, folder: RunFolder, found: list[Effect]) -> None:
        effects = [asdict(effect) for effect in found]
        write_json(folder.effects, {"against": self.against, "stages": ["train"], "settings": effects})


def _rehearse_scoring(trainer: Trainer, window: Window, world: World) -> None:
    """Score a stream that is one token longer than a window."""
    bos_id = trainer.loader.bos_id
    tokens = np.full(window.context + 2, 0 if bos_id else 1, dtype=np.uint16)
    tokens[0] = bos_id
    starts = np.zeros(1, dtype=np.int64)
    stream = ValStream(tokens, np.minimum(np.arange(len(tokens)), 1).astype(np.int32), starts)
    score(trainer.model, stream, window, bos_id=bos_id, world=world, batch_tokens=window.context)


# ------------------------------------------------------------------------------------------------- training


def stated(old: Recipe, new: Recipe, changes: list[Change]) -> list[Change]:
    """Of every choice that was replaced by another, the fields that are not at their default: each is a setting of its own."""
    found = []
    for change in changes:
        before, now = _at(old, change.path), _at(new, change.path)
        if isinstance(now, Config) and type(now) is not type(before):
            fields = dataclasses.fields(now)  # type: ignore[arg-type]
            values = {spec.name: object.__getattribute__(now, spec.name) for spec in fields}
            found += [
                Change(f"{change.path}.{spec.name}", None, show(values[spec.name]))
                for spec in fields
                if values[spec.name] != default_of(spec)
            ]
    return found


def _at(root: Config, path: str) -> Any:
    node: Any = root
    for part in path.split("."):
        name, _, index = part.partition("[")
        node = object.__getattribute__(node, name)
        node = node[int(index.removesuffix("]"))] if index else node
    return node


def judge_training(
    config: Recipe, against: Recipe, reads: Iterable[str], trainer: Trainer, by_hand: Collection[str]
) -> list[Effect]:
    """The effects that training shows. Call it when the run has ended. by_hand: paths that recipe and track had otherwise."""
    known, judge = set(reads), _Judge(config, against, trainer, by_hand)
    changes = diff(against, config)
    parts = stated(against, config, changes)
    found = []
    for change in changes + parts:
        verdict = None if change in parts else judge.of(change.path)
        if verdict is None:
            verdict = (True, "read by training") if change.path in known else (None, "not read by training")
        found.append(Effect(change.path, change.old, change.new, *verdict))
    return found


Verdict = tuple[bool | None, str]


class _Judge:
    """Knows more of some settings than whether they were read."""

    def __init__(self, config: Recipe, against: Recipe, trainer: Trainer, by_hand: Collection[str]) -> None:
        self.config, self.against, self.trainer, self.by_hand = config, against, trainer, by_hand
        self.budget = config.budget.for_steps()
        self.visited: list[Progress] = []
        self.consumed: list[Settings] = []
        tokens = 0
        for step, seconds in enumerate(trainer.visited_seconds):
            self.visited.append(Progress(step, tokens, seconds))
            self.consumed.append(config.schedule.at(self.visited[-1], self.budget))
            tokens += trainer.loader.batch_tokens(self.consumed[-1].shape)

    def of(self, path: str) -> Verdict | None:
        """None where only reads can tell."""
        if not self.visited:
            return None
        room, _, rest = path.partition(".")
        if self.config.schedule.stages is not None and path in _SHADOWED:
            matters, why = _SHADOWED[path]
            return (True, "the size of scoring") if matters is None and path not in self.by_hand else (matters, why)
        if path == "data.loader.epochs":
            return self._epochs(path in self.by_hand)
        if room == "schedule" and rest:
            return self._replayed(rest)
        if room == "averaging" and self.config.averaging is not None and not self._average_differs():
            return False, "the average is the last weights: too little was averaged"
        if room == "fake_quantise" and self.config.fake_quantise is not None and not self._quantised():
            return False, "no step of this run quantised"
        tables = self.against.model.bigram, self.config.model.bigram
        if path == "model.bigram" and (type(tables[0]), type(tables[1])) == (BigramTable, SparseBigramTable):
            return self._by_rows()
        if room == "optim" and rest.endswith(".weight_decay") and not any(s.decay_scale for s in self.consumed):
            return False, "schedule.weight_decay was 0 in every step"
        return None

    def _average_differs(self) -> bool:
        average = self.trainer.average
        averaged = {} if average is None else average.averaged()
        weights = dict(self.trainer.model.named_parameters())
        return any(not torch.equal(tensor, weights[name]) for name, tensor in averaged.items())

    def _quantised(self) -> bool:
        return any(settings.phase.quantised for settings in self.consumed)

    def _epochs(self, by_hand: bool) -> Verdict:
        """A limit matters where it is needed. Loaders of stages are copies, whose reads nobody sees."""
        loader = self.trainer.loader
        if loader.position > loader.stream.total_tokens:
            return True, "the text was gone through more than once"
        return (False, "the text was not gone through once") if by_hand else (True, "a limit that was not reached")

    def _by_rows(self) -> Verdict | None:
        """Whether an optimiser was given a gradient by rows; None where none of this run can tell."""
        seen = [c for name, changes in self.trainer.trace.changes.items() if name.endswith(".by_rows") for c in changes]
        steps = [step for step, by_rows in seen if by_rows]
        if steps:
            return True, f"gradients came by rows from step {int(steps[0]):,} on"
        return (False, "every gradient was made whole") if seen else None

    def _replayed(self, path: str) -> Verdict:
        try:
            return self._compared(_with_value_of(self.config.schedule, self.against.schedule, path))
        except ConfigError as problem:  # a table for other steps than these, say
            return True, f"this run could not have been with the other value: {problem}"

    def _compared(self, other: Schedule) -> Verdict:
        deaf: set[str] = set()
        for step, (progress, ours) in enumerate(zip(self.visited, self.consumed, strict=True), start=1):
            parts = _differing(ours, other.at(progress, self.budget))
            if any(self._hears(part) for part in parts):
                return True, f"made a difference from step {step:,} on"
            deaf |= parts
        if deaf:
            return False, "; ".join(sorted(_DEAF[part] for part in deaf))
        return False, f"no value differed in the {len(self.visited):,} steps of this run"

    def _hears(self, part: str) -> bool:
        """Whether anything in this run listens to that part of the settings."""
        if part == "momentum":
            return any(name.endswith(".momentum") for name in self.trainer.trace.changes)
        if part == "decay_scale":
            return any(node.weight_decay for node in self.config.optim.chosen().values())
        if part == "matrix_decay_scale":
            optimisers = self.config.optim.chosen().values()
            return any(node.weight_decay for node in optimisers if isinstance(node, MatrixOptimiser))
        if part == "tied":
            return self.trainer.optimisers.tie is not None
        return part in ("lr_scale", "shape", "target_weights") or part in self.trainer.obeyed


UNHEARD = "no step of training heard it"
_BY_STAGE = "every step was cut as schedule.stages says: set it in schedule.stages.stages[i]"
_SCORING_ONLY = f"{UNHEARD}: windows came from schedule.stages.stages[i]; what is set here holds in scoring"
_SHADOWED: dict[str, "Verdict"] = {
    "data.loader.batch_tokens": (False, _BY_STAGE),
    "data.loader.seq_len": (False, _BY_STAGE),
    "model.attention.windows.short": (None, _SCORING_ONLY),
    "model.attention.windows.long": (None, _SCORING_ONLY),
}
"""Settings whose place a table of stages takes."""

_DEAF = {
    "momentum": "no optimiser of this run has momentum",
    "decay_scale": "every weight decay of this run is 0",
    "matrix_decay_scale": "every weight decay of the Muon family is 0",
    "tied": "no embedding was tied to a head",
    "windows": "no layer of the model has a window",
    "looped": "no layer of the model recurs",
    "quantised": "nothing quantises while training: fake_quantise is None",
}


def _differing(a: Settings, b: Settings) -> set[str]:
    names = ("lr_scale", "momentum", "decay_scale", "matrix_decay_scale", "tied", "shape", "target_weights")
    parts = {name for name in names if getattr(a, name) != getattr(b, name)}
    return parts | {name for name in a.phase._fields if getattr(a.phase, name) != getattr(b.phase, name)}


def _with_value_of(schedule: Schedule, other: Schedule, path: str) -> Schedule:
    """`schedule`, but with what `other` has at `path`."""
    twin = copy.deepcopy(schedule)
    parent, _, leaf = path.rpartition(".")
    setattr(_at(twin, parent) if parent else twin, leaf, copy.deepcopy(_at(other, path)))
    return twin


# ------------------------------------------------------------------------------------------------- the file of a run


@contextmanager
def reads_of(config: Recipe, folder: RunFolder | None, stage: str) -> Iterator[None]:
    """Settings that the block reads are no longer open in effects.json; after the last stage what is open was in vain.

    folder: None where another process writes. Not around compilation.
    """
    ledger = ReadLedger(config)
    with ledger.recording():
        yield
    if folder is None or not folder.effects.exists():
        return
    found = read_json(folder.effects, "underpar train")
    stages = [known for known in STAGES if known == stage or known in found["stages"]]
    effects = [_after(Effect(**entry), stage, ledger.reads, stages) for entry in found["settings"]]
    write_json(folder.effects, found | {"stages": stages, "settings": [asdict(e) for e in effects]})


def _after(effect: Effect, stage: str, reads: set[str], stages: list[str]) -> Effect:
    if effect.why.startswith(UNHEARD):  # scoring reads it from the artifact's header
        return replace(effect, matters=True) if stage == "score" else effect
    if effect.matters is None and effect.path in reads:
        return replace(effect, matters=True, why=f"read by the stage '{stage}'")
    if effect.matters is None and stages == list(STAGES):
        return replace(effect, matters=False, why="nothing read it")
    return effect


def silent(folder: RunFolder) -> list[Effect]:
    """The settings that were observed to change nothing."""
    return [effect for effect in _effects(folder) if effect.matters is False]


def unheard(folder: RunFolder) -> list[Effect]:
    """The settings that training was seen to pass over, whatever scoring makes of them."""
    return [effect for effect in _effects(folder) if effect.why.startswith(UNHEARD)]


def _effects(folder: RunFolder) -> list[Effect]:
    if not folder.effects.exists():
        return []
    return [Effect(**entry) for entry in read_json(folder.effects, "underpar train")["settings"]]


def describe(effect: Effect) -> str:
    """One line for a person."""
    what = "no effect" if effect.matters is False else "no effect on training"
    return f"{what}: {Change(effect.path, effect.old, effect.new)} ({effect.why})"
