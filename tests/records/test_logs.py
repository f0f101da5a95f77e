"""Log lines: the published forms, and every line through format and pattern."""

import math
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpar.core.errors import RecordError
from underpar.records import logs
from underpar.records.logs import parse_line, parse_log, read_log

PUBLISHED = [
    ("step:1/20000 train_loss:6.9334 train_time:76ms step_avg:75.51ms", logs.TrainStep(1, 20000, 6.9334, 76, 75.51)),
    (
        "step:0/50000 val_loss:5.5449 val_bpb:7.9996 train_time:0ms step_avg:0.01ms",
        logs.Validation(0, 50000, 5.5449, 7.9996, 0, 0.01),
    ),
    (
        "stopping_early: wallclock_cap train_time:599921ms step:8394/20000",
        logs.StopAtCap(599921, 8394, 20000),
    ),
    ("peak memory allocated: 7748 MiB reserved: 8070 MiB", logs.PeakMemory(7748, 8070)),
    ("gptq:reserving 4.00s, effective=596000ms", logs.Reserve(4.0, 596000)),
    ("GPTQ:collected 67 Hessians in 3.50s", logs.Calibrated(67, 3.5)),
    ("model_params:17059912", logs.ModelParams(17059912)),
    ("world_size:8 grad_accum_steps:1", logs.WorldSize(8, 1)),
    ("seed:1337", logs.Seed(1337)),
    ("Code size: 47642 bytes", logs.CodeSize(47642)),
    ("Serialized model int8+zlib: 15820684 bytes", logs.SerializedModel("int8+zlib", 15820684)),
    ("Serialized model: 67224983 bytes", logs.SerializedModel("", 67224983)),
    ("Total submission size int8+zlib: 15868326 bytes", logs.TotalSize("int8+zlib", 15868326)),
    (
        "final_int8_zlib_roundtrip val_loss:2.0286 val_bpb:1.2014 eval_time:2107ms",
        logs.FinalRoundtrip("int8_zlib", 2.0286, 1.2014, 2107),
    ),
    (
        "final_int8_zlib_roundtrip_exact val_loss:2.02857127 val_bpb:1.20143417",
        logs.FinalRoundtripExact("int8_zlib", 2.02857127, 1.20143417),
    ),
    (
        "final_sliding_window_exact stride:64 val_loss:2.37931417 val_bpb:1.15915537",
        logs.FinalSlidingExact(64, 2.37931417, 1.15915537),
    ),
    (
        "train_batch_tokens:393216 train_seq_len:4096 iterations:20000 warmup_steps:20 max_wallclock_seconds:600.000",
        logs.BatchShape(393216, 4096, 20000, 20, 600.0),
    ),
]


@pytest.mark.parametrize(("text", "line"), PUBLISHED, ids=lambda v: str(v)[:30])
def test_published_lines_both_ways(text: str, line: logs.LogLine) -> None:
    assert str(line) == text
    assert parse_line(text) == line


def test_every_kind_has_a_published_or_generated_example() -> None:
    covered = {type(line) for _, line in PUBLISHED} | {logs.ValTokens, logs.FinalSliding}
    assert covered == set(logs.LINE_TYPES)


def _lines() -> st.SearchStrategy[logs.LogLine]:
    values = {
        "int": st.integers(0, 10**12),
        "float": st.floats(0, 1e6, allow_nan=False).map(lambda v: round(v, 2)),
        "str": st.from_regex(r"\A[a-z0-9+]{1,12}\Z"),
    }
    names = {int: "int", float: "float", str: "str"}
    kinds = [
        st.builds(kind, *(values[names[spec.type]] for spec in fields(kind)))  # type: ignore[index]
        for kind in logs.LINE_TYPES
    ]
    return st.one_of(kinds)


@given(_lines())
def test_round_trip(line: logs.LogLine) -> None:
    assert parse_line(str(line)) == line


@given(st.text())
def test_any_text_is_parsed_or_passed_over(text: str) -> None:
    line = parse_line(text)
    assert line is None or str(line)


def test_source_text_in_a_log_is_not_a_line() -> None:
    log = parse_log(
        [
            'log0(f"step:{step}/{total} val_loss:{val_loss:.4f} val_bpb:{val_bpb:.4f}")',
            '    print("seed:1337")',
            "seed:42",
            "  seed:43 ",
            "final_int8_zlib_roundtrip_exact val_loss:2.00000000 val_bpb:1.20000000",
            "final_int8_zlib_roundtrip_exact val_loss:2.00000000 val_bpb:1.10000000",
        ]
    )
    assert log.seed == 43
    assert log.final is not None
    assert log.final.val_bpb == 1.1  # the last score counts
    assert len(log.all(logs.FinalRoundtripExact)) == 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_a_loss_that_is_no_loss_is_refused(value: float) -> None:
    with pytest.raises(RecordError, match=r"TrainStep\.train_loss"):
        str(logs.TrainStep(1, 2, value, 3, 4.0))


def test_a_tag_is_one_word() -> None:
    line = logs.FinalRoundtripExact("Int8(a=1, b=2)_Zlib", 1.0, 1.0)
    assert str(line).startswith("final_Int8(a=1,b=2)_Zlib_roundtrip_exact val_loss:")
    assert isinstance(parse_line(str(line)), logs.FinalRoundtripExact)
    with pytest.raises(RecordError, match="needs a name"):
        str(logs.FinalRoundtripExact(" ", 1.0, 1.0))


def test_an_unreadable_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.log").write_bytes(b"\xff\xfe")
    with pytest.raises(RecordError, match=r"train\.log: not a readable log"):
        read_log(tmp_path / "train.log")
