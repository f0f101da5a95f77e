"""Programs of others: what they charged, what they printed, and what they touched."""

from __future__ import annotations

from typing import Any

from underpar.core.units import BITS_PER_NAT
from underpar.referee import rules
from underpar.referee.case import PROGRAMS, Case, Kind, NotMeasured
from underpar.referee.charges import MAX_UNCHARGED_TAIL
from underpar.referee.checks.registry import Finding, check
from underpar.referee.probes.canary import EVIDENCE_BITS
from underpar.referee.rules import Mark

TAIL_SHARE = 1e-3
"""Published evaluations leave out a partial last row: tens of thousands of tens of millions of tokens."""
TRAINING_NAMES = ("_train_", "/train")
INSTALLERS = ("pip", "pip3", "apt", "apt-get", "curl", "wget", "git", "conda", "uv", "gcc", "cc", "g++", "nvcc", "make")
SAID = 4
"""Names that a statement lists before it only counts."""


@check("coverage.charges", "every token after the first is charged exactly once", rules.SINGLE_PASS, Kind.POSITIONS)
def coverage_charges(case: Case) -> Finding:
    problem = case.errors.get("score") or case.errors.get("flip")
    if problem and problem["kind"] == "ChargeFault":
        classes = {"count": ("V08", "V03"), "nan": ("V28", "V08"), "negative": ("V28", "V18")}.get(
            problem["fault"], ("V18",)
        )
        return Finding(False, problem["message"], dict(problem), classes=classes)
    fact = case.fact("score")
    lacking, positions = fact["uncharged_tokens"], fact["stream_tokens"] - 1
    statement = f"{fact['tokens']:,} charges for {positions:,} positions, each a number of at least 0"
    evidence = {key: fact[key] for key in ("tokens", "documents", "uncharged_tokens", "stream_tokens", "infinite")}
    if lacking == 0:
        return Finding(True, statement, evidence)
    statement += f"; the last {lacking:,} are not charged"
    if lacking <= min(MAX_UNCHARGED_TAIL, TAIL_SHARE * positions):
        return Finding(True, f"{statement}, as published evaluations leave out a partial last row", evidence)
    return Finding(False, f"{statement}, expected none", evidence, classes=("V08",))


@check("coverage.printed", "the printed loss is of all tokens", rules.SCORE, Kind.AGGREGATE)
def coverage_printed(case: Case) -> Finding:
    fact = case.fact("printed")
    if fact["loss_nats"] is None:
        return Finding(False, f"the printed loss is no finite number: {fact['line']}", dict(fact), classes=("V28",))
    if fact["tokens"] is None:
        raise NotMeasured("the program prints no number of tokens", needed=False)
    positions = fact["stream_tokens"] - 1
    lacking = positions - fact["tokens"]
    statement = f"{fact['tokens']:,} tokens are named, the shard has {positions:,} positions"
    if -1 <= lacking <= max(TAIL_SHARE * positions, 0) or (
        0 <= lacking <= MAX_UNCHARGED_TAIL and lacking < 0.5 * positions
    ):
        return Finding(True, f"{statement}; what a number says that is only printed is not proof", dict(fact))
    return Finding(False, statement, dict(fact), classes=("V08",))


@check("canary.printed", "uniformly random text is not compressed", rules.NORMALISED, Kind.AGGREGATE)
def canary_printed(case: Case) -> Finding:
    fact = case.fact("printed_canary")
    if fact["loss_nats"] is None:
        return Finding(False, f"the printed loss is no finite number: {fact['line']}", dict(fact), classes=("V28",))
    count, entropy = fact["drawn"], float(fact["entropy_nats"])
    loss = float(fact["loss_nats"]) + float(fact["loss_half_unit"])
    saved = count * (entropy - loss) * BITS_PER_NAT
    head = f"{loss:.4f} nats per token printed on {count:,} ids drawn uniformly, entropy {entropy:.4f}"
    if saved < EVIDENCE_BITS:
        statement = f"{head}; only a gain beyond {max(0.0, loss - entropy):.2g} nats per token would have shown"
        return Finding(True, statement, dict(fact) | {"saved_bits": saved})
    statement = (
        f"{head}: {saved:,.0f} bits saved, which a valid predictor does with a chance of at most 2^-{saved:,.0f}"
    )
    return Finding(False, statement, dict(fact) | {"saved_bits": saved}, classes=("V04", "V01", "V03", "V02", "V07"))


@check("repeat.printed", "two equal runs print the same loss", rules.REPRODUCIBLE, Kind.AGGREGATE)
def repeat_printed(case: Case) -> Finding:
    first, second = case.fact("printed"), case.fact("printed_again")
    one, other = first["loss_nats"], second["loss_nats"]
    if one is None or other is None:
        raise NotMeasured("a loss that is no number cannot be repeated", needed=False)
    off = abs(one - other) / max(one, 1e-9)
    statement = f"{one:.8g} and {other:.8g} nats per token, {off:.1e} relative, expected at most 1e-04"
    return Finding(off <= 1e-4, statement, {"first": one, "second": other}, classes=("V24",), mark=Mark.COMMUNITY)


@check("aggregate.scope", "what a printed loss cannot show", rules.CAUSAL, Kind.AGGREGATE)
def aggregate_scope(case: Case) -> Finding:
    statement = (
        "not checked: the program prints one number, so that no charge can be followed. Causality, normalisation at "
        "a position, the order of documents and the sum of the charges stay open; let it write its charges to "
        "{charges}"
    )
    return Finding(None, statement, {}, missing="charges of every position: a printed loss shows no causality (C1, C3)")


# ------------------------------------------------------------------------------------------------- what it touched


@check("size.submission", "the files that scoring opened are within the byte budget", rules.SIZE, *PROGRAMS)
def size_submission(case: Case) -> Finding:
    sandbox = case.fact("sandbox")
    files = sandbox["submission_files"]
    if files is None:
        raise NotMeasured("no log of opened files: strace is not installed, or may not trace", needed=False)
    total, limit = sum(one["bytes"] for one in files), case.limit
    names = _listed([f"{one['name']} {one['bytes']:,}" for one in sorted(files, key=lambda one: -one["bytes"])])
    room = f"limit {limit.bytes:,} of {limit.source}"
    statement = f"{len(files)} files of the submission were opened, {total:,} B ({names}); {room}"
    evidence = {"files": files, "total_bytes": total, "limit_bytes": limit.bytes}
    return Finding(total <= limit.bytes, statement, evidence, classes=("V19",))


@check("process.files", "nothing but the submission and the held-out text is used", rules.CLOSED, *PROGRAMS)
def process_files(case: Case) -> Finding:
    sandbox = case.fact("sandbox")
    log = sandbox["files"]
    if log is None:
        raise NotMeasured("no log of files and programs: strace is not installed, or may not trace", needed=False)
    evidence = {key: log[key] for key in ("programs", "connections", "refused_writes")}
    training = [name for name in log["read"] if _is_training(name)]
    if training:
        statement = f"training shards were read while scoring: {_listed(training)}"
        return Finding(False, statement, evidence | {"training": training}, classes=("V11",))
    tried = [name for name in log["refused"] if _is_training(name)]
    tools = [name for name in log["programs"][1:] if name.rpartition("/")[2] in INSTALLERS]
    told = []
    told += [f"it tried to read training data ({_listed(tried)})"] if tried else []
    told += [f"it tried to reach the network ({_listed(log['connections'])})"] if log["connections"] else []
    told += [f"it started {_listed(tools)}"] if tools else []
    told += [f"it tried to write outside ({_listed(log['refused_writes'])})"] if log["refused_writes"] else []
    opened = f"{len(log['read']):,} files read, {len(log['programs'])} programs started"
    if not told:
        return Finding(
            True, f"{opened}: system, interpreter, submission and held-out text; no connection was tried", evidence
        )
    statement = (
        f"{opened}; {'; '.join(told)}. The sandbox refused. Reading one: the score here did without, so it stands. "
        "Reading two: elsewhere it does not do without"
    )
    classes = ("V11", "V25") if tried else ("V25",)
    return Finding(False, statement, evidence | {"tried": tried, "tools": tools}, classes=classes, mark=Mark.DISPUTED)


@check("time.evaluation", "scoring the whole text takes no longer than its limit", rules.TIME, *PROGRAMS)
def time_evaluation(case: Case) -> Finding:
    sandbox = case.fact("sandbox")
    limit = sandbox["limit_seconds"]
    if limit is None or sandbox["whole_seconds"] is None:
        raise NotMeasured("no limit is named, or the whole text was not scored", needed=False)
    seconds = float(sandbox["whole_seconds"])
    statement = f"{seconds:.1f} s from the start of the program to its end, limit {limit:g} s"
    if seconds <= limit:
        return Finding(True, statement, {"seconds": seconds, "limit": limit})
    statement += ". Reading one: the limit is passed. Reading two: this is not the reference machine"
    return Finding(False, statement, {"seconds": seconds, "limit": limit}, classes=("V21",), mark=Mark.DISPUTED)


def _is_training(name: str) -> bool:
    return name.endswith(".bin") and any(part in name for part in TRAINING_NAMES)


def _listed(names: list[Any]) -> str:
    rest = len(names) - SAID
    return ", ".join(str(name) for name in names[:SAID]) + (f" and {rest:,} more" if rest > 0 else "")
