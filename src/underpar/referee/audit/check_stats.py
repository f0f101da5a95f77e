"""Stated tests, computed again."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from underpar.referee.audit.outcome import Found, Note
from underpar.referee.audit.printed import Printed, printed
from underpar.referee.audit.record import Record
from underpar.stats import one_sample

_REFERENCES = ("comparison_threshold", "baseline_val_bpb", "previous_val_bpb", "prior_sota_bpb", "sota_val_bpb")


def check_stats(record: Record) -> Iterator[Found]:
    """Notes on p-values and on samples that cannot be tested."""
    if record.is_speedrun or record.claims is None:
        return
    values = record.values if len(record.values) > 1 else [float(s.bpb) for s in record.claims.seeds if s.bpb]
    if len(values) > 1 and len(set(values)) == 1:
        yield Note("stats.identical", f"{len(values)} runs have one score, {values[0]:.6f}: no spread to test", "V22")
    stated, threshold = record.claims.p_value, _threshold(record)
    if stated is None or threshold is None or len(values) < 2:
        return
    test = one_sample(values, threshold.value)
    if test.is_defined and not _same_p(stated, test.p_value):
        yield Note(
            "stats.p_value",
            f"{stated.where} = {stated.value:.4g}; {len(values)} scores (mean {statistics.fmean(values):.6f}) against "
            f"{threshold.where} = {threshold} give p = {test.p_value:.4g}",
            file=record.claims.file,
        )


def _threshold(record: Record) -> Printed | None:
    for key in _REFERENCES:
        value = record.claims.raw.get(key) if record.claims else None
        if value is not None and not isinstance(value, bool):
            found = printed(str(value), key)
            if found:
                return found
    return None


def _same_p(stated: Printed, computed: float) -> bool:
    return stated.agrees(computed) or abs(stated.value / computed - 1) < 0.05 if computed else stated.value < 1e-12
