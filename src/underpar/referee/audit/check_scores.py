"""Do the stated scores stand in the logs, and is the headline what the runs say together?"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from underpar.referee.audit.facts import Score
from underpar.referee.audit.outcome import Check, Found, Note, listed, show_line
from underpar.referee.audit.printed import Printed
from underpar.referee.audit.record import Record
from underpar.referee.audit.rules import FIGURES, MEAN
from underpar.referee.audit.runs import Run
from underpar.referee.rules import REPRODUCIBLE, Mark

LOGGED = Check("score.logged", "every stated score is printed by the log it is stated of", REPRODUCIBLE, "V23")
HEADLINE = Check("score.mean", "the headline is the mean of the runs", MEAN, "V22")
FINISHED = Check("score.finished", "every log ends with the score of the packed model", REPRODUCIBLE, "V23")
SPREAD = Check("score.spread", "the stated deviation is that of the runs", FIGURES, "V18")
OTHERS = Check("score.figures", "the other stated figures are those of the logs", FIGURES, "V23")

_NEAR_BPB = 0.002
"""A headline this close to the logs can be a run whose log was left out; one further off is of something else."""


def check_scores(record: Record) -> Iterator[Found]:
    """Everything about the scores of the 16 MB game."""
    if record.is_speedrun:
        return
    yield _finished(record)
    yield _logged(record)
    yield from _headline(record)
    yield from _figures(record)


# --------------------------------------------------------------------------------------------------- logs


def _finished(record: Record) -> Found:
    short = [run.log.name for run in record.runs if run.log is not None and run.score is None]
    if not record.logs:
        return FINISHED.skipped("there is no log")
    if short:
        return FINISHED.lacks(
            f"the final score in {listed(short)}",
            f"{listed(short)} end{'s' * (len(short) == 1)} before the packed model is scored: "
            "what is claimed of such a run cannot be seen",
            logs=short,
        )
    return FINISHED.passed(f"{len(record.logs)} of {len(record.logs)} logs print the score of the packed model")


def _logged(record: Record) -> Found:
    claims = record.claims
    if claims is None or (claims.bpb is None and not claims.seeds and claims.loss is None):
        return LOGGED.skipped("nothing is stated in submission.json")
    wrong = [pair for run in record.runs for pair in (*_against_log(run), *_against_itself(run))]
    if wrong:
        texts = [text for text, _ in wrong]
        return LOGGED.failed(listed(texts), see=show_line(str(record.root), wrong[0][1]), contradictions=texts)
    if not record.values:
        return LOGGED.skipped("no log prints a score")
    if not claims.seeds:
        return _flat(record)
    seen = [run for run in record.runs if run.score is not None]
    return LOGGED.passed(f"{len(seen)} of {len(record.runs)} stated scores found, to the last printed digit")


def _against_itself(run: Run) -> list[tuple[str, str]]:
    """A score that a log prints twice, rounded and exact, and not the same.

    Later scripts repeat the score of another pass under the oldest exact label; that is not a contradiction.
    """
    finals = run.block.finals
    wrong = []
    for exact in finals:
        rounded = [s for s in finals if s.label and exact.label.replace("_exact", "") == s.label and s is not exact]
        repeated = any(s.bpb and exact.bpb and exact.bpb.agrees(s.bpb) for s in finals if s.label != exact.label)
        for other in rounded[-1:] if not repeated else ():
            for a, b in ((exact.bpb, other.bpb), (exact.loss, other.loss)):
                if a is not None and b is not None and not a.agrees(b):
                    wrong.append((f"{a.where} prints {a}, {b.where} the same score as {b}", a.where))
    return wrong


def _against_log(run: Run) -> list[tuple[str, str]]:
    """What submission.json states of a seed and the log of that seed contradicts, with the place in the log."""
    if run.claim is None or run.log is None or run.score is None:
        return []
    wrong = []
    for word, stated, shown in (("bpb", run.claim.bpb, run.score.bpb), ("loss", run.claim.loss, run.score.loss)):
        if stated is None or shown is None or stated.agrees(shown):
            continue
        if _elsewhere(run, word, stated):
            continue
        said = f"{stated.where} = {stated}, but {shown.where} prints {shown}{_diagnostic(run, word, stated)}"
        wrong.append((said, shown.where))
    return wrong


def _elsewhere(run: Run, word: str, stated: Printed) -> bool:
    """Whether another final line of the log has the figure: a loss is often stated of another window than the score."""
    finals = run.block.finals
    figures = [s.loss if word == "loss" else s.bpb for s in finals]
    return any(f is not None and stated.agrees(f) for f in figures)


def _diagnostic(run: Run, word: str, stated: Printed) -> str:
    """Points out a score that was measured before packing."""
    scores: list[Score] = [*run.block.scores, *run.block.periodic]
    for score in scores:
        figure = score.loss if word == "loss" else score.bpb
        if not score.is_final and figure is not None and stated.agrees(figure):
            return f" (the stated value is '{score.label}', which is not the packed model)"
    return ""


def _flat(record: Record) -> Found:
    """A submission of one figure: it must be a score of some log, or the mean over the logs."""
    claims = record.claims
    stated = claims.bpb or claims.loss if claims else None
    if stated is None:
        return LOGGED.skipped("no score is stated")
    finals = [s for log in record.logs for s in log.block.finals]
    figures = [f for s in finals for f in (s.bpb, s.loss) if f is not None]
    if any(stated.agrees(f) for f in figures):
        return LOGGED.passed(f"{stated.where} = {stated} is printed by a log")
    mean = statistics.fmean(record.values)
    if stated.agrees(mean) or stated.agrees(round(mean, 5)):
        return LOGGED.passed(f"{stated.where} = {stated} is the mean over {len(record.values)} logs")
    best = min(record.values)
    said = f"{stated.where} = {stated} is in no log; best of {len(record.values)} logs {best:.6f}, mean {mean:.6f}"
    if stated.value >= best - stated.unit:
        return LOGGED.failed(said, mark=Mark.COMMUNITY, rule=FIGURES, stated=stated.value, best=best, mean=mean)
    if best - stated.value <= _NEAR_BPB:
        missing = f"the log of the run that scored {stated}"
        return LOGGED.lacks(missing, f"{said}: the log of that run is not here", stated=stated.value, best=best)
    return LOGGED.failed(
        f"{said}; {best - stated.value:.4f} bpb better than anything shown", stated=stated.value, best=best, mean=mean
    )


# ------------------------------------------------------------------------------------------------ headline


def _headline(record: Record) -> Iterator[Found]:
    claims = record.claims
    per_seed = [s.bpb for s in claims.seeds if s.bpb is not None] if claims else []
    if claims is None or claims.bpb is None or len(per_seed) < 2:
        yield HEADLINE.skipped("fewer than two stated scores")
        return
    mean = statistics.fmean(map(float, per_seed))
    rounding = statistics.fmean(p.unit for p in per_seed) + _log_rounding(record)
    stated = Printed(claims.bpb.value, claims.bpb.unit + rounding, claims.bpb.where)
    if stated.agrees(mean):
        yield HEADLINE.passed(f"{claims.bpb} is the mean of {len(per_seed)} seeds ({mean:.6f})", mean=mean)
    elif claims.bpb.value > mean:
        yield HEADLINE.passed(
            f"{claims.bpb} is not better than the mean of {len(per_seed)} seeds ({mean:.6f})", mean=mean
        )
    else:
        best = min(map(float, per_seed))
        what = "the best of the seeds, not their mean" if stated.agrees(best) else "neither a seed nor the mean"
        yield HEADLINE.failed(
            f"{claims.bpb.where} = {claims.bpb}, the mean of {len(per_seed)} stated seeds is {mean:.6f}: {what}",
            stated=claims.bpb.value,
            mean=mean,
        )
    yield from _spread(record, [float(p) for p in per_seed], rounding)


def _log_rounding(record: Record) -> float:
    """The last digit of the scores in the logs."""
    return max((run.score.bpb.unit for run in record.runs if run.score and run.score.bpb), default=0.0)


def _spread(record: Record, values: list[float], rounding: float) -> Iterator[Found]:
    """The stated standard deviation: sample (n - 1), population (n), or neither."""
    claims = record.claims
    if claims is None or claims.bpb_sd is None:
        return
    shown = record.values if len(record.values) == len(values) else values
    stated = Printed(claims.bpb_sd.value, claims.bpb_sd.unit + rounding, claims.bpb_sd.where)
    sample, population = statistics.stdev(shown), statistics.pstdev(shown)
    if stated.agrees(sample):
        yield SPREAD.passed(f"{stated.where} = {claims.bpb_sd}, sample deviation of {len(shown)} runs {sample:.6f}")
    elif stated.agrees(population):
        yield SPREAD.passed(f"{stated.where} = {claims.bpb_sd} divides by n, not n - 1")
        yield Note(
            "stats.population_sd",
            f"{stated.where} = {claims.bpb_sd} is the population value; the sample deviation, which tests use, is {sample:.5f}",
        )
    elif claims.bpb_sd.value > sample:
        yield SPREAD.passed(f"{stated.where} = {claims.bpb_sd} is more than the sample deviation {sample:.6f}")
        yield Note("stats.sd", f"{stated.where} = {claims.bpb_sd}; these {len(shown)} runs give {sample:.5f}")
    else:
        yield SPREAD.failed(
            f"{stated.where} = {claims.bpb_sd}; these {len(shown)} runs give {sample:.6f} (sample) or {population:.6f} "
            "(population)",
            stated=claims.bpb_sd.value, sample=sample, population=population,
        )  # fmt: skip


# ------------------------------------------------------------------------------------------------- figures


def _figures(record: Record) -> Iterator[Found]:
    """Steps and seconds, per seed or of the only run."""
    wrong, seen = [], 0
    for run in record.runs:
        if run.log is None:
            continue
        steps, seconds = run.block.steps, run.block.train_seconds
        stated = run.claim.steps if run.claim else None
        if stated is not None and steps is not None:
            seen += 1
            if abs(stated.value - steps[0]) > 1:
                wrong.append(f"{stated.where} = {stated}, {run.log.name}:{steps[1]} prints {steps[0]:,} steps")
        clock = run.claim.train_seconds if run.claim else None
        if clock is not None and seconds is not None:
            seen += 1
            if abs(clock.value - seconds.value) > max(1.0, clock.unit + seconds.unit):
                wrong.append(f"{clock.where} = {clock.value:.1f} s, {seconds.where} prints {seconds.value:.1f} s")
    if wrong:
        yield OTHERS.failed(listed(wrong), contradictions=wrong)
    elif seen:
        yield OTHERS.passed(f"{seen} stated steps and training times found in the logs")
