"""The command line answers at once, in JSON where asked, and a mistake costs one line."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from underpar.cli import VERBS, bench, main, options, score
from underpar.kernels import attention
from underpar.lab.adaptive import MODES, PLAIN
from underpar.recipes import registry
from underpar.referee.audit import track
from underpar.train import sinks

Outcome = tuple[int, str, str]


@pytest.fixture
def underpar(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command in this process: exit code, stdout, stderr."""

    def run(*words: str) -> Outcome:
        try:
            code = main(words)
        except SystemExit as left:  # argparse
            code = int(left.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


SHOW = ("show", "golf/baseline")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "golf/basline"), "no recipe 'golf/basline'; did you mean 'golf/baseline'?"),
        (("diff", "golf/baseline", "golf/seq496"), "did you mean 'golf/seq4096'?"),
        (("diff", "golf/baseline"), "'golf/baseline' has no parent; name a second recipe"),
        ((*SHOW, "--track", "golf-rekord"), "no track 'golf-rekord'; did you mean 'golf-record'?"),
        ((*SHOW, "--set", "model.mlp.ration=3"), "did you mean 'ratio'?"),
        ((*SHOW, "--set", "modle.num_layers=3"), "did you mean 'model'?"),
        ((*SHOW, "--set", "model.num_layers=many"), "model.num_layers = 'many' (str): expected int"),
        ((*SHOW, "--set", "model.num_layers=0"), "model.num_layers = 0 is out of range: must be >= 1"),
        ((*SHOW, "--set", "model.topology=Unet"), "expected SkipAndBackout | Straight | UNet"),
        ((*SHOW, "--set", "model.topology=Unet()"), "unknown config 'Unet'; did you mean 'UNet'?"),
        ((*SHOW, "--set", "model.topology=MLP()"), "model.topology = MLP: expected SkipAndBackout | Straight | UNet"),
        ((*SHOW, "--set", "train.precision=float16"), "did you mean 'bfloat16'?"),
        ((*SHOW, "--set", "model.model_dim=100"), "must be a multiple of num_heads = 8"),
        ((*SHOW, "--set", "model.vocab_size=512"), "model.vocab_size = 512, but data.tokenizer has 1024"),
        ((*SHOW, "--set", "seed"), "'seed' is not an override; write path.to.field=value"),
        (("show", "zzz"), "no recipe 'zzz'; valid: golf/attention_out_gate, "),
        (
            ("show", "golf/underpar", "--track", "speedrun-toy"),
            "golf/underpar on track speedrun-toy: model: rope.dims = 16",
        ),
        ((*SHOW, "--track", "speedrun-toy", "--set", "budget.train_steps=0"), "must be >= 1"),
        (("train", "golf/baseline", "--device", "cpu"), "needs prepared tokens: --data DIR"),
        (("pack", "/nowhere/at/all"), "is missing; 'underpar train' makes it"),
        (
            ("score", "/nowhere/model.upar", "--device", "cpu"),
            "there is no run folder or artifact at /nowhere/model.upar",
        ),
        (("score", __file__, "--device", "cpu"), "name the held-out tokens with --data DIR"),
        (("run", "quickstart", "--seeds", "3", "4", "3"), "--seeds has 3 twice"),
        (("bench", "quickstart", "--steps", "0"), "--steps 0 is nothing to time"),
        (("verify", "/nowhere/model.upar"), "there is no run folder or artifact at /nowhere/model.upar"),
        (("flatten", "quickstart", "--out", "/"), "--out / is a folder; name the script in it, such as /train_gpt.py"),
        (("report", "/nowhere", "--out", "x.html"), "/nowhere: not a run folder"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(
    underpar: Callable[..., Outcome], words: tuple[str, ...], said: str
) -> None:
    code, out, err = underpar(*words)
    assert (code, out) == (2, "")
    assert said in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_a_place_that_cannot_be_written_is_one_line_too(underpar: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, out, err = underpar(
        "train", "quickstart", "--out", str(tmp_path / "file"), "--data", str(tmp_path), "--device", "cpu"
    )
    assert (code, out) == (2, "")
    assert err == f"error: {tmp_path}/file/quickstart/seed1337: Not a directory; name a place that can be used\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("verify", "x", "--tolerance", "-1"), "argument --tolerance: -1 is no relative difference"),
        (("verify", "x", "--time-limit", "0"), "argument --time-limit: 0 is not above 0"),
        (("verify", "x", "--processes", "1.5"), "argument --processes: '1.5' is no whole number of at least 1"),
        (("verify", "x", "--limit-bytes", "-5"), "argument --limit-bytes: '-5' is no whole number of at least 1"),
        (("compare", "x", "--against", "y", "--margin", "inf"), "argument --margin: 'inf' is no finite number"),
        (("target", "x", "--target", "nan"), "argument --target: 'nan' is no finite number"),
    ],
)
def test_a_number_that_an_option_cannot_mean_exits_with_2(
    underpar: Callable[..., Outcome], words: tuple[str, ...], said: str
) -> None:
    code, out, err = underpar(*words)
    assert (code, out) == (2, "")
    assert said in err.splitlines()[-1]


def test_an_unknown_verb_exits_with_2(underpar: Callable[..., Outcome]) -> None:
    code, out, err = underpar("shwo", "golf/baseline")
    assert (code, out) == (2, "")
    assert "invalid choice: 'shwo'" in err


def test_list_in_json_has_every_recipe_and_track(underpar: Callable[..., Outcome]) -> None:
    code, out, err = underpar("list", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert [r["name"] for r in found["recipes"]] == list(registry.recipes)
    assert {t["name"] for t in found["tracks"]} >= {"golf-record", "golf-mini", "golf-cpu"}
    assert all(r["summary"].endswith(".") for r in found["recipes"] + found["tracks"])


def test_list_for_people_has_one_line_each(underpar: Callable[..., Outcome]) -> None:
    _, out, _ = underpar("list")
    for name in (*registry.recipes, *registry.tracks):
        assert sum(line.split()[:1] == [name] for line in out.splitlines()) == 1


@pytest.mark.parametrize("name", ["quickstart", "golf/baseline", "golf/longcontext2048", "golf/seq4096"])
def test_show_in_json_is_the_resolved_recipe(underpar: Callable[..., Outcome], name: str) -> None:
    code, out, _ = underpar("show", name, "--json", "--set", "seed=5", "--set", "model.mlp.ratio=2.5")
    found = json.loads(out)
    wanted = registry.resolve(name, overrides=["seed=5", "model.mlp.ratio=2.5"])
    assert code == 0
    assert found["fingerprint"] == wanted.fingerprint
    assert found["lineage"] == list(wanted.lineage)
    assert (found["config"]["seed"], found["config"]["model"]["mlp"]["ratio"]) == (5, 2.5)


def test_show_for_people_has_lineage_changes_and_settings(underpar: Callable[..., Outcome]) -> None:
    _, out, _ = underpar("show", "golf/seq4096")
    assert "lineage: golf/baseline -> golf/longcontext2048 -> golf/seq4096" in out
    assert "data.loader.seq_len: 2048 -> 4096" in out
    assert "    num_layers = 9" in out


def test_diff_in_json_is_computed(underpar: Callable[..., Outcome]) -> None:
    code, out, _ = underpar("diff", "golf/longcontext2048", "--json")
    assert code == 0
    assert json.loads(out) == [
        {"path": "data.loader.seq_len", "old": "1024", "new": "2048"},
        {"path": "evaluate.window.context", "old": "1024", "new": "2048"},
    ]
    _, same, _ = underpar("diff", "golf/baseline", "golf/baseline", "--json")
    assert json.loads(same) == []


def test_seq4096_differs_from_the_baseline_as_published() -> None:
    found = {c.path: c.new for c in registry.changes("golf/baseline", "golf/seq4096")}
    assert found == {
        "data.loader.batch_tokens": "393216", "data.loader.seq_len": "4096", "evaluate.window.context": "4096",
        "optim.matrix.lr": "0.02", "optim.embedding.lr": "0.03", "optim.gain.lr": "0.02",
        "schedule.learning_rate.steps": "3000", "schedule.momentum.start": "0.92", "schedule.momentum.final": "0.99",
        "schedule.momentum.steps": "1500",
    }  # fmt: skip


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["show", "--help"], ["nonsense"]])
def test_help_needs_no_torch(words: list[str]) -> None:
    code = (
        f"import sys; from underpar.cli import main\ntry: main({words!r})\nfinally: assert 'torch' not in sys.modules"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == (2 if words == ["nonsense"] else 0), found.stderr
    assert "AssertionError" not in found.stderr


@pytest.mark.parametrize("verb", ["show", "plan", "run", "train", "flatten", "bench"])
def test_help_names_every_track(underpar: Callable[..., Outcome], verb: str) -> None:
    assert tuple(registry.tracks) == options.TRACKS
    _, out, _ = underpar(verb, "--help")
    assert ", ".join(registry.tracks) in unwrapped(out)


def test_training_takes_every_sink(underpar: Callable[..., Outcome]) -> None:
    assert tuple(sinks.SINKS) == options.SINKS
    _, out, _ = underpar("train", "--help")
    assert f"--sink {{{','.join(options.SINKS)}}}" in unwrapped(out)


def test_help_of_audit_names_every_track_that_it_knows(underpar: Callable[..., Outcome]) -> None:
    _, out, _ = underpar("audit", "--help")
    *most, last = track.TRACKS
    assert f"{', '.join(most)} or {last}" in unwrapped(out)


def test_help_of_bench_names_every_attention_back_end(underpar: Callable[..., Outcome]) -> None:
    assert bench.BACKENDS == attention.BACKENDS
    _, out, _ = underpar("bench", "--help")
    assert ", ".join(attention.BACKENDS) in unwrapped(out)


def test_score_takes_every_mode_that_scoring_knows(underpar: Callable[..., Outcome]) -> None:
    assert (PLAIN, *MODES) == score.MODES
    _, out, _ = underpar("score", "--help")
    assert f"--mode {{{','.join(score.MODES)}}}" in unwrapped(out)


def unwrapped(page: str) -> str:
    """The words of a help page in one line; argparse breaks behind hyphens too."""
    return " ".join(re.sub(r"(?<=\w)-\n\s*", "-", page).split())


def test_help_names_every_verb(underpar: Callable[..., Outcome]) -> None:
    code, out, _ = underpar("--help")
    assert code == 0
    for verb in VERBS:
        assert f"\n    {verb} " in out
