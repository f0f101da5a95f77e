"""Honest folders of every form pass, and their figures are computed again to the last digit."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from underpar.referee.audit.folder import audit_folder
from underpar.referee.audit.report import Report

from . import forge
from .conftest import Audit

HONEST: dict[str, tuple[Callable[[], forge.Files], str]] = {
    "early": (forge.early_folder, forge.RECORD_TRACK),
    "late": (forge.late_folder, forge.RECORD_TRACK),
    "speedrun": (forge.speedrun_folder, forge.SPEEDRUN_TRACK),
}


def clean(report: Report) -> None:
    assert str(report.verdict) == "valid" or report.verdict.is_valid, report.verdict
    assert [check.id for check in report.failures] == []
    assert report.notes == ()


@pytest.mark.parametrize("form", HONEST)
def test_honest_folders_pass_without_a_finding(audit: Audit, form: str) -> None:
    make, track = HONEST[form]
    clean(audit(make(), track))


def test_published_scores_come_back(audit: Audit) -> None:
    score = audit(forge.late_folder()).score
    assert score is not None
    assert score.mean == pytest.approx(1.06548618, abs=6e-9)
    assert score.sd == pytest.approx(0.0006961, abs=1e-7)
    assert (score.low, score.high) == (pytest.approx(1.063757, abs=1e-6), pytest.approx(1.067215, abs=1e-6))


def test_speedrun_is_tested_against_its_target(audit: Audit) -> None:
    report = audit(forge.speedrun_folder(), forge.SPEEDRUN_TRACK)
    assert report.is_speedrun
    assert report.score is not None
    assert report.score.mean == pytest.approx(3.27810, abs=5e-6)
    assert [rule.passed for rule in report.rules] == [True, True]
    assert "p = 0.0001" in report.rules[0].statement
    few = audit(forge.speedrun_folder(forge.SPEEDRUN[:3]), forge.SPEEDRUN_TRACK, name="2026-01-02_Few")
    assert [rule.passed for rule in few.rules] == [False, True]


def test_optimiser_track_has_its_own_rule(audit: Audit) -> None:
    files = {f"logs/run{i}.txt": forge.speedrun_log(3.2788, 900.0 + i).encode() for i in range(10)}
    report = audit(files | {"README.md": b"# Muon\n"}, "track_3_optimization")
    assert report.track == "speedrun-steps"
    assert report.rules[0].passed is False  # (3.28 - 3.2788) x sqrt(10) = 0.0038
    assert "0.00379" in report.rules[0].statement


# ---------------------------------------------------------------------------------- shapes of submission.json


def shape_seeds_as_object(data: dict) -> dict:
    results = data.pop("seed_results")
    data.pop("seeds")
    return data | {"seeds": {s: {"val_bpb": r["val_bpb"], "bytes_total": r["artifact_bytes"],
                                 "train_time_ms": 1000 * r["train_time_s"]} for s, r in results.items()}}  # fmt: skip


def shape_parallel_lists(data: dict) -> dict:
    results = data.pop("seed_results")
    return data | {"seeds": [int(s) for s in results], "seed_scores": [r["val_bpb"] for r in results.values()]}


def shape_mean_bpb(data: dict) -> dict:
    return data | {"mean_bpb": data.pop("val_bpb"), "std_bpb": data.pop("val_bpb_std"), "val_loss": None}


def shape_strings(data: dict) -> dict:
    return data | {"p_value": "<0.001", "val_bpb": f"{data['val_bpb']}", "eval_time_seconds": [1, 2, 3]}


def shape_list_of_rows(data: dict) -> dict:
    results = data.pop("seed_results")
    return data | {"results": [{"seed": int(s)} | r for s, r in results.items()]}


def shape_minimal(data: dict) -> dict:
    return {"sliding_val_bpb": data["val_bpb"], "artifact_size_bytes": data["artifact_bytes_max"]}


@pytest.mark.parametrize(
    "shape",
    [
        shape_seeds_as_object,
        shape_parallel_lists,
        shape_mean_bpb,
        shape_strings,
        shape_list_of_rows,
        shape_minimal,
    ],
)
def test_every_published_shape_of_a_submission_is_read(audit: Audit, shape: Callable[[dict], dict]) -> None:
    files = forge.late_folder()
    files["submission.json"] = forge.dump(shape(json.loads(files["submission.json"])))
    report = audit(files)
    clean(report)
    assert report.stated == pytest.approx(1.06549)
    assert report.score is not None
    assert report.score.n == 3


def test_a_score_in_val_loss_is_found(audit: Audit) -> None:
    """One merged record has its bits per byte under val_loss, and no val_bpb."""
    files = forge.early_folder()
    forge.edit_json(files, lambda d: d.update(val_loss=d.pop("val_bpb")))
    clean(audit(files))


def test_a_named_submission_file_is_read(audit: Audit) -> None:
    files = forge.late_folder()
    files["submission_ternary.json"] = files.pop("submission.json")
    assert audit(files).stated == pytest.approx(1.06549)


def test_byte_order_mark_and_other_letters(audit: Audit) -> None:
    files = forge.late_folder()
    data = json.loads(files["submission.json"]) | {"author": "Ågot Ünal"}
    files["submission.json"] = b"\xef\xbb\xbf" + json.dumps(data, ensure_ascii=False).encode()
    report = audit(files)
    clean(report)
    assert report.author == "Ågot Ünal"


# ------------------------------------------------------------------------------------------- shapes of logs


@pytest.mark.parametrize(
    "name", ["train_seed_{}.txt", "logs/train_s{}.log", "ternary_log_{}.txt", "run seed{}/train.log"]
)
def test_logs_under_any_published_name(audit: Audit, name: str) -> None:
    files = forge.late_folder()
    for run in forge.LATE:
        files[name.format(run.seed)] = files.pop(f"train_seed{run.seed}.log")
    clean(audit(files))


def test_time_stamps_in_front_of_lines(audit: Audit) -> None:
    files = forge.early_folder()
    for name in [n for n in files if n.endswith(".log")]:
        _, machine, body = files[name].decode().split(forge.RULE)
        lines = body.strip().splitlines()
        stamped = [f"{1776142362.768 + i:.3f} {line}" if "val_loss" in line else line for i, line in enumerate(lines)]
        files[name] = "\n".join(stamped).encode()
    assert machine
    clean(audit(files))


def test_windows_line_ends(audit: Audit) -> None:
    files = forge.late_folder()
    for name in [n for n in files if n.endswith(".log")]:
        files[name] = files[name].replace(b"\n", b"\r\n")
    clean(audit(files))


def test_the_last_run_in_a_log_counts(audit: Audit) -> None:
    files = forge.late_folder()
    other = forge.late_log(forge.LATE[1], len(forge.SCRIPT.encode()))
    files["train_seed42.log"] = (other + "\n" + files["train_seed42.log"].decode()).encode()
    clean(audit(files))


def test_a_failed_pass_after_the_score_does_not_count(audit: Audit) -> None:
    files = forge.late_folder()
    files["train_seed42.log"] += b"quantized_ttt_global val_loss:2.40000000 val_bpb:1.09670000 eval_time:90000ms\n"
    clean(audit(files))


def test_sliding_scores_and_equals_signs(audit: Audit) -> None:
    files = forge.late_folder()
    for run in forge.LATE:
        forge.change(files, f"train_seed{run.seed}.log", "quantized_ttt_phased val_loss:", "ttt_sliding:done val_loss=")
        forge.change(
            files, f"train_seed{run.seed}.log", f" val_bpb:{run.bpb:.8f} eval_time:", f" val_bpb={run.bpb:.6f} t:"
        )
    clean(audit(files))


def test_lines_of_the_script_are_no_results(audit: Audit) -> None:
    """The script in front of an early log contains the words of every line."""
    script = forge.SCRIPT.replace("def main():", 'seed_text = """\nseed:999\nval_tokens: 5\n"""\n\n\ndef main():')
    clean(audit(forge.early_folder(script=script)))


def test_the_first_baseline_has_an_older_text(audit: Audit) -> None:
    run = forge.SeedRun(1337, 1.2243657, 13780, 599_900, 15_815_847, 1401, tokens=63_779_840, text_bytes=155_769_746)
    clean(audit(forge.early_folder((run,))))


@pytest.mark.parametrize("tokens", [151_076_864, 62_021_632, 50_905_088, 45_508_608, 40_540_160, 47_853_343])
def test_every_published_tokenizer_fits(audit: Audit, tokens: int) -> None:
    size = 150_746_026 if tokens == 50_905_088 else 151_078_222
    runs = tuple(
        forge.SeedRun(r.seed, r.bpb, r.steps, r.stop_ms, r.model_bytes, r.eval_ms, tokens, size) for r in forge.LATE
    )
    clean(audit(forge.late_folder(runs)))


def test_limits_of_other_tracks(audit: Audit) -> None:
    run = forge.SeedRun(42, 1.0739, 40_000, 7_200_000, 15_950_809, 900_000, 47_851_520, 151_074_499)
    files = forge.late_folder((run,))
    forge.edit_json(files, lambda d: d.update(track="non-record-unlimited-compute-16mb"))
    clean(audit(files, "track_non_record_16mb"))
    forge.edit_json(files, lambda d: d.update(track="10min_16mb"))
    assert {"clock.train", "clock.eval"} <= {c.id for c in audit(files, name="2026-04-20_Long").failures}


def test_an_audit_changes_nothing(tmp_path: Path) -> None:
    folder = forge.write(forge.early_folder(), tmp_path / "record")
    before = {p: p.read_bytes() for p in folder.rglob("*")}
    audit_folder(folder)
    assert {p: p.read_bytes() for p in folder.rglob("*")} == before


def test_the_form_of_ternary_records(audit: Audit) -> None:
    """One line of set-up, short step lines, a budget instead of a total."""
    run = forge.SeedRun(42, 1.157, 6530, 599_800, 15_920_000, 310_000, 40_540_160, 151_079_000)
    ratio = run.bpb / run.loss
    step_ms = run.stop_ms / run.steps
    lines = ["params:73685840 L:10 d:768 h:8 kv:4 ws:8 ga:1 s:42", f"val_tokens: {run.tokens}"]
    lines += [
        f"step:{i}/100000 loss:3.6041 t:{i * step_ms:.0f}ms step_avg:{step_ms:.1f}ms" for i in range(1000, 6500, 500)
    ]
    lines += [
        f"step:{run.steps}/100000 val_loss:{run.loss:.4f} val_bpb:{run.bpb:.4f} train_time:{run.stop_ms}ms zero_frac:0.370",
        f"stopping_early: wallclock_cap train_time:{run.stop_ms}ms step:{run.steps}/100000",
        "artifact:15.92MB ternary:64880640(13558752B) fp:2505216(2510000B) code:72921",
        f"budget:{run.model_bytes}/16000000 (15.92/16.00MB) FITS",
        f"final_ternary_roundtrip val_loss:{run.loss + 0.01:.4f} val_bpb:{(run.loss + 0.01) * ratio:.4f}",
        f"final_sliding val_loss:{run.loss:.4f} val_bpb:{run.bpb:.4f}",
        f"temp_scaling optimal_T:0.90 eval_time:{run.eval_ms}ms",
    ]
    files = {
        "ternary_log_42.txt": "\n".join(lines).encode(),
        "README.md": b"#",
        "train_gpt_cuda_ternary.py": b"x = 1\n",
    }
    submission = {"val_bpb": 1.157, "seed_results": {"42": {"val_bpb": 1.157, "artifact_bytes": run.model_bytes}}}
    report = audit(files | {"submission_ternary.json": forge.dump(submission)})
    clean(report)
    assert report.largest_bytes == 15_920_000
    assert report.steps == (6530,)
