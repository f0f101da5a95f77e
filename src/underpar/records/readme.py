"""README.md of a record: every figure and table computed, one place left for the author's words (the blurb)."""

from collections.abc import Iterable, Sequence
from typing import Any

from underpar.records.claim import Outcome
from underpar.records.compliance import Condition
from underpar.records.run import Run
from underpar.records.submission import reproduction_command


def render_readme(
    runs: Sequence[Run],
    submission: dict[str, Any],
    outcome: Outcome | None,
    checks: Sequence[Condition],
    files: Iterable[tuple[str, str]],
) -> str:
    """The whole text. `files` lists (name, what it is)."""
    parts = [
        f"# {_line(submission['name'])}",
        _headline(submission, len(runs)),
        _line(submission["blurb"]),
        "## Results",
        _results(submission),
        "## Claim",
        outcome.sentence() if outcome else "No threshold was given, so nothing is claimed against an earlier result.",
        "## What changed",
        _lineage(runs[0]),
        "## Compliance",
        "\n".join(f"- [{'x' if c.passed else ' '}] `{c.key}`: {c.statement}" for c in checks),
        "## Reproduction",
        _reproduction(runs),
        "## Environment",
        _environment(runs),
        "## Files",
        "\n".join(f"- `{name}`: {what}" for name, what in files),
    ]
    return "\n\n".join(parts) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, rule: str = "---:") -> str:
    """A Markdown table; the first column to the left, the others by `rule` (numbers to the right). Pipes are escaped."""
    lines = [header, ["---", *[rule] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(_cell(c) for c in line) + " |" for line in lines)


def _headline(submission: dict[str, Any], n: int) -> str:
    spread = "1 seed, no spread known"
    if submission["val_bpb_std"] is not None:
        spread = f"mean of {n} seeds, sample std {submission['val_bpb_std']:.5f}"
    return (
        f"**val_bpb {submission['val_bpb']:.5f}** ({spread}), largest artifact "
        f"{submission['artifact_bytes_max']:,} bytes, {submission['train_time_s_mean']:.1f} s of training "
        f"on {submission['hardware']}."
    )


def _results(submission: dict[str, Any]) -> str:
    header = ["seed", "val_bpb", "val_loss", "steps", "ms/step", "train s", "eval s", "artifact bytes", "verdict"]
    rows = [
        [
            seed,
            f"{r['val_bpb']:.8f}",
            f"{r['val_loss']:.8f}",
            f"{r['steps']:,}",
            f"{r['step_avg_ms']:.2f}",
            f"{r['train_time_s']:.3f}",
            f"{r['eval_time_s']:.1f}",
            f"{r['artifact_bytes']:,}",
            r["verdict"],
        ]
        for seed, r in submission["seed_results"].items()
    ]
    rows.append(
        [
            "**mean**",
            f"**{submission['val_bpb']:.8f}**",
            f"{submission['val_loss']:.8f}",
            f"{submission['train_steps_mean']:,.1f}",
            f"{submission['step_avg_ms_mean']:.2f}",
            f"{submission['train_time_s_mean']:.3f}",
            f"{submission['eval_time_s_mean']:.1f}",
            f"{submission['artifact_bytes_mean']:,}",
            "",
        ]
    )
    if submission["val_bpb_std"] is not None:
        spread = [f"{submission['val_bpb_std']:.8f}", f"{submission['val_loss_std']:.8f}"]
        rows.append(["sample std", *spread, *[""] * 6])
    note = "val_loss is in nats per token, val_bpb in bits per byte of the original text; std divides by n - 1."
    return f"{table(header, rows)}\n\n{note}"


def _lineage(run: Run) -> str:
    lineage = " -> ".join(f"`{name}`" for name in run.config.get("lineage", [])) or f"`{run.name}`"
    text = f"Lineage: {lineage}. {_line(str(run.config.get('summary', '')))}"
    overrides = [f"`{o}`" for o in run.config.get("overrides") or [] if not str(o).startswith("seed=")]
    text += f"\n\nOverrides on the command line: {', '.join(overrides)}." if overrides else ""
    changes = run.config.get("diff") or []
    if not changes:
        return f"{text}\n\nNo computed difference from a parent recipe."
    rows = [[f"`{c['path']}`", _value(c.get("old")), _value(c.get("new"))] for c in changes]
    parent = run.config.get("parent") or "its parent"
    return f"{text}\n\nComputed difference from `{parent}`:\n\n{table(['setting', 'before', 'now'], rows, rule='---')}"


def _reproduction(runs: Sequence[Run]) -> str:
    commands = "\n".join(reproduction_command(run) for run in runs)
    return f"One command for each seed:\n\n```sh\n{commands}\n```"


def _environment(runs: Sequence[Run]) -> str:
    """The first run's environment, and by name every entry in which another run's differs."""
    environment = runs[0].require("environment.json")
    packages = environment.get("packages") or {}
    rows = [[k, str(v)] for k, v in environment.items() if k != "packages" and v is not None]
    rows += [[f"package {name}", str(version)] for name, version in sorted(packages.items()) if version]
    text = table(["", ""], rows, rule="---")
    for run in runs[1:]:
        other = run.require("environment.json")
        differing = sorted(k for k in environment.keys() | other.keys() if environment.get(k) != other.get(k))
        if differing:
            values = ", ".join(f"{key} {other.get(key)}" for key in differing)
            text += f"\n\nDifferent for {run.label}: {_line(values)}."
    return text


def _value(value: Any) -> str:
    return "(absent)" if value is None else f"`{value}`"


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def _line(text: str) -> str:
    """Free text as one paragraph that cannot open a heading, a list or HTML."""
    flat = " ".join(text.split()).replace("<", "&lt;")
    return flat.lstrip("#>-*+ ") or "(no description)"
