"""What follows a scored run: the referee, the page, the record, and the few lines a person reads."""

from pathlib import Path
from typing import Any

from underpar.core.units import format_bytes, format_count, format_seconds
from underpar.lab.effects import describe, silent
from underpar.lab.files import RunFolder, read_json
from underpar.train.training import AVERAGED, RAW


def record_runs(folders: list[Path], *, author: str, threshold: float | None) -> Path:
    """Write a record folder beside the runs; the newest replaces nothing: its name carries a number."""
    from underpar.records import Claim, load_runs, write_record

    parent = folders[0].parent
    number = 1
    while (out := parent / f"record-{number:02d}").exists():
        number += 1
    first = load_runs(folders)[0]
    write_record(
        folders,
        out,
        author=author,
        github_id=author,
        name=first.name,
        blurb=str(first.config["summary"]),
        claim=None if threshold is None else Claim(threshold),
    )
    return out


def run_summary(folder: RunFolder) -> dict[str, Any]:
    """The figures of a finished run, as JSON data."""
    described = read_json(folder.config, "underpar train")
    trained = read_json(folder.train, "underpar train")
    packed = read_json(folder.artifact_info, "underpar pack")
    scored = read_json(folder.score, "underpar score")
    return {
        "recipe": described["recipe"],
        "seed": described["seed"],
        "fingerprint": described["fingerprint"],
        "bpb": scored["bpb"],
        "before_adaptation_bpb": (scored.get("before_adaptation") or {}).get("bpb"),
        "unquantised_bpb": {which: found["bpb"] for which, found in trained.get("validation", {}).items()},
        "no_effect": [effect.path for effect in silent(folder)],
        "loss_nats": scored["loss_nats"],
        "lossless": scored["lossless"],
        "artifact_bytes": packed["artifact_bytes"],
        "budget_bytes": packed["budget_bytes"],
        "params": trained["params"],
        "steps": trained["steps"],
        "train_seconds": trained["train_seconds"],
        "eval_seconds": scored["eval_seconds"],
        "budget_eval_seconds": scored.get("budget_eval_seconds"),
    }


def outcome_lines(folder: RunFolder, summary: dict[str, Any]) -> list[str]:
    """What `underpar run` prints of one run."""
    label = "" if summary["lossless"] else "  (lossy tokenizer: the text cannot be recovered exactly)"
    limit = summary["budget_bytes"]
    share = f", {summary['artifact_bytes'] / limit:.0%} of the budget" if limit else ""
    lines = [
        f"{summary['recipe']}  seed {summary['seed']}  fingerprint {summary['fingerprint']}",
        f"score    {summary['bpb']:.4f} bits per byte on held-out text{_before_quantisation(summary)}{label}",
        f"artifact {format_bytes(summary['artifact_bytes'])}, code included{share}",
        f"training {format_count(summary['params'])} parameters, {summary['steps']:,} steps in "
        f"{format_seconds(summary['train_seconds'])}; scoring {scoring_time(summary)}",
        f"verdict  {summary['verdict']}",
    ]
    if folder.baselines.exists():
        rivals = read_json(folder.baselines, "underpar score")["compressors"]
        lines.insert(2, "beside   " + ", ".join(f"{r['name']} {r['bpb']:.3f}" for r in rivals) + " on the same text")
    return lines + [describe(effect) for effect in silent(folder)]


def scoring_time(score: dict[str, Any]) -> str:
    """How long scoring took, and whether that is more than it may take."""
    seconds, limit = score["eval_seconds"], score.get("budget_eval_seconds")
    over = f", over the budget of {limit:g} s" if limit is not None and seconds > limit else ""
    return f"{format_seconds(seconds)}{over}"


def _before_quantisation(summary: dict[str, Any]) -> str:
    """The same text scored with the trained weights as they were."""
    found = summary["unquantised_bpb"]
    if not found:
        return ""
    packed = summary["before_adaptation_bpb"]
    if packed is not None:
        return f"; {found.get(AVERAGED, found[RAW]):.4f} before quantisation, {packed:.4f} before adaptation"
    others = f" (the last weights alone {found[RAW]:.4f})" if AVERAGED in found else ""
    return f"; {found.get(AVERAGED, found[RAW]):.4f} before quantisation{others}"
