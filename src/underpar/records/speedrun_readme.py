"""README.md of a speedrun record: every figure computed, misses included."""

from __future__ import annotations

from typing import TYPE_CHECKING

from underpar.records.readme import table
from underpar.stats import StatsError
from underpar.stats.target import TimeToTarget, by_machine, faster

if TYPE_CHECKING:
    from underpar.records.speedrun import Arm


def render_readme(record: Arm, baseline: Arm | None, *, name: str, author: str, blurb: str, date: str) -> str:
    """The whole text."""
    parts = [
        f"# {_line(name)}",
        f"{_line(author)}, {date}. {_line(blurb)}",
        "## Result",
        record.result.sentence(),
        _table(record, baseline),
        "## Against the baseline",
        _comparison(record, baseline),
        "## All runs",
        _lists("This record", record.result),
        *([] if baseline is None else [_lists("Baseline", baseline.result)]),
        "## What changed",
        _changes(record),
        "## Rules",
        "\n".join(f"- [{'x' if met else ' '}] {what}" for met, what in _rules(record, baseline)),
        "## Hardware and software",
        _environment(record),
        "## Reproduction",
        "```sh\n" + "\n".join(str(run.config.get("command")) for run in record.runs) + "\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _line(text: str) -> str:
    return " ".join(text.split())


def _table(record: Arm, baseline: Arm | None) -> str:
    header = ["", "runs", "missed", "steps", "time mean (s)", "time sd", "loss mean", "loss sd", "p"]
    arms = [("this record", record)] + ([("baseline, timed again here", baseline)] if baseline else [])
    rows = [_row(label, arm.result, arm.steps) for label, arm in arms]
    machines = by_machine(record.result.runs, record.result.target_nats)
    if len(machines) > 1:
        rows += [_row(f"this record on {machine}", part, record.steps) for machine, part in machines.items()]
    note = "Times are means over the runs that reached the target; a run that misses has none. Losses and p are of all runs."
    return f"{table(header, rows)}\n\n{note}"


def _row(label: str, result: TimeToTarget, steps: int) -> list[str]:
    seconds, losses, test = result.seconds, result.losses, result.test
    return [
        label,
        str(len(result.runs)),
        str(len(result.missed)),
        f"{steps:,}",
        *([f"{seconds.mean:.3f}", f"{seconds.sd:.3f}"] if seconds else ["-", "-"]),
        *([f"{losses.mean:.5f}", f"{losses.sd:.5f}"] if losses else ["-", "-"]),
        f"{test.p_value:.2g}" if test and test.is_defined else "-",
    ]


def _comparison(record: Arm, baseline: Arm | None) -> str:
    if baseline is None:
        return "No baseline was run on this machine, so nothing is claimed about its time."
    try:
        return f"{faster(record.result, baseline.result)} (seconds to the target, on the same machine)."
    except StatsError as problem:
        return f"Not compared: {problem}."


def _lists(title: str, result: TimeToTarget) -> str:
    losses = ", ".join(f"{run.loss_nats:.4f}" for run in result.runs)
    times = ", ".join(run.shown_seconds(result.target_nats) for run in result.runs)
    note = " (999999 stands for a run that missed)" if result.missed else ""
    return f"{title}: losses `[{losses}]`, seconds `[{times}]`{note}."


def _changes(record: Arm) -> str:
    run = record.runs[0]
    lineage = " -> ".join(f"`{name}`" for name in run.config.get("lineage", [])) or f"`{run.name}`"
    text = f"Lineage: {lineage}. {_line(str(run.config.get('summary', '')))}"
    rows = [[f"`{c['path']}`", _shown(c.get("old")), _shown(c.get("new"))] for c in run.config.get("diff") or []]
    if not rows:
        return text
    return f"{text}\n\nComputed difference from `{run.config.get('parent')}`:\n\n" + table(
        ["setting", "before", "now"], rows, rule="---"
    )


def _shown(value: object) -> str:
    return "-" if value is None else f"`{_line(str(value))}`"


def _rules(record: Arm, baseline: Arm | None) -> list[tuple[bool, str]]:
    result = record.result
    compiled = sum(int(run.require("train.json").get("recompilations") or 0) for run in record.runs)
    test = "one run cannot be tested" if result.test is None else str(result.test)
    rows = [
        (result.passes, f"mean loss at most {result.target_nats:g} at p < 0.01: {test}"),
        (compiled == 0, f"no graph is compiled while the clock runs ({compiled} were)"),
    ]
    if baseline is not None:
        same = {run.machine for run in result.runs} == {run.machine for run in baseline.result.runs}
        rows.append((same, "the baseline was timed on the same machine"))
    return rows


def _environment(record: Arm) -> str:
    environment = record.runs[0].require("environment.json")
    keep = ("gpu", "gpu_count", "cpu", "cores", "python", "torch", "cuda", "attention_backend", "commit", "machine")
    rows = [[key, str(environment[key])] for key in keep if environment.get(key) is not None]
    rows += [["triton", str(version)] for version in [(environment.get("packages") or {}).get("triton")] if version]
    pauses = record.runs[0].require("train.json").get("paused_seconds") or {}
    rows += [[f"untimed, {name}", f"{seconds:.3f} s"] for name, seconds in pauses.items()]
    return table(["", "first run"], rows, rule="---")
