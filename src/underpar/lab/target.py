"""Runs to a target: candidate and baseline in turns on one machine, judged together."""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from underpar.lab.files import RunFolder, read_json
from underpar.lab.sources import source_of
from underpar.records.machine import machine_class
from underpar.records.run import load_runs
from underpar.records.speedrun import Arm, load_arm, write_speedrun
from underpar.records.timed import timed_runs
from underpar.stats import Calibration, StatsError, TTest, calibrate, faster
from underpar.stats.steps import NEEDED, better, steps_to_target

RECORD_TRACKS = {3.28: "track_1_short", 2.92: "track_2_medium"}
"""Where the field keeps its records, by target in nats."""


def in_turns(recipes: Sequence[str], seeds: Sequence[int | None]) -> Iterator[tuple[str, int | None]]:
    """Recipe and seed of every run: forwards with one seed, backwards with the next, so that a drift of the machine (heat,
    neighbours) falls on all recipes alike."""
    for index, seed in enumerate(seeds):
        for recipe in recipes if index % 2 == 0 else list(reversed(recipes)):
            yield recipe, seed


def is_timed(folder: RunFolder, fingerprint: str) -> bool:
    """Whether the folder holds a finished run of this configuration. Its checkpoints are gone, its figures are not."""
    if not (folder.train.exists() and folder.config.exists()):
        return False
    trained, described = read_json(folder.train, "underpar run"), read_json(folder.config, "underpar run")
    return trained["stop_reason"] != "interrupted" and described["fingerprint"] == fingerprint


def judge(folders: Sequence[Path], baseline: Sequence[Path], target_nats: float) -> dict[str, Any]:
    """What the runs say, as data. Baselines that cannot be compared leave their reason."""
    arm = load_arm(folders, target_nats)
    found: dict[str, Any] = {
        "record": arm.result.to_json(),
        "sentence": arm.result.sentence(),
        "passes": arm.result.passes,
    }
    if baseline:
        other = load_arm(baseline, target_nats)
        found |= {"baseline": other.result.to_json(), "baseline_sentence": other.result.sentence()}
        test = _test(arm, other)
        found["faster"] = test.to_json() if isinstance(test, TTest) else None
        found["comparison"] = str(test)
    return found


def judge_steps(folders: Sequence[Path], baseline: Sequence[Path], target_nats: float) -> dict[str, Any]:
    """The same for the fewest steps: by validations on a common grid, whatever the seconds."""
    ours = steps_to_target(_curves(folders), target_nats)
    found: dict[str, Any] = {"record": ours.to_json(), "sentence": ours.sentence(), "passes": ours.passes}
    if baseline:
        other = steps_to_target(_curves(baseline), target_nats)
        value = better(ours, other)
        found |= {"baseline": other.to_json(), "baseline_sentence": other.sentence(), "pairwise": value}
        found["comparison"] = (
            f"{value:.5f} by the pairwise rule, {NEEDED} is needed: {'met' if value >= NEEDED else 'not met'}"
        )
    return found


def _curves(folders: Sequence[Path]) -> list[dict[int, float]]:
    runs = load_runs(folders)
    timed_runs(runs)  # refuses runs of several recipes, and runs that did not end
    return [{int(event["step"]): float(event["loss_nats"]) for event in run.validations} for run in runs]


def _test(arm: Arm, baseline: Arm) -> TTest | StatsError:
    try:
        return faster(arm.result, baseline.result)
    except StatsError as problem:
        return problem


def lines(folders: Sequence[Path], target_nats: float) -> list[str]:
    """A line a run: time, loss, verdict."""
    return [
        f"{run.label:<12} {run.shown_seconds(target_nats):>10} s  loss {run.loss_nats:.4f}  "
        f"{'reached' if run.reaches(target_nats) else 'missed'}"
        for run in load_arm(folders, target_nats).result.runs
    ]


def record(
    folders: Sequence[Path],
    baseline: Sequence[Path],
    target_nats: float,
    *,
    out: Path | None,
    author: str,
    counts_steps: bool = False,
) -> Path:
    """Write the record folder; by default beside the runs, where the field would look for it."""
    arm = load_arm(folders, target_nats)
    other = load_arm(baseline, target_nats) if baseline else None
    now = datetime.now()
    short = "".join(part.capitalize() for part in re.split(r"[^A-Za-z0-9]+", arm.name.rpartition("/")[2]))
    track = RECORD_TRACKS.get(target_nats, f"track_own_{target_nats:g}")
    place = out or _free(folders[0].parent.parent / "records" / track / f"{now:%Y-%m-%d}_{short}")
    blurb = str(arm.runs[0].config.get("summary") or arm.name)
    return write_speedrun(
        place, arm, other, source_of=source_of, author=author, name=arm.name, blurb=blurb, counts_steps=counts_steps
    )


def _free(place: Path) -> Path:
    number = 1
    while (found := place if number == 1 else place.with_name(f"{place.name}-{number}")).exists():
        number += 1
    return found


def calibration(anchors: Sequence[Path], reference_seconds: float) -> Calibration:
    """The factor of the machine that these runs of a reference recipe were on.

    Raises StatsError when they were on several machines, or fewer than two.
    """
    runs = load_runs(anchors)
    timed = timed_runs(runs)
    machines = sorted({run.machine for run in timed})
    classes = {machine_class(run.environment or {}) for run in runs}
    if len(machines) > 1 or len(classes) > 1:
        raise StatsError(
            f"anchors on {len(machines)} machines of {len(classes)} classes: calibrate each machine by itself"
        )
    newest = max(RunFolder(folder).train.stat().st_mtime for folder in anchors)
    seconds = {run.label: run.seconds for run in timed}
    return calibrate(machines[0], classes.pop(), runs[0].name, seconds, reference_seconds, newest / 86_400)


def calibrated(folders: Sequence[Path], factor: Calibration) -> str:
    """The mean time of runs on the reference's scale, in words, or why it cannot be said."""
    runs = load_runs(folders)
    timed = timed_runs(runs)
    if {run.machine for run in timed} != {factor.machine}:
        return f"not calibrated: these runs were not all on {factor.machine}"
    day = max(RunFolder(folder).train.stat().st_mtime for folder in folders) / 86_400
    expired = factor.why_expired(machine_class(runs[0].environment or {}), day)
    if expired:
        return f"not calibrated: {expired}"
    return str(factor.apply([run.seconds for run in timed]))
