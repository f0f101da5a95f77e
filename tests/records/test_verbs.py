"""The verbs record, report and compare, as the command line calls them."""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from underpar.cli import compare, record, report
from underpar.core.errors import ConfigError, RecordError
from underpar.stats import StatsError

FakeRun = Callable[..., Path]


def call(verb: ModuleType, *arguments: object) -> int:
    parser = argparse.ArgumentParser()
    verb.configure(parser)
    return int(verb.run(parser.parse_args([str(a) for a in arguments])))


def test_record_states_its_claim(seq4096_runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "record"
    assert call(record, *seq4096_runs, "--out", out, "--author", "me", "--threshold", 1.21113611) == 0
    printed = capsys.readouterr()
    assert "val_bpb 1.20136, 3 seeds, compliant" in printed.out
    assert "t = 9.04, df 2, p = 0.0060" in printed.out
    assert printed.err == ""
    stored = json.loads((out / "submission.json").read_text())
    assert (stored["name"], stored["github_id"]) == ("golf/seq4096", "me")


def test_record_says_what_is_not_met(fake_run: FakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [fake_run(1, bpb=1.2, points=20), fake_run(2, bpb=1.3, points=20)]
    assert call(record, *runs, "--out", tmp_path / "record", "--author", "me", "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["compliance"]["three_seeds"] is False
    assert printed.err == "not met: three_seeds: 2 seeds: 1, 2\n"


def test_compare_prints_both_tests_and_a_sentence(fake_run: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    old = {42: 1.06610085, 0: 1.06473025, 1234: 1.06562743}
    new = {42: 1.06400238, 0: 1.06307957, 1234: 1.06296654}
    runs: dict[str, list[Path]] = {}
    for name, table in (("new", new), ("old", old)):
        runs[name] = []
        for seed, bpb in table.items():
            folder = fake_run(seed, bpb=bpb, points=20, recipe=f"golf/{name}")
            runs[name].append(folder.rename(folder.with_name(f"{name}-{seed}")))
    assert call(compare, *runs["new"], "--against", *runs["old"]) == 0
    text = capsys.readouterr().out
    assert "one-sided p = 0.0079, significant at 0.01" in text
    assert "one-sided p = 0.0091" in text
    assert "golf/new is 0.002137 val_bpb lower than golf/old" in text
    assert call(compare, *runs["new"], "--against", *runs["old"], "--margin", 0.002, "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["welch"]["significant"] is False
    assert data["paired"]["n"] == [3]


def test_compare_refuses_one_run_and_repeats(fake_run: FakeRun) -> None:
    runs = [fake_run(s, bpb=1.2 + s / 100, points=20) for s in (1, 2)]
    with pytest.raises(StatsError, match="first set: 1 value, at least 2 needed"):
        call(compare, runs[0], "--against", *runs)
    again = runs[0].rename(runs[0].with_name("again"))
    with pytest.raises(RecordError, match="seed 1 occurs twice"):
        call(compare, again, fake_run(1, points=20), "--against", again, runs[1])


def test_compare_refuses_what_cannot_be_compared(fake_run: FakeRun) -> None:
    def runs(name: str, **how: object) -> list[Path]:
        made = [fake_run(seed, bpb=1.2 + seed / 100, points=20, **how) for seed in (1, 2)]
        return [folder.rename(folder.with_name(f"{name}-{folder.name}")) for folder in made]

    plain, mixed, other = runs("plain"), runs("mixed"), runs("other")
    change(mixed[1] / "config.json", lambda found: found["config"]["budget"].update(train_seconds=90.0))
    with pytest.raises(RecordError, match=r"differ beyond the seed: budget\.train_seconds: 600\.0 against 90\.0"):
        call(compare, *plain, "--against", *mixed)
    for folder in other:
        change(folder / "score.json", lambda found: found.update(tokens=found["tokens"] - 1))
    assert call(compare, *plain, "--against", *other) == 0
    with pytest.raises(RecordError, match="scored on different texts"):
        call(compare, *plain, "--against", *other, "--metric", "val_loss")


def change(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    found = json.loads(path.read_text())
    edit(found)
    path.write_text(json.dumps(found))


def test_equal_sets_are_called_equal(fake_run: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [fake_run(seed, bpb=1.2 + seed / 100, points=20) for seed in (1, 2)]
    assert call(compare, *runs, "--against", *runs) == 0
    assert "have the same mean val_bpb: not significant" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--threshold", "nan"), "argument --threshold: 'nan' is no finite number"),
        (("--date", "tomorrow"), "argument --date: 'tomorrow' is no date such as 2026-04-30"),
    ],
)
def test_record_refuses_what_is_no_number_or_date(
    words: tuple[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        call(record, "run", "--out", "there", "--author", "me", *words)
    assert said in capsys.readouterr().err


def test_a_reference_needs_its_threshold() -> None:
    with pytest.raises(ConfigError, match="name it with --threshold"):
        call(record, "run", "--out", "there", "--author", "me", "--reference", "PR #1")


def test_report_goes_beside_the_run(fake_run: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fake_run(1, points=20)
    assert call(report, folder) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    assert call(report, folder, "--out", folder / "other.html", "--json") == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == (folder / "other.html").stat().st_size


def test_neither_room_imports_torch() -> None:
    code = (
        "import sys, underpar.stats, underpar.records, underpar.records.report, underpar.cli.record, "
        "underpar.cli.report, underpar.cli.compare; "
        "print(sorted(m for m in ('torch', 'scipy', 'underpar.data', 'underpar.model') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
