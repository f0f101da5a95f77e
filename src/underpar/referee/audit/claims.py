"""submission.json in every shape that was ever merged, as one object. Numbers keep the digits they were printed with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from underpar.core.errors import RecordError
from underpar.referee.audit.files import Item, read_limited
from underpar.referee.audit.printed import Printed, printed

_BPB = ("val_bpb", "mean_val_bpb", "mean_bpb", "sliding_val_bpb", "val_var_bpb", "post_ttt_val_bpb")
_LOSS = ("val_loss", "mean_val_loss", "val_loss_nats", "mean_val_loss_nats", "val_loss_sliding")
_BPB_SD = ("val_bpb_std", "std_bpb", "std_val_bpb")
_LOSS_SD = ("val_loss_std", "val_loss_nats_std", "std_val_loss_nats", "std_val_loss")
_TOTAL = (
    "bytes_total",
    "artifact_bytes",
    "artifact_size_bytes",
    "artifact_bytes_max",
    "artifact_bytes_mean",
    "total_bytes",
)
_CODE = ("bytes_code", "code_bytes")
_STEPS = ("steps", "step_stop", "train_steps")
_TRAIN = (("train_time_s", 1.0), ("train_seconds", 1.0), ("train_time_ms", 1e-3), ("wallclock_seconds", 1.0))
_EVAL = (
    ("eval_time_s", 1.0),
    ("ttt_eval_time_s", 1.0),
    ("eval_time_seconds", 1.0),
    ("ttt_time_ms", 1e-3),
    ("eval_time_ms", 1e-3),
    ("eval_seconds", 1.0),
)
MAX_SEEDS = 1_000


@dataclass(frozen=True)
class SeedClaim:
    """What is claimed of one seed."""

    seed: int
    bpb: Printed | None = None
    loss: Printed | None = None
    total_bytes: Printed | None = None
    steps: Printed | None = None
    train_seconds: Printed | None = None
    eval_seconds: Printed | None = None


@dataclass(frozen=True)
class Claims:
    """One submission.json. Absent figures are None; `faults` says what could not be read or is written twice."""

    file: str
    raw: dict[str, Any] = field(default_factory=dict)
    bpb: Printed | None = None
    loss: Printed | None = None
    bpb_sd: Printed | None = None
    loss_sd: Printed | None = None
    totals: tuple[Printed, ...] = ()
    code_bytes: Printed | None = None
    steps: Printed | None = None
    train_seconds: Printed | None = None
    eval_seconds: Printed | None = None
    seeds: tuple[SeedClaim, ...] = ()
    listed_seeds: tuple[int, ...] = ()
    p_value: Printed | None = None
    faults: tuple[str, ...] = ()

    def text(self, *keys: str) -> str:
        """The first of these keys that holds a string or a number, as one short line; '' when none does."""
        for key in keys:
            value = self.raw.get(key)
            if isinstance(value, str | int | Decimal) and str(value).strip():
                return " ".join(str(value).split())[:200]
        return ""

    @property
    def name(self) -> str:
        return self.text("name", "title")

    @property
    def date(self) -> str:
        return self.text("date")[:25]

    @property
    def track(self) -> str:
        return self.text("track")


def read_claims(item: Item) -> Claims:
    """Read a submission.json. Raises RecordError when it is no JSON object, too large or nested too deep."""
    try:
        text = read_limited(item.path).decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise RecordError(f"{item.name} is not UTF-8 (byte {problem.start}); save it as UTF-8") from None
    faults: list[str] = []
    try:
        raw = json.loads(
            text, parse_float=Decimal, parse_int=_integer, parse_constant=_constant(faults),
            object_pairs_hook=_once(faults),
        )  # fmt: skip
    except RecursionError:
        raise RecordError(f"{item.name} is nested too deep to be read; a submission is a few levels") from None
    except (ValueError, ArithmeticError) as problem:
        raise RecordError(f"{item.name} is not JSON: {str(problem)[:120]}; mend the file") from None
    if not isinstance(raw, dict):
        raise RecordError(f"{item.name} holds a {type(raw).__name__}, not an object; see a published submission.json")
    return _claims(item.name, raw, faults)


def _claims(file: str, raw: dict[str, Any], faults: list[str]) -> Claims:
    seeds_field = raw.get("seeds")
    listed: list[Any] = seeds_field if isinstance(seeds_field, list) else []
    seeds = tuple(_seed_table(raw, faults))
    return Claims(
        file=file,
        raw=raw,
        bpb=_number(raw, *_BPB),
        loss=_number(raw, *_LOSS),
        bpb_sd=_number(raw, *_BPB_SD),
        loss_sd=_number(raw, *_LOSS_SD),
        totals=tuple(n for key in _TOTAL if (n := _number(raw, key))),
        code_bytes=_number(raw, *_CODE),
        steps=_number(raw, *_STEPS),
        train_seconds=_seconds(raw, _TRAIN),
        eval_seconds=_seconds(raw, _EVAL),
        seeds=seeds,
        listed_seeds=tuple(int(s) for s in listed[:MAX_SEEDS] if isinstance(s, int) or str(s).isdecimal()),
        p_value=_number(raw, "p_value"),
        faults=tuple(faults),
    )


def _seed_table(raw: dict[str, Any], faults: list[str]) -> Iterator[SeedClaim]:
    """The per-seed results: a `seed_results` object, `seeds` as an object, or two parallel lists."""
    for key in ("seed_results", "seeds", "results"):
        table = raw.get(key)
        if isinstance(table, list) and table and all(isinstance(row, dict) and "seed" in row for row in table):
            table = {str(row["seed"]): row for row in table}
        if isinstance(table, dict) and table and all(re.search(r"\d", str(seed)) for seed in table):
            if len(table) > MAX_SEEDS:
                faults.append(f"{key} has {len(table):,} entries; the first {MAX_SEEDS:,} are read")
            for seed, row in list(table.items())[:MAX_SEEDS]:
                yield _seed_claim(key, str(seed), row)
            return
    scores, seeds = raw.get("seed_scores"), raw.get("seeds")
    if isinstance(scores, list) and isinstance(seeds, list):
        if len(scores) != len(seeds):
            faults.append(f"{len(seeds)} seeds but {len(scores)} seed_scores")
        for seed, score in list(zip(seeds, scores, strict=False))[:MAX_SEEDS]:
            yield _seed_claim("seed_scores", str(seed), {"val_bpb": score})


def _seed_claim(key: str, seed: str, row: Any) -> SeedClaim:
    digits = re.search(r"\d{1,18}", seed)
    number = int(digits[0]) if digits else -1
    where = f"{key}.{seed[:24]}"
    if not isinstance(row, dict):
        row = {"val_bpb": row}
    return SeedClaim(
        number,
        bpb=_number(row, *_BPB, "bpb", where=where),
        loss=_number(row, *_LOSS, "loss", where=where),
        total_bytes=_number(row, *_TOTAL, where=where),
        steps=_number(row, *_STEPS, where=where),
        train_seconds=_seconds(row, _TRAIN, where),
        eval_seconds=_seconds(row, _EVAL, where),
    )


def _number(raw: dict[str, Any], *keys: str, where: str = "") -> Printed | None:
    for key in keys:
        value = raw.get(key)
        place = f"{where}.{key}" if where else key
        if isinstance(value, bool):
            continue
        if isinstance(value, int | Decimal):
            found = printed(Decimal(value) if isinstance(value, int) else value, place)
        elif isinstance(value, str):
            found = printed(value.replace(",", "").strip(), place)
        else:
            continue
        if found is not None:
            return found
    return None


def _seconds(raw: dict[str, Any], keys: tuple[tuple[str, float], ...], where: str = "") -> Printed | None:
    for key, scale in keys:
        found = _number(raw, key, where=where)
        if found:
            return Printed(found.value * scale, found.unit * scale, found.where)
    return None


def _integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) < 25 else Decimal(digits)


def _constant(faults: list[str]) -> Any:
    def read(word: str) -> None:
        faults.append(f"{word} is no JSON number")

    return read


def _once(faults: list[str]) -> Any:
    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = sorted({str(n)[:40] for n in names if names.count(n) > 1}) if len(names) < 2_000 else ["..."]
            faults.append(f"written twice, the last counts: {', '.join(twice)}")
        return found

    return build
