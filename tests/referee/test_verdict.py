"""The word of a verdict follows from its checks; claims keep the precision that they were printed with."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpar.core.errors import DataError
from underpar.referee.checks import CHECKS
from underpar.referee.claim import Claim, Printed, half_unit, read_claim_file
from underpar.referee.rules import RULES, Mark
from underpar.referee.sandbox import Limits, run_clean
from underpar.referee.verdict import EXIT_CODES, CheckResult, Ruling, Verdict


def result(passed: bool | None, mark: Mark = Mark.OFFICIAL, missing: str | None = None) -> CheckResult:
    return CheckResult("an.id", "a title", "G1", mark, passed, "a statement", {"n": 1}, missing)


@pytest.mark.parametrize(
    ("checks", "ruling"),
    [
        ((result(True),), Ruling.VALID),
        ((result(True), result(None)), Ruling.VALID),
        ((result(True), result(None, missing="a thing")), Ruling.UNVERIFIABLE),
        ((), Ruling.UNVERIFIABLE),
        ((result(False, Mark.DISPUTED), result(None, missing="a thing")), Ruling.DISPUTED),
        ((result(False, Mark.COMMUNITY),), Ruling.DISPUTED),
        ((result(False, Mark.DISPUTED), result(False)), Ruling.INVALID),
        ((result(None, missing="a thing"), result(False)), Ruling.INVALID),
    ],
)
def test_official_failures_outrank_disputes_and_disputes_outrank_gaps(
    checks: tuple[CheckResult, ...], ruling: Ruling
) -> None:
    verdict = Verdict(checks)
    assert verdict.ruling is ruling
    assert verdict.exit_code == EXIT_CODES[ruling]
    assert verdict.is_valid == (ruling is Ruling.VALID)


results = st.builds(
    result, st.sampled_from([True, False, None]), st.sampled_from(Mark), st.sampled_from([None, "a thing"])
)


@given(checks=st.lists(results, max_size=5))
def test_a_verdict_survives_its_file_and_a_forged_word_does_not(checks: list[CheckResult]) -> None:
    verdict = Verdict(tuple(checks))
    data = json.loads(json.dumps(verdict.to_json()))
    assert Verdict.from_json(data) == verdict
    for other in set(Ruling) - {verdict.ruling}:
        with pytest.raises(DataError, match="verify again"):
            Verdict.from_json(data | {"verdict": str(other)})


def test_every_check_names_a_rule_of_the_list() -> None:
    assert {check.rule for check in CHECKS} <= set(RULES)
    assert len({rule.id for rule in RULES}) == len(RULES)


@pytest.mark.parametrize(("text", "half"), [("1.2244", 5e-5), ("1.22", 5e-3), ("2e-3", 5e-4), ("12.0", 0.05)])
def test_printed_numbers_know_their_last_digit(text: str, half: float) -> None:
    assert half_unit(Printed(text)) == pytest.approx(half)
    assert Printed(text) == float(text)
    assert half_unit(1.2244) == 0.0


@pytest.mark.parametrize(
    "bad",
    [{"bits": -1.0}, {"bpb": float("inf")}, {"tokens": 1.5}, {"bytes": True}, {"bpb": "1.2"}, {"artifact_sha256": 3}],
)
def test_claims_that_are_no_numbers_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(DataError, match="claimed"):
        Claim.of(bad)


@pytest.mark.parametrize("content", ["{", "[1]", '{"a": ' * 5000, "\xff"])
def test_claim_files_that_are_no_objects_are_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "claim.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=r"claim\.json"):
        read_claim_file(path)


def test_a_process_that_fails_says_why_and_leaves_no_result() -> None:
    outcome = run_clean("underpar.referee.no_such_module", {}, {}, Limits(seconds=60), lambda doing, done: None)
    assert outcome.result is None
    assert "ended with code 1" in (outcome.problem or "")
    assert "no_such_module" in (outcome.problem or "")
