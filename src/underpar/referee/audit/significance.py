"""Is a record significantly better than the one before? Under every reading of the rule that is in circulation.

The written rule asks for 0.005 nats at p < 0.01; it does not say nats of what. As administered, rows were kept at p < 0.25
without a margin. Both are answered, separately, and neither is part of the verdict on the numbers.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from underpar.referee.audit.rules import ADMINISTERED, PAIRWISE, SAME_MACHINE, STEPS, TARGET
from underpar.referee.audit.stopping import MARGIN
from underpar.referee.rules import SIGNIFICANT
from underpar.stats import TTest, bar_readings, format_p, one_sample, paired, welch

BAR_NATS = 0.005
WRITTEN_ALPHA = 0.01
ADMINISTERED_ALPHA = 0.25

STEP_WORTH = 0.0045
"""Loss that 100 steps are worth near the target."""


@dataclass(frozen=True)
class Reading:
    """One way to read the bar: its size in bpb, and the p-values of the improvement beyond it."""

    name: str
    bar_bpb: float
    p_one_sample: float | None
    """The new runs against (mean of the old - bar): the form of the README, which takes the old mean as exact."""
    p_welch: float | None

    def __str__(self) -> str:
        tests = f"one-sample p {shown_p(self.p_one_sample)}, Welch p {shown_p(self.p_welch)}"
        return f"{self.name} ({self.bar_bpb:.5f} bpb): {tests}"


@dataclass(frozen=True)
class RecordRule:
    """Whether a record passes a rule of entry; None when it cannot be said."""

    id: str
    passed: bool | None
    statement: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Significance:
    """A record against its predecessor."""

    predecessor: str
    difference: float
    """Mean of the new minus mean of the old, bpb."""
    readings: tuple[Reading, ...]
    p_plain: float | None
    """One-sided Welch without a bar."""
    p_paired: float | None
    """Without a bar, on the seeds that both have; None when the seeds differ."""
    rules: tuple[RecordRule, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def against(
    new: Mapping[int, float], old: Mapping[int, float], *, bytes_per_token: float | None, predecessor: str
) -> Significance:
    """Test scores in bpb (key -> value, lower is better) against those of the predecessor.

    `bytes_per_token` converts nats per token; without it that reading is left out.
    """
    a, b = list(new.values()), list(old.values())
    difference = statistics.fmean(a) - statistics.fmean(b)
    readings = tuple(_reading(name, bar, a, b) for name, bar in _bars(bytes_per_token))
    plain = _value(lambda: welch(a, b)) if len(a) > 1 and len(b) > 1 else None
    shared = sorted(set(new) & set(old)) if set(new) == set(old) else []
    matched = _value(lambda: paired([new[k] for k in shared], [old[k] for k in shared])) if len(shared) > 1 else None
    rules = (_written(readings, difference, len(a)), _administered(plain, difference, len(a), len(b)))
    return Significance(predecessor, difference, readings, plain, matched, rules)


def _bars(bytes_per_token: float | None) -> list[tuple[str, float]]:
    read = bar_readings(BAR_NATS, bytes_per_token or 1.0)
    rows = [("0.005 nats a token", read.nats_per_token)] if bytes_per_token else []
    return [*rows, ("0.005 nats a byte", read.nats_per_byte), ("0.005 bpb, or bpb taken for nats", read.bits_per_byte)]


def _reading(name: str, bar: float, new: Sequence[float], old: Sequence[float]) -> Reading:
    single = _value(lambda: one_sample(new, statistics.fmean(old) - bar)) if len(new) > 1 else None
    both = _value(lambda: welch(new, old, shift=-bar)) if len(new) > 1 and len(old) > 1 else None
    return Reading(name, bar, single, both)


def _value(test: Any) -> float | None:
    found: TTest = test()
    return found.p_value if found.is_defined else None


def _written(readings: Sequence[Reading], difference: float, n: int) -> RecordRule:
    """Under the reading 'nats a token' by the one-sample form, which is what the README describes."""
    main = readings[0]
    if main.p_one_sample is None:
        beaten = -difference >= main.bar_bpb
        why = f"{n} run{'s' * (n != 1)}, no p-value; the mean is {-difference:.5f} bpb better, the bar is {main.bar_bpb:.5f}"
        return RecordRule(SIGNIFICANT.id, None if beaten else False, f"as written: {why}")
    passed = main.p_one_sample < WRITTEN_ALPHA
    agree = [r.name for r in readings if r.p_one_sample is not None and (r.p_one_sample < WRITTEN_ALPHA) == passed]
    reading = "under every reading" if len(agree) == len(readings) else f"read as {main.name}"
    honest = f"; Welch p {shown_p(main.p_welch)}" if main.p_welch is not None else ""
    return RecordRule(
        SIGNIFICANT.id,
        passed,
        f"as written (0.005 nats better at p < 0.01): {'met' if passed else 'not met'} {reading}, {-difference:+.5f} bpb, "
        f"one-sample p {shown_p(main.p_one_sample)}{honest}",
    )


def _administered(p: float | None, difference: float, n_new: int, n_old: int) -> RecordRule:
    if p is None:
        return RecordRule(
            ADMINISTERED.id,
            None if difference < 0 else False,
            f"as administered: {n_new} against {n_old} runs give no p-value",
        )
    passed = p < ADMINISTERED_ALPHA
    word = "met" if passed else "not met"
    return RecordRule(
        ADMINISTERED.id,
        passed,
        f"as administered (Welch p < 0.25 against the row before): {word}, p {shown_p(p)}",
    )


def target_rule(losses: Sequence[float], target: float, *, steps: bool) -> list[RecordRule]:
    """The entry conditions of the speedrun: the written one, and the mean alone, which the earliest records met."""
    if not losses:
        return []
    n, mean = len(losses), statistics.fmean(losses)
    rules = []
    if steps:
        margin = (target - mean) * n**0.5
        rules.append(
            RecordRule(
                STEPS.id, margin >= MARGIN - 1e-12,
                f"as written: ({target:g} - {mean:.5f}) x sqrt({n}) = {margin:.5f}, needed {MARGIN}",
            )
        )  # fmt: skip
    elif n > 1:
        test = one_sample(losses, target)
        p = f"p {format_p(test.p_value)}" if test.is_defined else "no spread to test"
        rules.append(
            RecordRule(
                TARGET.id, test.significant, f"as written: mean {mean:.5f} of {n} below {target:g} at p < 0.01: {p}"
            )
        )
    else:
        rules.append(
            RecordRule(TARGET.id, None, f"as written: one run ({mean:.4f}) gives no p-value against {target:g}")
        )
    rules.append(
        RecordRule(f"{TARGET.id} mean", mean <= target, f"as the early rows: mean {mean:.5f} of {n}, target {target:g}")
    )
    return rules


def control_rule(seconds: Sequence[float], control: Sequence[float]) -> list[RecordRule]:
    """Faster than the runs of the record before that stand in the same folder, and so were made on the same machine."""
    if len(seconds) < 2 or len(control) < 2:
        return []
    test = welch(seconds, control)
    gain = statistics.fmean(control) - statistics.fmean(seconds)
    p = f"p {format_p(test.p_value)}" if test.is_defined else "no spread to test"
    said = f"against {len(control)} control runs in the folder: {gain:+.3f} s saved, Welch {p}"
    return [RecordRule(SAME_MACHINE.id, test.significant, said)]


def steps_rule(new: Sequence[float], steps: int, old: Sequence[float], old_steps: int, predecessor: str) -> RecordRule:
    """The pairwise claim of the optimiser track: 100 steps saved count as 0.0045 of loss."""
    worth = statistics.fmean(old) - statistics.fmean(new) + STEP_WORTH * (old_steps - steps) / 100
    margin = worth / (1 / len(new) + 1 / len(old)) ** 0.5
    return RecordRule(
        PAIRWISE.id, margin >= MARGIN - 1e-12,
        f"against {predecessor}: {old_steps - steps:+,} steps saved are worth {worth:.5f} of loss, scaled {margin:.5f}, "
        f"needed {MARGIN}",
    )  # fmt: skip


def shown_p(value: float | None) -> str:
    """'0.0079', or '-' where there is no test."""
    return "-" if value is None else format_p(value).removeprefix("= ")
