"""How often the referee finds a cheat, by the gain of the cheat, and how often it accuses an honest predictor.

python benchmarks/referee_power.py --out benchmarks/results/referee_power.json --plot docs/referee_power.svg

Every predictor is random in its kind and parameters. The strength of a cheat is tuned until its gain over its own honest
twin, on the held-out text, is the one asked for. All are judged by the same plan. A run that was stopped goes on from the
rows that it left behind (`--rows`).
"""

import argparse
import json
import platform
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from referee_power_plot import draw
from referee_predictors import (
    BOS,
    HONEST,
    VOCAB,
    Charges,
    Strengthened,
    calibration,
    floored,
    hindsight,
    look_ahead,
    scaled,
    stored,
    target_cache,
    target_gate,
    text,
    whole_text,
    window_fit,
)
from underpar.core.units import BITS_PER_NAT
from underpar.referee.case import ByteLimit, Case, Kind
from underpar.referee.checks import run_checks
from underpar.referee.claim import Claim
from underpar.referee.examine import run_probes
from underpar.referee.ledger import add_up
from underpar.referee.measurement import Measurement, plain
from underpar.referee.plan import CANARIES, Plan
from underpar.referee.predictor import CallablePredictor
from underpar.referee.probes.memory import longest_free_run
from underpar.referee.verdict import Verdict

PLAN = Plan(
    segment_tokens=1536,
    flip_trials=12,
    canaries=CANARIES,
    canary_tokens=8192,
    sweep_positions=4,
    sweep_ids=VOCAB,
    screen_positions=144,
    swaps=1,
    boundaries=2,
    whole_stream=True,
    whole_flips=2,
)
GAINS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
"""Bits per byte."""
MOST_STRENGTH = 1e6
SEED = 1
CLOSED = {"network": True, "files": True, "processes": True, "problem": "", "statement": "in this process"}

Kinds = dict[str, Callable[[np.random.Generator], Strengthened]]


def cheats(held_out: np.ndarray) -> Kinds:
    """Name -> kind. The last ones act at a share of the places only."""
    return {
        "V01 counts of the whole text": whole_text,
        "V02 window fitted to itself": window_fit,
        "V04 target-keyed cache": target_cache,
        "V05 gate on the target": target_gate,
        "V07 hindsight choice": hindsight,
        "V10 stored text": partial(stored, held_out=held_out),
        "V12 calibration": calibration,
        "V28 floor for the target": floored,
        "C1 look ahead": look_ahead,
        "C2 scaled": scaled,
        "V01 at 5 % of contexts": partial(whole_text, share=0.05),
        "V05 at 5 % of contexts": partial(target_gate, share=0.05),
        "V07 at 5 % of contexts": partial(hindsight, share=0.05),
    }


def bpb(charges: np.ndarray, tokens: np.ndarray) -> float:
    """Bits per byte; BOS stands for none."""
    return float(np.minimum(charges, 1e6).sum() * BITS_PER_NAT / (tokens[1:] != BOS).sum())


def tuned(make: Strengthened, tokens: np.ndarray, gain: float) -> tuple[Charges, float] | None:
    """The cheat whose gain is the one asked for, to 3 %; None where its kind does not reach it."""
    honest = bpb(make(0.0)(tokens), tokens)

    def gained(strength: float) -> float:
        return honest - bpb(make(strength)(tokens), tokens)

    low, high = 0.0, 1e-6
    while gained(high) < gain:
        low, high = high, 4 * high
        if high > MOST_STRENGTH:
            return None
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if gained(middle) < gain else (low, middle)
        if abs(gained(high) / gain - 1) < 0.03:
            break
    found = gained(high)
    return (make(high), found) if abs(found / gain - 1) < 0.2 else None


def judged(function: Charges, tokens: np.ndarray, seed: int) -> Verdict:
    """The verdict of the plan's probes, as `underpar verify` comes to it."""
    box = CallablePredictor(lambda stream: function(stream.astype(np.int64)), VOCAB, BOS)
    found = Measurement()
    charges = found.stage("score", lambda: box.charges(tokens))
    if charges is not None:
        found.facts["score"] = add_up(charges, tokens, BOS, None).to_json()
        found.fact("free_run", lambda: longest_free_run(charges, tokens))
        run_probes(box, tokens, PLAN, seed, found)
    facts, errors = plain(found.facts), plain(found.errors)
    return Verdict(run_checks(Case(Claim(), ByteLimit(), facts, errors, 1e-4, kind=Kind.POSITIONS, closure=CLOSED)))


@dataclass(frozen=True, slots=True)
class Trial:
    """One predictor of the study; what it is made of follows from these fields alone."""

    side: str
    kind: str
    asked: float
    """The gain, bits per byte; 0 of an honest one."""
    repeat: int

    @property
    def seed(self) -> int:
        return zlib.crc32(repr((SEED, self.side, self.kind, self.asked, self.repeat)).encode())


def trials(each: int, honest_each: int, kinds: Kinds) -> list[Trial]:
    """Every trial, the repeats outermost, so that the first rows are a small study of everything."""
    honest = [Trial("honest", kind.__name__, 0.0, repeat) for repeat in range(honest_each) for kind in HONEST]
    return honest + [Trial("cheat", kind, gain, repeat) for repeat in range(each) for kind in kinds for gain in GAINS]


def examine(trial: Trial, held_out: np.ndarray, kinds: Kinds) -> dict[str, Any]:
    """One row. A cheat that cannot be tuned to the gain has no verdict."""
    generator, function, gain = np.random.default_rng(trial.seed), None, 0.0
    if trial.side == "honest":
        function = next(kind for kind in HONEST if kind.__name__ == trial.kind)(generator)
    else:
        made = tuned(kinds[trial.kind](generator), held_out.astype(np.int64), trial.asked)
        if made is not None:
            function, gain = made
    row = asdict(trial) | {"gain": gain, "verdict": None, "failed": []}
    if function is None:
        return row
    verdict = judged(function, held_out, trial.seed)
    failed = [check.id for check in verdict.checks if check.passed is False]
    return row | {"verdict": str(verdict.ruling), "failed": failed}


def study(each: int, honest_each: int, rows: Path | None) -> list[dict[str, Any]]:
    """All rows, those of an earlier run included; each is written as soon as it is known."""
    held_out = text("val", 40, 400)
    kinds = cheats(held_out)
    wanted = trials(each, honest_each, kinds)
    lines = rows.read_text(encoding="utf-8").splitlines() if rows is not None and rows.exists() else []
    known = {Trial(**{field: row[field] for field in Trial.__slots__}): row for row in map(json.loads, lines)}
    for number, trial in enumerate(wanted, 1):
        if trial in known:
            continue
        known[trial] = examine(trial, held_out, kinds)
        if rows is not None:
            with rows.open("a", encoding="utf-8") as file:
                file.write(json.dumps(known[trial]) + "\n")
        if number % 100 == 0:
            print(f"{number} of {len(wanted)} predictors", flush=True)
    return [known[trial] for trial in wanted]


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rates by kind and gain, and which checks found it."""
    rows = [row for row in rows if row["verdict"] is not None]
    honest = [row for row in rows if row["side"] == "honest"]
    out: dict[str, Any] = {"honest": {}, "cheats": {}}
    for kind in dict.fromkeys(row["kind"] for row in honest):
        out["honest"][kind] = dict(Counter(row["verdict"] for row in honest if row["kind"] == kind))
    for kind in dict.fromkeys(row["kind"] for row in rows if row["side"] == "cheat"):
        out["cheats"][kind] = [
            _cell([row for row in rows if row["kind"] == kind and row["asked"] == gain], gain) for gain in GAINS
        ]
    return out


def _cell(rows: list[dict[str, Any]], gain: float) -> dict[str, Any]:
    checks = Counter(id for row in rows for id in row["failed"])
    words = Counter(row["verdict"] for row in rows)
    return {
        "gain_bpb": gain,
        "predictors": len(rows),
        "invalid": words["invalid"],
        "disputed": words["disputed"],
        "valid": words["valid"],
        "checks": dict(checks.most_common()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=12, help="predictors of every kind of cheat and gain")
    parser.add_argument("--honest", type=int, default=75, help="predictors of every honest kind")
    parser.add_argument("--rows", type=Path, help="JSON lines: one a predictor, kept between runs")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    rows = study(args.each, args.honest, args.rows)
    found = summary(rows)
    for kind, words in found["honest"].items():
        print(f"honest {kind:<20} {words}")
    for kind, cells in found["cheats"].items():
        counts = (f"{c['gain_bpb']:g}: {c['invalid']}+{c['disputed']}/{c['predictors']}" for c in cells)
        print(f"{kind:<32} " + "  ".join(counts))
    if args.out:
        described = {
            "command": f"python benchmarks/referee_power.py --each {args.each} --honest {args.honest}",
            "machine": platform.machine(),
            "plan": PLAN.to_json(),
            "predictors": Counter(row["side"] for row in rows if row["verdict"] is not None),
            **found,
        }
        args.out.write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    if args.plot:
        args.plot.write_text(draw(found), encoding="utf-8")


if __name__ == "__main__":
    main()
