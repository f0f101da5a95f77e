"""Runs held against each other and against their own files before they may stand in one record or one comparison."""

import hashlib
import lzma
import tarfile
from collections.abc import Callable, Sequence
from typing import Any

from underpar.core.errors import RecordError
from underpar.records.claim import Metric
from underpar.records.run import STAGES, Run, first_difference, sha256_of, tree_fingerprint

_NEEDED = tuple(name for name in STAGES if name not in ("train.jsonl", "documents.npz", "baselines.json"))


def check_agreement(runs: Sequence[Run]) -> None:
    """Raise RecordError at the first reason why these runs are not one record.

    Every stage present; one configuration apart from the seed; one counted source; each seed once; no two logs equal;
    each log prints its run's seed and score; each artifact is the file its hash names.
    """
    for run in runs:
        for name in _NEEDED:
            run.require_file(name)
    _check_distinct(runs, lambda r: r.seed, "have the same seed ({})", "a repeat is not a new sample")
    _check_distinct(runs, lambda r: sha256_of(r.folder / "train.log"), "have the same train.log", "one is a copy")
    for run in runs:
        _check_fingerprint(run)
        _check_log(run)
        _check_artifact(run)
    for other in runs[1:]:
        _check_same_science(runs[0], other)


def check_comparable(first: Sequence[Run], second: Sequence[Run], metric: Metric) -> None:
    """Raise RecordError where a set mixes configurations, or the two were not scored on the same text.

    Losses per token say nothing across tokenizers: for `val_loss` the tokens must be as many, too.
    """
    for runs in (first, second):
        for other in runs[1:]:
            difference = first_difference(runs[0].science, other.science)
            if difference:
                raise RecordError(
                    f"{runs[0].folder} and {other.folder} differ beyond the seed: {difference}; a set is of one configuration"
                )
    units = ("bytes",) if metric == "val_bpb" else ("bytes", "tokens")
    texts = {tuple(int(run.require("score.json")[unit]) for unit in units): run for run in (*first, *second)}
    if len(texts) > 1:
        (here, one), (there, other), *_ = texts.items()
        raise RecordError(
            f"{one.folder} and {other.folder} were scored on different texts ({_sizes(here, units)} against "
            f"{_sizes(there, units)}): their {metric} cannot be compared; score both on the same data"
        )


def _sizes(numbers: Sequence[int], units: Sequence[str]) -> str:
    return ", ".join(f"{number:,} {unit}" for number, unit in zip(numbers, units, strict=True))


def _check_distinct(runs: Sequence[Run], key: Callable[[Run], Any], what: str, why: str) -> None:
    seen: dict[Any, Run] = {}
    for run in runs:
        value = key(run)
        if value in seen:
            raise RecordError(f"{seen[value].folder} and {run.folder} {what.format(value)}; {why}, leave it out")
        seen[value] = run


def _check_fingerprint(run: Run) -> None:
    computed = tree_fingerprint(run.config["config"])
    if computed != run.fingerprint:
        raise RecordError(
            f"{run.folder / 'config.json'}: fingerprint {run.fingerprint}, but its settings give {computed}; "
            "the file was edited, rerun"
        )


def _check_log(run: Run) -> None:
    path, log, score = run.folder / "train.log", run.log, run.require("score.json")
    if log.seed != run.seed:
        raise RecordError(f"{path}: prints seed {log.seed}, the run has seed {run.seed}; the log is of another run")
    final = log.final
    if final is None:
        raise RecordError(f"{path}: no final score line; run 'underpar score' on {run.folder}")
    if abs(final.val_bpb - float(score["bpb"])) > 6e-9 or abs(final.val_loss - float(score["loss_nats"])) > 6e-9:
        raise RecordError(
            f"{path}: ends at val_bpb {final.val_bpb:.8f}, score.json says {float(score['bpb']):.8f}; "
            "score the run again"
        )


def _check_artifact(run: Run) -> None:
    path, artifact = run.folder / "artifact.upar", run.require("artifact.json")
    digest = sha256_of(path)
    if digest != artifact["sha256"]:
        raise RecordError(
            f"{path}: sha256 {digest[:16]}..., artifact.json lists {str(artifact['sha256'])[:16]}...; pack it again"
        )
    counted = path.stat().st_size + int(artifact["code_bytes"])
    if counted != int(artifact["artifact_bytes"]):
        raise RecordError(
            f"{path}: container and code are {counted:,} bytes, artifact.json says "
            f"{int(artifact['artifact_bytes']):,}; pack the run again"
        )


def _check_same_science(first: Run, other: Run) -> None:
    if first.name != other.name:
        raise RecordError(f"{first.folder} is of {first.name}, {other.folder} of {other.name}; one record, one recipe")
    difference = first_difference(first.science, other.science)
    if difference:
        raise RecordError(
            f"{first.folder} and {other.folder} differ beyond the seed: {difference}; one record, one config"
        )
    here, there = _source_files(first), _source_files(other)
    changed = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise RecordError(
            f"{first.folder} and {other.folder} packed different source ({changed[0]}{more}); "
            "rerun both with the same code"
        )


def _source_files(run: Run) -> dict[str, str]:
    """Name -> sha256 of the counted source files: archive times and order are not science."""
    path = run.require_file("code.tar.xz")
    digests: dict[str, str] = {}
    try:
        with tarfile.open(path, "r:xz") as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isfile() else None
                if stream is not None:
                    digests[member.name] = hashlib.sha256(stream.read()).hexdigest()
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as problem:
        raise RecordError(f"{path}: not a readable source archive ({problem}); pack the run again") from None
    return digests
