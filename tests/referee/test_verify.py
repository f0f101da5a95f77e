"""From files to a verdict: an honest result, and every lie about it that the first referee must refuse."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from underpar.compress.codecs import Zlib
from underpar.compress.container import read_artifact
from underpar.compress.source import pack_source
from underpar.compress.writer import build_artifact
from underpar.core.errors import DataError
from underpar.records.verdict_page import render as render_page
from underpar.referee.case import ByteLimit, Case, Kind
from underpar.referee.checks import CHECKS, run_checks
from underpar.referee.claim import Claim, read_claim_file
from underpar.referee.counted_code import examine_code
from underpar.referee.jail.run import Jail
from underpar.referee.measure import Job, measure
from underpar.referee.measurement import Measurement
from underpar.referee.plan import Plan
from underpar.referee.probes.overlap import OverlapResult
from underpar.referee.render import render
from underpar.referee.sandbox import Limits
from underpar.referee.submission import ARTIFACT_FILE, Submission, submission_from_run
from underpar.referee.verdict import Ruling, Verdict
from underpar.referee.verify import Effort, verify

from .conftest import Honest, write_documents

SEED = 11


SMALL = Plan(
    segment_tokens=200, flip_trials=2, canaries=("uniform", "text"), canary_tokens=2048, sweep_positions=8
).to_json()
NOT_IN_THE_SMALL_PLAN = {
    "causality.whole", "causality.order", "causality.isolation", "canary.frequency", "process.replay", "process.warm_up",
    "process.world", "data.overlap", "data.unseen",
}  # fmt: skip
CLOSED = {"network": True, "files": True, "processes": True, "problem": "", "statement": "closed"}


def measured_here(submission: Submission) -> Case:
    """The case of a submission, measured in this process: the same measuring, without the start of a clean one."""
    subject = submission.describe()["files"]
    found = Measurement()
    with Jail(submission.copies()) as jail:
        job = Job(ARTIFACT_FILE, submission.tokenizer_name, submission.text_name, SEED, plan=SMALL)
        measure(jail.inputs, job, found)
    facts = json.loads(json.dumps(found.facts))
    return Case(
        submission.claim,
        submission.limit,
        facts,
        found.errors,
        tolerance=1e-4,
        artifact_sha256=subject[ARTIFACT_FILE]["sha256"],
        container_bytes=subject[ARTIFACT_FILE]["bytes"],
        code=examine_code(submission.code) if submission.code else None,
        closure=CLOSED,
    )


@pytest.fixture(scope="session")
def honest_case(honest: Honest) -> Case:
    return measured_here(honest.submission())


def judge(case: Case) -> Verdict:
    return Verdict(run_checks(case))


def failed(verdict: Verdict) -> set[str]:
    return {check.id for check in verdict.checks if check.passed is False}


# ------------------------------------------------------------------------------------------------- the honest result


def test_an_honest_result_is_valid_in_a_clean_process(honest: Honest) -> None:
    events: list[str] = []
    verdict = verify(honest.submission(), effort=Effort(seed=SEED), on_event=lambda doing, done: events.append(doing))
    assert {check.id for check in verdict.checks if check.passed is not True} <= {
        "causality.whole", "causality.order", "causality.isolation", "process.replay", "data.overlap", "data.unseen",
        "process.closed",  # a machine that refuses namespaces; then it must say so
    }  # fmt: skip
    assert verdict.ruling is Ruling.VALID, verdict.reason
    assert verdict.exit_code == 0
    assert {"reload", "text", "score", "canary_text", "flip", "sweep", "world"} <= set(events)
    facts = verdict.measured["facts"]
    assert facts["score"]["bits"] == pytest.approx(honest.score["bits"], rel=1e-6)
    assert "VALID" in render(verdict)
    again = Verdict.from_json(json.loads(json.dumps(verdict.to_json())))
    assert again == verdict


def test_an_honest_case_passes_every_check(honest_case: Case) -> None:
    results = run_checks(honest_case)
    assert not [r.id for r in results if r.passed is False]
    assert {r.id for r in results if r.passed is None} == NOT_IN_THE_SMALL_PLAN
    assert all(len(r.statement) > 20 and r.evidence for r in results if r.passed)
    assert len({r.id for r in results}) == len([check for check in CHECKS if Kind.ARTIFACT in check.kinds])


def test_without_a_claim_the_comparisons_are_not_checked_and_not_passed(honest_case: Case) -> None:
    verdict = judge(replace(honest_case, claim=Claim()))
    open_checks = {check.id for check in verdict.checks if check.passed is None}
    assert open_checks - NOT_IN_THE_SMALL_PLAN == {
        "size.claim", "size.file", "bytes.invariant", "coverage.claim", "score.claim", "time.budget",
    }  # fmt: skip
    assert verdict.ruling is Ruling.VALID
    assert "not checked: size.claim" in verdict.reason


# ------------------------------------------------------------------------------------------------- lies about numbers


def lie(case: Case, **changes: object) -> set[str]:
    return failed(judge(replace(case, claim=replace(case.claim, **changes))))


def test_a_lower_bpb_is_refused_by_the_score_and_by_the_byte_invariant(honest_case: Case) -> None:
    assert honest_case.claim.bpb is not None
    assert lie(honest_case, bpb=honest_case.claim.bpb * 0.999) == {"score.claim", "bytes.invariant"}


def test_a_consistent_lower_score_is_refused(honest_case: Case) -> None:
    claim = honest_case.claim
    assert claim.bpb
    assert claim.bits
    assert claim.loss_nats
    lower = {"bpb": claim.bpb * 0.9995, "bits": claim.bits * 0.9995, "loss_nats": claim.loss_nats * 0.9995}
    assert lie(honest_case, **lower) == {"score.claim"}


def test_inflated_bytes_are_refused(honest_case: Case) -> None:
    claim = honest_case.claim
    assert claim.bytes
    assert claim.bpb
    more = round(claim.bytes * 1.17)
    refused = lie(honest_case, bytes=more, bpb=claim.bpb * claim.bytes / more)
    assert refused == {"bytes.denominator", "bytes.invariant", "score.claim"}


def test_a_missing_token_or_document_is_refused(honest_case: Case) -> None:
    assert honest_case.claim.tokens
    assert honest_case.claim.documents
    assert "coverage.claim" in lie(honest_case, tokens=honest_case.claim.tokens - 1)
    assert lie(honest_case, documents=honest_case.claim.documents + 1) == {"coverage.claim"}


@pytest.mark.parametrize(
    ("shared", "rise", "free", "passes"),
    [
        (None, 0.0, 0.005, False),
        (90, 0.0, 0.005, True),
        (89, 0.0, 0.005, False),
        (100, 0.5, 0.005, False),
        (100, 0.0, 0.01, False),
    ],
)
def test_what_is_known_by_heart_may_have_been_learnt_in_the_training_shards(
    honest_case: Case, shared: int | None, rise: float, free: float, passes: bool
) -> None:
    """It is disputed where the shards do not explain it, where it is much, and where one altered token loses the place."""
    flip = honest_case.facts["flip"]
    trials = [trial | {"later_rise": rise, "later_dearer": 0.5} for trial in flip["trials"]]
    facts = honest_case.facts | {
        "flip": flip | {"trials": trials},
        "free_run": {"tokens": 112, "start": 5, "nats": 0.1, "share_free": free, "stretches": [[5, 112]]},
    }
    facts.pop("overlap", None)
    if shared is not None:
        counts = OverlapResult(2, 10_000, 40, 10, 0, None, 500, 100, 0, free_grams=100, shared_free_grams=shared)
        facts["overlap"] = counts.to_json()
    found = next(r for r in run_checks(replace(honest_case, facts=facts)) if r.id == "data.memory")
    assert found.passed is passes
    assert ("learnt there" in found.statement) is passes
    assert ("of 100 13-grams" in found.statement) is (shared is not None)


def test_understated_sizes_are_refused(honest_case: Case) -> None:
    claim = honest_case.claim
    assert claim.code_bytes
    assert claim.artifact_bytes
    assert lie(honest_case, code_bytes=74, artifact_bytes=claim.artifact_bytes - claim.code_bytes + 74) == {
        "size.claim"
    }


def test_a_scoring_that_took_longer_than_its_budget_is_refused(honest_case: Case) -> None:
    assert lie(honest_case, eval_seconds=600.0) == set()
    assert lie(honest_case, eval_seconds=600.1) == {"time.budget"}
    verdict = judge(replace(honest_case, claim=replace(honest_case.claim, eval_seconds=725.0)))
    assert verdict.ruling is Ruling.INVALID
    assert "725.0 s as recorded, limit 600 s of the run's own budget (125.0 s over)" in render(verdict)
    assert "V21" in verdict.headline


def test_a_score_of_another_file_is_refused(honest_case: Case) -> None:
    assert lie(honest_case, artifact_sha256="0" * 64) == {"size.file"}


def test_a_difference_that_another_precision_explains_is_unverifiable_and_says_what_to_do(honest_case: Case) -> None:
    claim = honest_case.claim
    assert claim.bpb
    assert claim.bits
    assert claim.loss_nats
    scaled = {"bpb": claim.bpb * 0.9995, "bits": claim.bits * 0.9995, "loss_nats": claim.loss_nats * 0.9995}
    verdict = judge(replace(honest_case, claim=replace(claim, device="cuda", **scaled)))
    assert verdict.ruling is Ruling.UNVERIFIABLE
    assert verdict.exit_code == 4
    assert "--device cuda" in verdict.reason
    worse = {name: value * 0.99 for name, value in scaled.items()}
    assert judge(replace(honest_case, claim=replace(claim, device="cuda", **worse))).ruling is Ruling.INVALID


def test_a_rounded_claim_is_held_to_the_digits_that_it_printed(honest_case: Case, tmp_path: Path) -> None:
    claim = honest_case.claim
    assert claim.bpb
    assert claim.loss_nats
    text = f'{{"bpb": {claim.bpb:.4f}, "loss_nats": {claim.loss_nats:.4f}, "tokens": {claim.tokens}}}'
    (tmp_path / "claim.json").write_text(text)
    rounded = Claim.of(read_claim_file(tmp_path / "claim.json"))
    assert failed(judge(replace(honest_case, claim=rounded))) == set()
    assert failed(judge(replace(honest_case, claim=replace(rounded, bpb=round(claim.bpb * 0.99, 4))))) >= {
        "score.claim"
    }


def test_over_the_budget_is_refused_at_one_byte(honest_case: Case) -> None:
    assert honest_case.code
    total = honest_case.container_bytes + honest_case.code.code_bytes
    assert failed(judge(replace(honest_case, limit=ByteLimit(total, "a test")))) == set()
    over = judge(replace(honest_case, limit=ByteLimit(total - 1, "a test")))
    assert failed(over) == {"size.budget"}
    assert "1 over" in over.reason


# ------------------------------------------------------------------------------------------------- doctored files


def test_a_truncated_or_damaged_artifact_is_refused(honest: Honest, tmp_path: Path) -> None:
    data = honest.artifact.read_bytes()
    bad = {"cut": data[:-100], "flipped": data[:5000] + bytes([data[5000] ^ 1]) + data[5001:], "empty": b""}
    for name, content in bad.items():
        path = tmp_path / f"{name}.upar"
        path.write_bytes(content)
        verdict = judge(measured_here(honest.submission(artifact=path)))
        assert verdict.ruling is Ruling.INVALID
        assert "artifact.reload" in failed(verdict)
        unknown = {check.id for check in verdict.checks if check.passed is None}
        assert {"score.claim", "canary.uniform", "causality.flip"} <= unknown


def test_an_artifact_that_names_another_tokenizer_is_refused(honest: Honest, tmp_path: Path) -> None:
    artifact = read_artifact(honest.artifact)
    header = artifact.header | {"tokenizer": artifact.header["tokenizer"] | {"sha256": "0" * 64}}
    data, _ = build_artifact(header, [artifact.encoded(name) for name in artifact.names], Zlib().frozen())
    path = tmp_path / "other.upar"
    path.write_bytes(data)
    assert "tokenizer.identity" in failed(judge(measured_here(honest.submission(artifact=path, claim=Claim()))))


def test_a_shortened_or_edited_text_is_refused(honest: Honest, tmp_path: Path) -> None:
    shorter = write_documents(tmp_path / "short.jsonl", honest.documents[1:])
    refused = failed(judge(measured_here(honest.submission(text=shorter))))
    assert {"bytes.denominator", "coverage.claim", "score.claim"} <= refused
    edited = (honest.documents[0] + "!", *honest.documents[1:])
    longer = write_documents(tmp_path / "long.jsonl", edited)
    assert {"bytes.denominator", "coverage.claim"} <= failed(judge(measured_here(honest.submission(text=longer))))


def test_code_that_lacks_a_module_or_is_no_archive_is_refused(
    honest: Honest, honest_case: Case, tmp_path: Path
) -> None:
    path = tmp_path / "code.tar.xz"
    path.write_bytes(
        pack_source(["underpar", "underpar.evaluate", "underpar.evaluate.load", "underpar.evaluate.score"])
    )
    code = examine_code(path)
    assert "underpar.model.gpt" in code.missing
    assert "code.complete" in failed(judge(replace(honest_case, code=code)))
    path.write_bytes(honest.code.read_bytes()[:-50])
    submission = honest.submission(code=path)
    verdict = verify(replace(submission, text=None))
    assert verdict.ruling is Ruling.INVALID
    assert "code.complete" in failed(verdict)
    assert any("raw held-out documents" in (check.missing or "") for check in verdict.checks)


def test_a_tokenizer_that_rewrites_the_text_is_disputed_with_both_readings(honest_case: Case) -> None:
    size, score = honest_case.facts["text"]["text_bytes"], honest_case.facts["score"]["bpb"]
    lost = {"places": 40, "units": 4000, "whitespace_places": 30, "rewritten_bytes": 50, "restore_bits": 0.01 * size}
    shown = {"altered_documents": 2, "first_altered": 1, "example": ["two\nlines", "two lines"], "recovery": lost}
    text = dict(honest_case.facts["text"]) | shown
    verdict = judge(replace(honest_case, facts=dict(honest_case.facts) | {"text": text}))
    assert verdict.ruling is Ruling.DISPUTED
    assert verdict.exit_code == 3
    assert "2 of 7 documents" in verdict.reason
    assert f"for all {size:,} raw bytes" in verdict.reason
    lenient, strict = verdict.readings
    assert (lenient["verdict"], lenient["bpb"]) == ("valid", score)
    assert (strict["verdict"], strict["bpb"]) == ("invalid", pytest.approx(score + 0.01))
    printed = render(Verdict(verdict.checks, dict(honest_case.to_json())))
    assert f"{score:.6f} bpb" in printed
    assert f"{score + 0.01:.6f} bpb" in printed
    assert f"{score + 0.01:.6f}" in render_page(verdict.to_json())


def test_a_process_that_runs_out_of_time_is_unverifiable(honest: Honest) -> None:
    verdict = verify(honest.submission(), limits=Limits(seconds=0.2))
    assert verdict.ruling is Ruling.UNVERIFIABLE
    assert "--time-limit" in verdict.reason


def test_missing_files_and_broken_claims_are_mistakes_of_the_user(honest: Honest, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no artifact at"):
        honest.submission(artifact=tmp_path / "nothing.upar")
    with pytest.raises(DataError, match="underpar pack"):
        submission_from_run(tmp_path)
    with pytest.raises(DataError, match="not a finite number"):
        Claim.of({"bpb": float("nan")})
    with pytest.raises(DataError, match="two values of bytes"):
        Claim.of({"bytes": 3}, {"bytes": 4})
