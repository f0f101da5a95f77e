"""A tree of records: found, ranked, each tested against the best before it, as text, JSON and a page that loads nothing."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from underpar.cli import main
from underpar.referee.audit.find import find_records, is_record_folder
from underpar.referee.audit.page import render_page
from underpar.referee.audit.table import render_board
from underpar.referee.audit.tree import Board, audit_tree

from . import forge


def shifted(amount: float, seeds: int = 3) -> forge.Files:
    """A record whose scores are those of #1736, moved."""
    return forge.late_folder(tuple(replace(run, bpb=round(run.bpb + amount, 8)) for run in forge.LATE[:seeds]))


def dated(files: forge.Files, date: str, name: str) -> forge.Files:
    forge.edit_json(files, lambda d: d.update(date=date, name=name))
    return files


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Four records of the 16 MB game, one of them over the cap, and one of the speedrun."""
    home = tmp_path / "records"
    golf = home / forge.RECORD_TRACK
    forge.write(dated(shifted(0.0), "2026-04-19", "first"), golf / "2026-04-19_first")
    forge.write(dated(shifted(-0.004), "2026-04-21", "better"), golf / "2026-04-21_better")
    forge.write(dated(shifted(-0.0042), "2026-04-23", "hardly"), golf / "2026-04-23 with spaces")
    heavy = shifted(-0.02)
    for run in forge.LATE:
        forge.change(heavy, f"train_seed{run.seed}.log", f"brotli: {run.model_bytes}", "brotli: 16000001")
        total = run.model_bytes + len(forge.SCRIPT.encode())
        forge.change(heavy, f"train_seed{run.seed}.log", f"brotli: {total}", "brotli: 16006177")
        forge.change(heavy, "submission.json", f"{total}", "16006177")
    forge.write(dated(heavy, "2026-04-20", "heavy"), golf / "2026-04-20_heavy")
    forge.write(forge.speedrun_folder(), home / forge.SPEEDRUN_TRACK / "2026-01-01_Fast")
    (golf / "README.md").write_text("# Records\n")
    (golf / "TEMPLATE").mkdir()
    (home / ".git").mkdir()
    return home


def test_record_folders_are_found(tree: Path) -> None:
    names = [folder.name for folder in find_records(tree)]
    assert names == [
        "2026-04-19_first", "2026-04-20_heavy", "2026-04-21_better", "2026-04-23 with spaces", "2026-01-01_Fast",
    ]  # fmt: skip
    assert not is_record_folder(tree)
    assert not is_record_folder(tree / forge.RECORD_TRACK)


def test_a_speedrun_record_keeps_its_arms_together(tmp_path: Path) -> None:
    home = tmp_path / "track_1_short" / "2026-02-02_Arms"
    arms = {f"this_pr/{i}.txt": forge.speedrun_log(3.2779, 90.0 + i / 10).encode() for i in range(4)}
    arms |= {f"baseline/{i}.txt": forge.speedrun_log(3.2779, 92.0 + i / 10).encode() for i in range(4)}
    forge.write(arms | {"README.md": b"# Arms\n"}, home)
    assert find_records(tmp_path) == [home]
    report = audit_tree(tmp_path).reports[0]
    assert report.score is not None
    assert report.score.n == 4
    control = next(rule for rule in report.rules if rule.id == "S4")
    assert control.passed
    assert "+2.000 s saved" in control.statement


def test_board_is_ranked_and_tested(tree: Path) -> None:
    board = audit_tree(tree)
    assert board.counts == {"invalid": 1, "valid": 4}
    assert board.exit_code == 1
    golf = dict(board.tracks)["golf-record"]
    assert [report.name for report in golf] == ["heavy", "hardly", "better", "first"]
    by_name = {report.name: report for report in golf}
    better, hardly = by_name["better"].significance, by_name["hardly"].significance
    assert by_name["first"].significance is None
    assert better is not None
    command = str(by_name["better"].verdict.subject["command"])
    assert command == f"underpar audit {by_name['better'].folder} --against {by_name['first'].folder}"
    assert better.predecessor.endswith("first")  # the heavy one is invalid and does not count
    assert better.difference == pytest.approx(-0.004, abs=1e-8)
    assert [rule.passed for rule in better.rules] == [False, True]
    assert hardly is not None
    assert hardly.predecessor.endswith("better")
    assert [rule.passed for rule in hardly.rules] == [False, False]


def test_every_reading_of_the_bar_is_printed(tree: Path) -> None:
    board = audit_tree(tree)
    found = next(r for r in board.reports if r.name == "better").significance
    assert found is not None
    assert [(r.name, round(r.bar_bpb, 5)) for r in found.readings] == [
        ("0.005 nats a token", 0.00228), ("0.005 nats a byte", 0.00721), ("0.005 bpb, or bpb taken for nats", 0.005),
    ]  # fmt: skip
    # against mean(old) - bar with the old mean taken as exact, and Welch with the bar as a shift
    assert found.readings[0].p_one_sample == pytest.approx(0.0253, abs=5e-4)
    assert found.readings[0].p_welch == pytest.approx(0.0205, abs=2e-3)
    assert found.readings[1].p_one_sample is not None
    assert found.readings[1].p_one_sample > 0.9


def test_processes_and_one_process_agree(tree: Path) -> None:
    steps: list[tuple[int, int]] = []
    many = audit_tree(tree, jobs=2, on_progress=lambda done, all: steps.append((done, all)))
    assert many.to_json() == audit_tree(tree).to_json()
    assert steps == [(i + 1, 5) for i in range(5)]


def test_table_has_a_line_for_each_folder(tree: Path) -> None:
    text = render_board(audit_tree(tree))
    row = next(line for line in text.splitlines() if line.endswith("2026-04-20_heavy"))
    assert row.split()[:2] == ["1", "invalid"]
    assert "V19" in row
    assert "track_10min_16mb/2026-04-23 with spaces" in text
    assert "5 folders: 1 invalid, 4 valid" in text


def test_page_loads_nothing_and_escapes_everything(tree: Path, tmp_path: Path) -> None:
    evil = dated(shifted(-0.001), "2026-04-25", "</script><img src=x onerror=alert(1)>")
    forge.write(evil, tree / forge.RECORD_TRACK / "2026-04-25_evil")
    html = render_page(audit_tree(tree))
    assert "<img" not in html
    assert "default-src 'none'" in html
    assert not re.findall(r'(?:src|href)="(?!data:)', html)
    assert html.count("<tr data-") == 6
    assert 'data-verdict="invalid"' in html
    assert 'data-flags="V19"' in html


def test_command_line(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "out" / "board.html"
    assert main(["audit", str(tree), "--page", str(page), "--json", "--jobs", "1"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["counts"] == {"invalid": 1, "valid": 4}
    assert {f["verdict"] for f in printed["folders"]} == {"valid", "invalid"}
    assert page.read_text().startswith("<!doctype html>")
    folder = tree / forge.RECORD_TRACK / "2026-04-21_better"
    first = tree / forge.RECORD_TRACK / "2026-04-19_first"
    assert main(["audit", str(folder), "--against", str(first)]) == 0
    out = capsys.readouterr().out
    assert "not met" in out
    assert "as administered (Welch p < 0.25 against the row before): met" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["/nowhere/at/all"], "/nowhere/at/all: neither a folder nor a .py file"),
        (["{empty}"], "no record folder"),
        (["{tree}", "--all"], "--all does not apply"),
        (["{folder}", "--page", "x.html"], "--page does not apply"),
        (["{folder}", "--track", "golf-rekord"], "did you mean 'golf-record'?"),
    ],
)
def test_mistakes_are_one_line(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"tree": tree, "empty": tmp_path / "empty", "folder": tree / forge.RECORD_TRACK / "2026-04-19_first"}
    assert main(["audit", *(word.format(**places) for word in words)]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_a_verdict_follows_from_its_own_json(tree: Path) -> None:
    from underpar.referee.verdict import Verdict

    board: Board = audit_tree(tree)
    for report in board.reports:
        again = Verdict.from_json(json.loads(json.dumps(report.to_json())))
        assert again.ruling is report.verdict.ruling


def test_steps_of_the_optimiser_track_are_compared(tmp_path: Path) -> None:
    """100 steps saved count as 0.0045 of loss; 25 of them do not pay for a loss that is 0.001 higher."""
    home = tmp_path / "track_3_optimization"
    for date, steps, loss in (("2026-04-01", 3250, 3.2780), ("2026-04-08", 3125, 3.2782), ("2026-04-15", 3100, 3.2792)):
        runs = {f"run{i}.txt": forge.speedrun_log(loss + (i - 3.5) / 1e4, 900.0 + i, steps).encode() for i in range(8)}
        forge.write(runs | {"README.md": b"# Muon\n"}, home / f"{date}_steps")
    board = audit_tree(tmp_path)
    assert [report.steps[0] for report in board.reports] == [3100, 3125, 3250]
    claims = {r.steps[0]: next((x for x in r.rules if x.id == "T5"), None) for r in board.reports}
    assert claims[3250] is None
    better, worse = claims[3125], claims[3100]
    assert better is not None
    assert better.passed
    assert "+125 steps saved are worth 0.00543" in better.statement
    assert worse is not None
    assert not worse.passed
