"""The record folder: written from three runs, read back, and refused for every reason that it should be."""

import json
import math
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from underpar.core.errors import RecordError
from underpar.records import Claim, read_record, write_record
from underpar.records.run import tree_fingerprint

FakeRun = Callable[..., Path]
WHO = {"author": "A. Author", "github_id": "author", "name": "Seq4096", "blurb": "Longer rows.", "date": "2026-01-02"}


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_seq4096_record_has_the_published_numbers(seq4096_runs: list[Path], tmp_path: Path) -> None:
    claim = Claim(1.21113611, reference="golf/baseline less the bar")
    written = write_record(seq4096_runs, tmp_path / "record", **WHO, claim=claim)
    stored = json.loads((tmp_path / "record" / "submission.json").read_text())
    assert stored == json.loads(json.dumps(written.submission))
    assert stored["val_bpb"] == pytest.approx(1.20136009, abs=5e-9)
    assert stored["val_bpb_std"] == pytest.approx(statistics.stdev([1.20143417, 1.19945102, 1.20319508]))
    assert stored["bytes_total"] == stored["artifact_bytes_max"] == 15_839_491 + 47_642
    assert stored["seed_results"]["1337"]["steps"] == 8394
    assert stored["seeds"] == [1337, 1338, 1339]
    assert stored["t_statistic"] == pytest.approx(9.04, abs=0.005)
    assert stored["p_value"] == pytest.approx(0.0060, abs=5e-5)
    assert stored["significant"] is True
    assert stored["compliance"] == {
        "artifact_under_16mb": True,
        "train_under_600s": True,
        "eval_under_600s": True,
        "score_from_artifact": True,
        "byte_accounting": True,
        "lossless_tokenizer": True,
        "verified": True,
        "three_seeds": True,
    }
    assert written.is_compliant


def test_readme_has_tables_claim_diff_and_command(seq4096_runs: list[Path], tmp_path: Path) -> None:
    write_record(seq4096_runs, tmp_path / "record", **WHO, claim=Claim(1.21113611))
    text = (tmp_path / "record" / "README.md").read_text()
    assert "| 1338 | 1.19945102 | 2.02522281 | 9,092 |" in text
    assert "| **mean** | **1.20136009** |" in text
    assert "significant: mean val_bpb below 1.2111361" in text
    assert "t = 9.04, df 2, p = 0.0060" in text
    assert "underpar run golf/seq4096 --track golf-record --seed 1339" in text
    assert "| `data.seq_len` | `2048` | `4096` |" in text
    assert "`Smear(scale=0.1 \\| learned)`" in text  # a pipe must not open a new column
    assert "- [x] `train_under_600s`" in text


def test_readme_tells_overrides_and_other_machines(seq4096_runs: list[Path], tmp_path: Path) -> None:
    for run in seq4096_runs:
        edit(run / "config.json", lambda d: d.update(overrides=["model.mlp.ratio=3", f"seed={d['seed']}"]))
    edit(seq4096_runs[1] / "environment.json", lambda d: d.update(gpu="NVIDIA H200"))
    write_record(seq4096_runs, tmp_path / "record", **WHO)
    text = (tmp_path / "record" / "README.md").read_text()
    assert "Overrides on the command line: `model.mlp.ratio=3`." in text
    assert "Different for seed 1338: gpu NVIDIA H200." in text
    assert "Different for seed 1339" not in text


def test_read_back(seq4096_runs: list[Path], tmp_path: Path) -> None:
    written = write_record(seq4096_runs, tmp_path / "record", **WHO)
    record = read_record(tmp_path / "record")
    assert record.submission == json.loads(json.dumps(written.submission))
    assert sorted(record.logs) == [1337, 1338, 1339]
    for seed, log in record.logs.items():
        assert log.final is not None
        assert log.final.val_bpb == record.seed_results[seed]["val_bpb"]
    assert record.val_bpb == pytest.approx(1.20136009, abs=5e-9)
    for run in seq4096_runs:
        copied = tmp_path / "record" / f"train_{run.name}.log"
        assert copied.read_bytes() == (run / "train.log").read_bytes()
        artifact = tmp_path / "record" / f"artifact_{run.name}.upar"
        assert artifact.read_bytes() == (run / "artifact.upar").read_bytes()


def test_a_claim_that_fails_is_not_significant(seq4096_runs: list[Path], tmp_path: Path) -> None:
    written = write_record(seq4096_runs, tmp_path / "record", **WHO, claim=Claim(1.2015))
    assert written.submission["significant"] is False
    assert written.outcome is not None
    assert written.outcome.sentence().startswith("not significant: mean val_bpb below 1.2015")
    claim = (tmp_path / "record" / "README.md").read_text().split("## Claim\n\n")[1].split("\n")[0]
    assert claim.startswith("not significant")


def test_one_run_claims_nothing(fake_run: FakeRun, tmp_path: Path) -> None:
    written = write_record([fake_run(1, points=20)], tmp_path / "record", **WHO, claim=Claim(9.0))
    assert written.submission["significant"] is False
    assert written.submission["p_value"] is None
    assert written.submission["val_bpb_std"] is None
    assert written.submission["compliance"]["three_seeds"] is False
    assert not written.is_compliant
    assert "cannot be tested with one run" in (tmp_path / "record" / "README.md").read_text()


def test_equal_scores_claim_nothing(fake_run: FakeRun, tmp_path: Path) -> None:
    runs = [fake_run(seed, bpb=1.2, points=20) for seed in (1, 2, 3)]
    written = write_record(runs, tmp_path / "record", **WHO, claim=Claim(1.3))
    assert written.submission["significant"] is False
    assert written.submission["t_statistic"] is None


@pytest.mark.parametrize(
    ("settings", "failed"),
    [
        ({"container": 15_990_000}, "artifact_under_16mb"),
        ({"seconds": 601.2}, "train_under_600s"),
        ({"budget": {"eval_seconds": 2.0}}, "eval_under_2s"),
        ({"budget": {"train_steps": 100}}, "train_steps_within_budget"),
        ({"budget": {"train_tokens": 1000}}, "train_tokens_within_budget"),
    ],
)
def test_conditions_are_computed(fake_run: FakeRun, tmp_path: Path, settings: dict[str, Any], failed: str) -> None:
    runs = [fake_run(seed, bpb=1.2 + seed / 1000, points=20, **settings) for seed in (1, 2, 3)]
    written = write_record(runs, tmp_path / "record", **WHO)
    assert [c.key for c in written.checks if not c.passed] == [failed]
    assert f"- [ ] `{failed}`" in (tmp_path / "record" / "README.md").read_text()


def test_one_step_in_flight_is_not_over_time(fake_run: FakeRun, tmp_path: Path) -> None:
    runs = [fake_run(seed, bpb=1.2 + seed / 1000, points=20, seconds=600.08) for seed in (1, 2, 3)]
    assert write_record(runs, tmp_path / "record", **WHO).is_compliant


@pytest.mark.parametrize(
    ("file", "change", "failed"),
    [
        ("score.json", {"artifact_sha256": "0" * 64}, "score_from_artifact"),
        ("score.json", {"bytes": 151_000_000}, "byte_accounting"),
        ("score.json", {"lossless": False}, "lossless_tokenizer"),
        ("artifact.json", {"calibration_seconds": 3.5}, "train_under_600s"),
        ("verdict.json", {"verdict": "disputed"}, "verified"),
    ],
)
def test_a_doubtful_seed_is_told(
    seq4096_runs: list[Path], tmp_path: Path, file: str, change: dict[str, Any], failed: str
) -> None:
    edit(seq4096_runs[1] / file, lambda d: d.update(change))
    written = write_record(seq4096_runs, tmp_path / "record", **WHO)
    assert [c.key for c in written.checks if not c.passed] == [failed]


MISSING = [
    "train.json",
    "train.log",
    "artifact.upar",
    "artifact.json",
    "score.json",
    "verdict.json",
    "environment.json",
]


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_stage_names_its_command(seq4096_runs: list[Path], tmp_path: Path, name: str) -> None:
    (seq4096_runs[2] / name).unlink()
    with pytest.raises(RecordError, match=f"no {name}; run 'underpar") as caught:
        write_record(seq4096_runs, tmp_path / "record", **WHO)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "record").exists()


def test_refuses_another_configuration(seq4096_runs: list[Path], fake_run: FakeRun, tmp_path: Path) -> None:
    other = fake_run(7, model_dim=384, points=20)
    with pytest.raises(RecordError, match=r"model\.model_dim: 384 against 512"):
        write_record([*seq4096_runs[:2], other], tmp_path / "record", **WHO)


def test_refuses_another_recipe_and_other_code(seq4096_runs: list[Path], fake_run: FakeRun, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="one record, one recipe"):
        write_record([seq4096_runs[0], fake_run(7, recipe="golf/baseline", points=20)], tmp_path / "record", **WHO)
    with pytest.raises(RecordError, match=r"packed different source \(underpar/score\.py\)"):
        write_record([seq4096_runs[0], fake_run(8, code="print('other')\n", points=20)], tmp_path / "record", **WHO)


def test_refuses_the_same_seed_twice(seq4096_runs: list[Path], tmp_path: Path) -> None:
    again = shutil.copytree(seq4096_runs[0], tmp_path / "again")
    with pytest.raises(RecordError, match=r"same seed \(1337\)"):
        write_record([seq4096_runs[0], again], tmp_path / "record", **WHO)
    with pytest.raises(RecordError, match="given twice"):
        write_record([seq4096_runs[0], seq4096_runs[0]], tmp_path / "record", **WHO)


def test_refuses_a_copied_log(seq4096_runs: list[Path], tmp_path: Path) -> None:
    shutil.copyfile(seq4096_runs[0] / "train.log", seq4096_runs[1] / "train.log")
    with pytest.raises(RecordError, match=r"same train\.log; one is a copy"):
        write_record(seq4096_runs, tmp_path / "record", **WHO)


def test_refuses_a_log_of_another_run(seq4096_runs: list[Path], tmp_path: Path) -> None:
    log = seq4096_runs[1] / "train.log"
    log.write_text(log.read_text().replace("seed:1338", "seed:1337"))
    with pytest.raises(RecordError, match="prints seed 1337, the run has seed 1338"):
        write_record(seq4096_runs, tmp_path / "record", **WHO)


def test_refuses_a_score_that_its_log_does_not_end_with(seq4096_runs: list[Path], tmp_path: Path) -> None:
    edit(seq4096_runs[0] / "score.json", lambda d: d.update(bpb=1.1))
    with pytest.raises(RecordError, match=r"ends at val_bpb 1\.20143417, score\.json says 1\.10000000"):
        write_record(seq4096_runs, tmp_path / "record", **WHO)


def test_refuses_an_artifact_that_is_not_the_listed_one(seq4096_runs: list[Path], tmp_path: Path) -> None:
    with (seq4096_runs[0] / "artifact.upar").open("r+b") as stream:
        stream.write(b"X")
    with pytest.raises(RecordError, match="pack it again"):
        write_record(seq4096_runs, tmp_path / "record", **WHO)


def test_refuses_an_edited_configuration(seq4096_runs: list[Path], tmp_path: Path) -> None:
    edit(seq4096_runs[0] / "config.json", lambda d: d["config"]["model"].update(num_layers=10))
    with pytest.raises(RecordError, match="the file was edited"):
        write_record(seq4096_runs, tmp_path / "record", **WHO)


def test_never_writes_over_a_folder(seq4096_runs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "record").mkdir()
    with pytest.raises(RecordError, match="written once"):
        write_record(seq4096_runs, tmp_path / "record", **WHO)


def test_refuses_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="not a run folder"):
        write_record([tmp_path], tmp_path / "record", **WHO)
    with pytest.raises(RecordError, match="no run folders"):
        write_record([], tmp_path / "record", **WHO)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RecordError, match="not JSON"):
        write_record([tmp_path], tmp_path / "record", **WHO)


@pytest.mark.parametrize(
    "bad", [{"threshold": 1.0, "metric": "bpb"}, {"threshold": 1.0, "alpha": 0.0}, {"threshold": 1.0, "alpha": 1.5}]
)
def test_refuses_a_claim_that_is_none(bad: dict[str, Any]) -> None:
    with pytest.raises(RecordError, match="must"):
        Claim(**bad)


def test_reads_published_layouts(tmp_path: Path) -> None:
    text = {"mean_val_bpb": 1.1, "seeds": {"42": {"val_bpb": 1.0}, "7": {"val_bpb": 1.2}}}
    (tmp_path / "submission.json").write_text(json.dumps(text))
    record = read_record(tmp_path)
    assert record.val_bpb == 1.1
    assert record.seed_results == {42: {"val_bpb": 1.0}, 7: {"val_bpb": 1.2}}


def test_reading_refuses_mislabelled_logs(tmp_path: Path) -> None:
    (tmp_path / "submission.json").write_text("{}")
    (tmp_path / "train_seed42.log").write_text("seed:1337\n")
    with pytest.raises(RecordError, match="named for seed 42, prints seed 1337"):
        read_record(tmp_path)
    (tmp_path / "train_seed42.log").unlink()
    (tmp_path / "a.log").write_text("seed:1337\n")
    (tmp_path / "b.log").write_text("seed:1337\n")
    with pytest.raises(RecordError, match="a second log of seed 1337"):
        read_record(tmp_path)


def test_fingerprint_is_that_of_the_core() -> None:
    from underpar.core.budget import Budget
    from underpar.core.config import fingerprint, to_dict

    budget = Budget(train_seconds=600, artifact_bytes=16_000_000).frozen()
    assert tree_fingerprint(to_dict(budget)) == fingerprint(budget)
    assert not math.isnan(budget.train_seconds or math.nan)
