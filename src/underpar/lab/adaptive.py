"""Which test-time training an artifact is scored with, and the scoring itself."""

import copy
import dataclasses
from collections.abc import Iterable
from typing import Any

from underpar.core.config import apply_override
from underpar.core.errors import ConfigError, suggest
from underpar.core.world import World
from underpar.data.validation import ValStream
from underpar.evaluate.adaptation import Adaptation, CacheOnly, DocumentTTT, PhasedTTT, SequentialTTT
from underpar.evaluate.adapted import Running
from underpar.evaluate.load import LoadedModel
from underpar.evaluate.score import LossFunction, Score
from underpar.evaluate.scorers import adaptive_scorer
from underpar.evaluate.windows import Window
from underpar.lab.say import say
from underpar.model.compiled import compile_model

PLAIN = "plain"
MODES: dict[str, type[Adaptation]] = {
    "ttt": DocumentTTT, "phased": PhasedTTT, "sequential": SequentialTTT, "cached": CacheOnly,
}  # fmt: skip


def chosen_adaptation(
    recorded: Adaptation | None, mode: str | None = None, overrides: Iterable[str] = (), window: Window | None = None
) -> Adaptation | None:
    """The adaptation to score with: what the artifact records, or another `mode`, with single settings changed.

    A mode takes over what it has in common with the recorded adaptation, and its own defaults for the rest. window: what the
    artifact is charged through, which the mode "cached" leaves as it is.
    Raises ConfigError for an unknown mode or setting.
    """
    texts = tuple(overrides)
    if mode is None:
        found = copy.deepcopy(recorded)
    elif mode == PLAIN:
        found = None
    elif mode in MODES:
        found = _as(recorded, MODES[mode])
        if window is not None and isinstance(found, CacheOnly):
            found.window = copy.deepcopy(window)
    else:
        raise ConfigError(f"no mode '{mode}'; {suggest(mode, [PLAIN, *MODES])}")
    if found is None and texts:
        raise ConfigError(f"'{texts[0]}' has nothing to change: no adaptation is chosen; add --mode ttt")
    for text in texts:
        assert found is not None
        apply_override(found, text)
    return None if found is None else found.frozen()


def _as(recorded: Adaptation | None, kind: type[Adaptation]) -> Adaptation:
    """An adaptation of class `kind`, with the settings of a relative where there is one."""
    if recorded is None or not (isinstance(recorded, kind) or issubclass(kind, type(recorded))):
        return kind()
    wanted = {spec.name for spec in dataclasses.fields(kind)}  # type: ignore[arg-type]
    known = {spec.name for spec in dataclasses.fields(recorded)}  # type: ignore[arg-type]
    return kind(**{name: copy.deepcopy(getattr(recorded, name)) for name in wanted & known})


def score_adapted(
    loaded: LoadedModel,
    adaptation: Adaptation,
    stream: ValStream,
    *,
    bos_id: int,
    world: World,
    plain: LossFunction,
    budget_seconds: float | None,
) -> tuple[dict[str, Any], Score]:
    """Score with test-time training, compiled on CUDA. Returns (what score.json says of it, the Score). Collective."""
    compiler = None if world.device == "cpu" else compile_model
    scorer = adaptive_scorer(
        adaptation, loaded.model, bos_id=bos_id, world=world, compiler=compiler, plain=plain
    )  # fmt: skip
    found = scorer.charge(stream, budget_seconds=budget_seconds, watcher=_show if world.is_main else None)
    if found.plain_targets and world.is_main:
        say(
            f"warning: a budget of {budget_seconds:g} s does not hold the adaptation of all documents: "
            f"{found.plain_targets:,} of {len(found.nats):,} tokens were charged without it"
        )
    return {"adaptation": str(adaptation)} | found.to_json(), found.score(stream)


def _show(running: Running) -> None:
    say(f"adapting: {running.done:.0%}  {running.bpb:.4f} bpb so far  {running.seconds_left:.0f} s left")
