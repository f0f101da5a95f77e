"""The benchmark runs any recipe anywhere, phase by phase, on documents like those of the web."""

import json
from typing import Any

import numpy as np
import pytest

from support import BOS
from underpar.cli import main
from underpar.core.errors import ConfigError
from underpar.core.world import World
from underpar.data.loaders import DocumentPacking, SequentialRows
from underpar.lab.bench import _attended_tokens, bench_recipe
from underpar.lab.share import Share
from underpar.lab.synthetic import LENGTHS, document_starts, random_stream, random_tokens
from underpar.recipes import registry

TINY = [
    "data.tokenizer=Bytes", "model.vocab_size=260", "model.model_dim=32", "model.attention.num_heads=2",
    "model.attention.num_kv_heads=1", "data.loader.spans=2", "data.loader.seq_len=32", "data.loader.batch_tokens=256",
    "evaluate.window.context=64", "evaluate.batch_tokens=512", "train.warmup_steps=2", "schedule.recurrence=FromFraction",
]  # fmt: skip


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    resolved = registry.resolve("golf/ema", overrides=[*TINY, "fake_quantise=FakeIntPerRow"])
    return bench_recipe(resolved, World(), steps=3, attention=None)


def test_every_phase_is_timed(found: dict[str, Any]) -> None:
    assert [phase["phase"] for phase in found["phases"]] == [
        {"looped": False, "quantised": True}, {"looped": True, "quantised": True},
    ]  # fmt: skip
    assert found["step"] == found["phases"][-1]
    before, looping = found["phases"]
    per_token = [p["model_flops_per_second"] / p["tokens_per_second"] for p in (before, looping)]
    assert per_token[1] > 1.2 * per_token[0]  # 17 executions instead of 11, and a head
    for phase in found["phases"]:
        assert phase["step_ms_p10"] <= phase["step_ms"] <= phase["step_ms_p90"]
        assert len(phase["loss_nats"]) == 3
        assert phase["recompilations"] == 0


def test_the_result_is_json_and_says_what_it_was_measured_on(found: dict[str, Any]) -> None:
    assert json.loads(json.dumps(found)) == found
    assert found["documents"] == {"distribution": "log-normal", "mean_tokens": 800, "sigma": 1.0, "cap_tokens": 32_768}
    assert found["loader"]["tokens_per_second"] > 0
    assert found["scoring"]["tokens_per_second"] > 0
    assert found["scoring"]["forward_passes_per_token"] == 1.0


def test_a_profile_needs_a_device_that_has_kernels() -> None:
    with pytest.raises(ConfigError, match="--profile needs a CUDA device"):
        bench_recipe(registry.resolve("golf/baseline"), World(), steps=1, attention=None, profiled=True)


def test_compilation_alone_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [word for text in TINY for word in ("--set", text)]
    assert main(["bench", "golf/baseline", *overrides, "--device", "cpu", "--compile-only", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["compile"] == 0.0
    assert printed["warm-up"] > 0.0


def test_documents_are_as_long_as_those_of_the_web() -> None:
    lengths = LENGTHS.draw(np.random.default_rng(0), 200_000)
    assert lengths.mean() == pytest.approx(800, rel=0.02)
    assert np.median(lengths) == pytest.approx(800 * np.exp(-0.5), rel=0.02)
    assert lengths.max() <= LENGTHS.cap_tokens
    assert lengths.min() >= 2


def test_random_tokens_begin_documents_and_only_there() -> None:
    tokens, starts = random_tokens(50_000, 64, BOS), document_starts(50_000)
    assert np.flatnonzero(tokens == BOS).tolist() == starts.tolist()
    assert starts[0] == 0
    assert set(np.unique(tokens)) == set(range(64))
    stream = random_stream(50_000, 64, BOS)
    assert stream.text_bytes == 50_000 - len(starts)


def test_attended_positions_of_rows_and_documents() -> None:
    spans = np.full((1, 65), 5, dtype=np.uint16)
    (rows,) = SequentialRows(batch_tokens=64, seq_len=16, spans=1).cut(spans, range(4), BOS, 64)
    assert _attended_tokens(rows) == 8.5
    spans[0, [0, 16, 32]] = BOS
    (packed,) = DocumentPacking(batch_tokens=64, seq_len=64, spans=1).cut(spans, range(1), BOS, 64)
    assert _attended_tokens(packed) == pytest.approx((2 * 16 * 17 / 2 + 32 * 33 / 2) / 64)


@pytest.mark.parametrize("name", ["speedrun/record67", "speedrun/record71"])
def test_the_share_of_one_process_is_its_rows_and_its_matrices(name: str) -> None:
    whole = registry.resolve(name, track="speedrun-toy", overrides=["train.warmup_steps=2", "data.loader.spans=4"])
    found = bench_recipe(whole, Share.of(World(), 4), steps=2, attention=None)
    assert (found["world_size"], found["share_of"]) == (1, 4)
    for phase, kind in zip(found["phases"], whole.config.schedule.kinds(whole.config.budget), strict=True):
        assert phase["batch_tokens"] == whole.config.data.loader.shaped(kind.shape).batch_tokens // 4
        assert phase["tokens_per_second"] == pytest.approx(phase["batch_tokens"] / phase["step_ms"] * 1e3)


def test_a_share_is_taken_alone_and_of_several() -> None:
    with pytest.raises(ConfigError, match="here are 2; leave torchrun out"):
        Share.of(World(size=2), 4)
    with pytest.raises(ConfigError, match="at least 2"):
        Share.of(World(), 1)
