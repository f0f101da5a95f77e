"""Published records, rebuilt from their figures in the forms they were published in: what the audit has to say of them.

Only figures and the forms of lines are taken from the public repositories; the texts are ours.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from underpar.referee.audit.report import Report
from underpar.referee.audit.significance import against
from underpar.referee.verdict import Ruling

from . import forge
from .conftest import Audit

PR1736 = {42: 1.06610085, 0: 1.06473025, 1234: 1.06562743}
PR1787 = {42: 1.06400238, 0: 1.06307957, 1234: 1.06296654}
PR1855 = {42: 1.05989454, 0: 1.06124613, 1234: 1.06208695}


def middle_log(
    seed: int, *, steps: int, stop_ms: int, code: int, model: int, flat: tuple[float, float], sliding: tuple[float, float],
    codec: str = "int6+zstd", total: int = 9000, extra: Sequence[str] = (), tokens: int = 62_021_632,
) -> str:  # fmt: skip
    """The form of the weeks between: a sliding pass after the round trip, its stride behind the score."""
    step_ms = stop_ms / steps
    ratio = flat[1] / flat[0]
    lines = [
        f"val_loader:shards pattern=./data/datasets/fineweb10B_sp1024/fineweb_val_*.bin tokens:{tokens}",
        "model_params:26829913",
        "world_size:8 grad_accum_steps:1",
        f"train_batch_tokens:786432 train_seq_len:2048 iterations:{total} warmup_steps:20 max_wallclock_seconds:600.000",
        f"seed:{seed}",
        *(f"warmup_step:{i}/20" for i in range(1, 21)),
        f"step:0/{total} val_loss:6.9276 val_bpb:{6.9276 * ratio:.4f} train_time:0ms step_avg:0.03ms",
    ]
    for step in range(200, steps, 200):
        lines.append(
            f"step:{step}/{total} train_loss:2.0500 train_time:{step * step_ms:.0f}ms step_avg:{step_ms:.2f}ms"
        )
    raw = flat[0] - 0.0186
    lines += [
        f"step:{steps}/{total} val_loss:{raw:.4f} val_bpb:{raw * ratio:.4f} train_time:{stop_ms}ms step_avg:{step_ms:.2f}ms",
        f"stopping_early: wallclock_cap train_time:{stop_ms}ms step:{steps}/{total}",
        "swa:applying averaged 8 checkpoints",
        f"DIAGNOSTIC post_ema val_loss:{raw:.4f} val_bpb:{raw * ratio:.4f} eval_time:2310ms",
        *extra,
        "Serialized model: 105783807 bytes",
        f"Code size: {code} bytes",
        f"Serialized model {codec}: {model} bytes",
        f"Total submission size {codec}: {model + code} bytes",
        f"final_int6_roundtrip val_loss:{flat[0]:.4f} val_bpb:{flat[1]:.4f} eval_time:5872ms",
        f"final_int6_roundtrip_exact val_loss:{flat[0]:.8f} val_bpb:{flat[1]:.8f}",
        f"final_int6_sliding_window val_loss:{sliding[0]:.4f} val_bpb:{sliding[1]:.4f} stride:64 eval_time:68826ms",
        f"final_int6_sliding_window_exact val_loss:{sliding[0]:.8f} val_bpb:{sliding[1]:.8f}",
        f"final_int8_zlib_roundtrip_exact val_loss:{sliding[0]:.8f} val_bpb:{sliding[1]:.8f}",
    ]
    return "\n".join(lines) + "\n"


def pr198() -> forge.Files:
    """One seed in the submission, its log and the log of another beside it."""
    logs = {
        1337: middle_log(
            1337, steps=7412, stop_ms=600_021, code=64_415, model=15_624_965, flat=(1.94903166, 1.15432633),
            sliding=(1.91095901, 1.13178056),
        ),
        42: middle_log(
            42, steps=7407, stop_ms=600_028, code=64_415, model=15_631_337, flat=(1.95171603, 1.15591617),
            sliding=(1.91389421, 1.13351895),
        ),
    }  # fmt: skip
    submission = {
        "author": "author", "github_id": "author", "name": "11 layers, int6", "blurb": "...", "date": "2026-03-20T08:45:00Z",
        "val_loss": 1.91095901, "val_bpb": 1.13178056, "pre_quant_val_loss": 1.9303, "pre_quant_val_bpb": 1.1432,
        "int6_zstd_val_loss": 1.94903166, "int6_zstd_val_bpb": 1.15432633, "bytes_total": 15_689_380,
        "bytes_model_int6_zstd": 15_624_965, "bytes_code": 64_415,
    }  # fmt: skip
    files = {f"train_seed{seed}.log": text.encode() for seed, text in logs.items()}
    return files | {"submission.json": forge.dump(submission), "README.md": b"#", "train_gpt.py": b"#" * 64_414 + b"\n"}


def failed(report: Report) -> dict[str, str]:
    return {check.id: check.statement for check in report.failures}


def test_a_record_of_march_holds(audit: Audit) -> None:
    report = audit(pr198())
    assert report.verdict.ruling is Ruling.VALID, report.verdict.reason
    assert report.classes == []
    assert report.score is not None
    assert report.score.values == {"1337": 1.13178056, "42": 1.13351895}
    assert report.bytes_per_token == pytest.approx(2.4359, abs=2e-4)


def test_forty_milliseconds_over_the_cap_are_the_step_in_flight(audit: Audit) -> None:
    files = pr198()
    forge.change(files, "train_seed42.log", "600028ms", "600137ms")
    assert failed(audit(files)) == {}


def test_a_superseded_log_over_the_cap_is_over_the_cap(audit: Audit) -> None:
    """An old log of #1204: int6 and lzma, calibrated on text that the model wrote itself for four minutes."""
    extra = ["gptq:generated 64 sequences in 229.3s", "gptq:collected hessians for 82 layers (AR self-gen)"]
    text = middle_log(
        314, steps=6673, stop_ms=600_122, code=128_217, model=16_392_224, flat=(1.91676149, 1.13521412),
        sliding=(1.87680398, 1.11155197), codec="int6+lzma", total=20_000, extra=extra,
    )  # fmt: skip
    files = {"train_seed314.log": text.encode(), "README.md": b"#", "train_gpt.py": b"#" * 128_216 + b"\n"}
    report = audit(files | {"submission.json": forge.dump({"val_bpb": 1.11155197})})
    assert failed(report).keys() == {"size.cap"}
    assert "16,520,441 bytes" in failed(report)["size.cap"]
    assert "520,441 over" in failed(report)["size.cap"]


def test_one_size_copied_to_two_seeds_is_a_contested_figure(audit: Audit) -> None:
    """#1493 states 15,992,919 bytes for two of its seeds."""
    runs = tuple(
        replace(forge.LATE[0], seed=seed, bpb=bpb, model_bytes=size - len(forge.SCRIPT.encode()), steps=4850 + i)
        for i, (seed, bpb, size) in enumerate(
            [(42, 1.08079, 15_991_930), (314, 1.08103, 15_992_919), (999, 1.08118, 15_993_232)]
        )
    )
    files = forge.late_folder(runs)
    assert failed(audit(files)) == {}
    forge.edit_json(files, lambda d: d["seed_results"]["999"].update(artifact_bytes=15_992_919))
    report = audit(files, name="2026-04-09_Copied")
    assert report.verdict.ruling is Ruling.DISPUTED
    assert "the size of seed 314" in failed(report)["size.claim"]


def test_a_headline_of_a_run_whose_log_is_missing(audit: Audit) -> None:
    """#122: the headline is of a fourth run; the three logs are slightly worse."""
    figures = {1337: (2.37931417, 1.15915537), 102: (2.38051780, 1.15974176), 41: (2.38498992, 1.16192049)}
    files: forge.Files = {}
    for i, (seed, (loss, bpb)) in enumerate(figures.items()):
        flat = (loss + 0.02, bpb * (1 + 0.02 / loss))
        files[f"train_seed{seed}.log"] = middle_log(
            seed, steps=11_102 + i, stop_ms=600_030 + i, code=63_529, model=15_285_430 + i, flat=flat, sliding=(loss, bpb),
            tokens=50_905_088, total=20_000,
        ).encode()  # fmt: skip
    submission = {"val_bpb": 1.15849340, "val_loss": 2.37795, "bytes_total": 15_353_270}
    files |= {"submission.json": forge.dump(submission), "README.md": b"#", "train_gpt.py": b"#" * 63_528 + b"\n"}
    report = audit(files)
    assert report.verdict.ruling is Ruling.UNVERIFIABLE
    assert "best of 3 logs 1.159155" in report.verdict.checks[3].statement
    assert report.score is not None
    assert report.score.mean == pytest.approx(1.16027254, abs=1e-8)
    assert failed(report) == {}


def test_a_headline_that_its_own_log_refutes(audit: Audit) -> None:
    """#86: 1.1502 claimed, the only log ends at 1.1666."""
    text = middle_log(
        1337, steps=4080, stop_ms=600_040, code=50_543, model=15_833_833, flat=(2.0095, 1.1902), sliding=(1.96964, 1.16659),
    )  # fmt: skip
    files = {"train.log": text.encode(), "README.md": b"#", "train_gpt.py": b"#" * 50_542 + b"\n"}
    report = audit(files | {"submission.json": forge.dump({"val_bpb": 1.1502, "val_loss": 1.9420})})
    assert report.verdict.ruling is Ruling.INVALID
    assert report.classes == ["V23"]
    assert "0.0164 bpb better than anything shown" in failed(report)["score.logged"]


@pytest.mark.parametrize(("stop_ms", "hessians", "together"), [(599_460, 4.1, "603.6"), (599_590, 3.5, "603.1")])
def test_calibration_beyond_the_clock_is_contested(audit: Audit, stop_ms: int, hessians: float, together: str) -> None:
    """#1787 and #1855 reserve half a second, and collect Hessians for four."""
    files = forge.late_folder(tuple(replace(run, stop_ms=stop_ms) for run in forge.LATE))
    for run in forge.LATE:
        forge.change(files, f"train_seed{run.seed}.log", "in 3.5s", f"in {hessians}s")
    report = audit(files)
    assert report.verdict.ruling is Ruling.DISPUTED
    assert f"= {together} s" in failed(report)["clock.calibration"]


def test_three_files_that_print_one_seed(audit: Audit) -> None:
    """#2058: files named 42, 1337 and 2026 all print seed 1337."""
    runs = tuple(replace(run, seed=seed) for run, seed in zip(forge.LATE, (42, 1337, 2026), strict=True))
    files = forge.late_folder(runs)
    for seed in (42, 2026):
        forge.change(files, f"train_seed{seed}.log", f"  seed: {seed}\n", "  seed: 1337\n")
    report = audit(files)
    assert report.verdict.ruling is Ruling.INVALID
    assert "1 different seeds among 3 runs" in failed(report)["seeds.distinct"]


def test_bytes_that_a_reverted_record_counted_too_many(audit: Audit) -> None:
    """#1184: a vocabulary of 998, 182,811,139 bytes for a text of 151 million."""
    run = replace(forge.EARLY[0], tokens=68_000_000, text_bytes=182_811_139, bpb=0.9485)
    report = audit(forge.early_folder((run,)))
    assert report.classes == ["V16"]
    assert "+21.00%" in failed(report)["bytes.invariant"]


# ------------------------------------------------------------------------------------------- significance


def test_published_tests_between_records_come_back() -> None:
    """#1787 against #1736: Welch 0.0079, paired 0.0091, as recomputed from the published seeds."""
    found = against(PR1787, PR1736, bytes_per_token=3.1572, predecessor="#1736")
    assert found.difference == pytest.approx(-0.00214, abs=5e-6)
    assert found.p_plain == pytest.approx(0.0079, abs=5e-5)
    assert found.p_paired == pytest.approx(0.0091, abs=5e-5)
    assert [rule.passed for rule in found.rules] == [False, True]  # under the bar as written, kept as administered
    assert found.readings[0].bar_bpb == pytest.approx(0.00228, abs=5e-6)


def test_the_readings_of_the_bar_disagree() -> None:
    """#1855 against #1736: 0.0044 bpb better is 1.9 bars read one way, and less than one read another."""
    found = against(PR1855, PR1736, bytes_per_token=3.1572, predecessor="#1736")
    by_name = {r.name: r.p_one_sample for r in found.readings}
    assert by_name["0.005 nats a token"] is not None
    assert by_name["0.005 nats a byte"] is not None
    assert by_name["0.005 nats a token"] < 0.05
    assert by_name["0.005 nats a byte"] > 0.95
    assert by_name["0.005 bpb, or bpb taken for nats"] is not None
    assert by_name["0.005 bpb, or bpb taken for nats"] > 0.5
    assert math.isclose(found.difference, -0.004407, abs_tol=2e-5)


SKIP = (
    (3.2780, 135.063), (3.2777, 134.826), (3.2799, 135.004), (3.2783, 134.994), (3.2784, 134.993), (3.2800, 134.722),
    (3.2787, 134.925), (3.2780, 134.998), (3.2797, 134.981), (3.2804, 134.912),
)  # fmt: skip
"""Losses and seconds of the ten runs of the speedrun record 'Refine Skip'."""


def test_a_speedrun_record_gives_its_published_p(audit: Audit) -> None:
    report = audit(forge.speedrun_folder(SKIP), forge.SPEEDRUN_TRACK)
    assert report.verdict.is_valid
    assert report.notes == ()
    assert report.rules[0].statement.endswith("p = 0.0034")
    assert sum(report.seconds) / 10 == pytest.approx(134.9418, abs=6e-4)


def test_a_list_of_losses_is_held_against_the_logs(audit: Audit) -> None:
    files = forge.speedrun_folder(SKIP)
    losses = [f"{loss:.4f}".rstrip("0") for loss, _ in SKIP]
    text = f"losses = [{', '.join(losses)}]\ntimes = [135.063, 134.826, 135.004]\n"
    files["README.md"] = text.encode()
    assert audit(files, forge.SPEEDRUN_TRACK, name="2026-01-03_All").notes == ()
    files["README.md"] = f"losses = [{', '.join(losses[:8])}, 3.2761]\n".encode()
    notes = [note.statement for note in audit(files, forge.SPEEDRUN_TRACK, name="2026-01-04_Some").notes]
    assert "leaves out logs that end at 3.2797, 3.2804" in notes[0]
    assert "has 3.2761, which no log prints" in notes[1]


def test_a_headline_in_the_readme_of_another_version(audit: Audit) -> None:
    files = forge.late_folder()
    forge.change(files, "README.md", "1.06549", "1.06421")
    assert [note.id for note in audit(files).notes] == ["readme.score"]


def test_a_record_whose_headline_is_the_mean_of_its_logs(audit: Audit) -> None:
    """#1060: a flat submission with the mean of three logs, the size of one of them, and fourteen seconds in reserve."""
    figures = {
        1337: (6704, 586_081, 15_875_980, (1.91705823, 1.13538987), (1.87733676, 1.11186751)),
        42: (6699, 586_116, 15_879_956, (1.91858801, 1.13629589), (1.87903063, 1.11287073)),
        2025: (6700, 586_183, 15_886_564, (1.91761778, 1.13572126), (1.87779900, 1.11214128)),
    }
    extra = [
        "gptq:reserving 14000ms from training budget, effective=586000ms",
        "gptq:calibrating with 64 batches (training data)...", "gptq:calibrated 66 layers in 6.7s",
    ]  # fmt: skip
    files: forge.Files = {
        "submission.json": forge.dump({"val_bpb": 1.1123, "bytes_total": 15_991_086, "date": "2026-03-29"}),
        "README.md": b"# Record (val_bpb 1.1123)\n\n**val_bpb: 1.1123** (3-seed mean, std 0.0005)\n",
        "train_gpt.py": b"#" * 111_129 + b"\n",
    }
    for seed, (steps, stop, model, flat, sliding) in figures.items():
        files[f"train_seed{seed}.log"] = middle_log(
            seed, steps=steps, stop_ms=stop, code=111_130, model=model, flat=flat, sliding=sliding, codec="int6+lzma",
            total=20_000, extra=extra,
        ).encode()  # fmt: skip
    report = audit(files, name="2026-03-29_Loader")
    assert report.verdict.ruling is Ruling.VALID, report.verdict.reason
    assert report.notes == ()
    assert report.score is not None
    assert report.score.mean == pytest.approx(1.11229317, abs=1e-8)
    held = {check.id: check.statement for check in report.verdict.checks}
    assert "mean over 3 logs" in held["score.logged"]
    assert "15,997,694 bytes (train_seed2025.log" in held["size.cap"]
    assert "592.9 s, calibration included" in held["clock.calibration"]


AURORA = {
    1: (3.27943, 3.27786, 3.27712), 2: (3.28162, 3.28008, 3.27935), 3: (3.28003, 3.27844, 3.27771),
    4: (3.28084, 3.27927, 3.27853), 5: (3.28178, 3.28024, 3.27951), 6: (3.28089, 3.27936, 3.27862),
    7: (3.28077, 3.27928, 3.27855), 8: (3.28085, 3.27934, 3.27861), 9: (3.27929, 3.27777, 3.27704),
    10: (3.28069, 3.27911, 3.27837), 11: (3.28018, 3.27863, 3.27791),
    12: (3.27854, 3.27701, 3.27628), 13: (3.27826, 3.27670, 3.27601), 14: (3.27892, 3.27741, 3.27668),
    15: (3.28116, 3.27959, 3.27886), 16: (3.28064, 3.27911, 3.27838), 17: (3.27979, 3.27828, 3.27751),
    18: (3.28090, 3.27935, 3.27863), 19: (3.28274, 3.28119, 3.28046), 20: (3.28041, 3.27888, 3.27815),
}  # fmt: skip
"""Losses of twenty runs of the optimiser track's result 'Aurora' at steps 3150, 3175 and 3200."""


def aurora_log() -> str:
    """One log that holds all twenty runs, one after another, with seconds and losses of five digits."""
    lines = ["import torch", "val_tokens = 20 * 524288", forge.RULE, "Running Python 3.12", forge.RULE]
    for seed, losses in AURORA.items():
        lines.append("step:0/3200 val_loss:10.82584 train_time:0.000s step_avg:nanms")
        rows = [(step, 4.6 - step / 2400, 0.157 * step + seed / 100) for step in range(125, 3150, 125)]
        rows += [(step, loss, 0.157 * step + seed / 100) for step, loss in zip((3150, 3175, 3200), losses, strict=True)]
        lines += [f"step:{s}/3200 val_loss:{x:.5f} train_time:{t:.3f}s step_avg:157.13ms" for s, x, t in rows]
    return "\n".join(lines) + "\n"


def test_twenty_runs_in_one_log_stand_at_the_step_that_was_reported(audit: Audit) -> None:
    files = {"298f02bc.txt": aurora_log().encode(), "README.md": b"# Aurora\n"}
    report = audit(files, "track_3_optimization/results", name="20260505_aurora")
    assert report.verdict.ruling is Ruling.VALID, report.verdict.reason
    assert report.notes == ()
    assert report.score is not None
    assert report.score.n == 20
    assert set(report.steps) == {3175}
    assert report.date == "2026-05-05"
    assert report.score.mean == pytest.approx(3.278845, abs=1e-8)
    assert report.rules[0].passed
    assert "= 0.00516" in report.rules[0].statement or "= 0.00517" in report.rules[0].statement


def test_a_run_that_is_shown_twice_inside_one_log(audit: Audit) -> None:
    runs = aurora_log().split("step:0/3200")
    again = "step:0/3200".join([*runs, runs[5]])
    report = audit({"298f02bc.txt": again.encode(), "README.md": b"#\n"}, "track_3_optimization/results")
    assert "run 5" in failed(report)["seeds.distinct"]
    assert "run 21" in failed(report)["seeds.distinct"]
