"""The page as text: complete, escaped, self-contained, legible."""

import json
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpar.core.errors import RecordError
from underpar.records.charts import evenly, trailing_mean
from underpar.records.plot import Plot, Series, script_json, tick_label, ticks
from underpar.records.report import write_report

FakeRun = Callable[..., Path]


def sections_of(page: str) -> list[str]:
    return re.findall(r'<section id="([\w-]+)"', page)


def test_a_whole_run_has_every_section(fake_run: FakeRun, tmp_path: Path) -> None:
    page = write_report([fake_run(1337, bpb=1.20143417)], tmp_path / "page.html").read_text()
    assert sections_of(page) == [
        "compressors",
        "training",
        "bytes",
        "documents",
        "recipe",
        "verification",
        "reproduce",
        "environment",
    ]
    for words in ("1.2014", "brotli -11", "layer 8", "int8" if "int8" in page else "Int8PerRow", "flash-attn-4"):
        assert words in page
    assert "underpar run golf/seq4096 --track golf-record --seed 1337" in page
    assert page.count("<figure") == 4
    assert 30_000 < len(page) < 400_000


def test_seeds_are_drawn_over_each_other(seq4096_runs: list[Path], tmp_path: Path) -> None:
    page = write_report(seq4096_runs, tmp_path / "page.html").read_text()
    assert "seeds" in sections_of(page)
    assert "mean of 3 seeds ± 0.0019 (sample sd)" in page
    assert "1.201360" in page
    loss = json.loads(re.findall(r'<script type="application/json">(.*?)</script>', page)[0])
    names = [s["name"] for s in loss["series"]]
    assert names == [f"seed {s}{kind}" for s in (1337, 1338, 1339) for kind in ("", ", validation")]


def test_missing_stages_name_their_commands(fake_run: FakeRun, tmp_path: Path) -> None:
    folder = fake_run(5, points=30)
    for path in folder.iterdir():
        if path.name != "config.json":
            path.unlink()
    page = write_report([folder], tmp_path / "page.html").read_text()
    assert sections_of(page) == ["training", "bytes", "recipe", "verification", "reproduce", "environment"]
    for verb in ("train", "pack", "score", "verify"):
        assert f"<code>underpar {verb} {folder}</code>" in page


def test_only_what_is_missing_is_missing(fake_run: FakeRun, tmp_path: Path) -> None:
    folder = fake_run(5, points=30)
    (folder / "baselines.json").unlink()
    (folder / "documents.npz").unlink()
    (folder / "verdict.json").unlink()
    page = write_report([folder], tmp_path / "page.html").read_text()
    assert f"underpar score {folder}" in page
    assert f"underpar verify {folder}" in page
    assert "documents" not in sections_of(page)
    assert "badge valid" not in page


def test_all_text_is_escaped(fake_run: FakeRun, tmp_path: Path) -> None:
    nasty = "</script><img src=x onerror=alert(1)>\"'&"
    folder = fake_run(3, points=30)
    for name, keys in (
        ("config.json", ("recipe", "summary", "command", "track", "parent")),
        ("environment.json", ("gpu", "cpu", "underpar")),
        ("artifact.json", ("codec", "quantiser")),
        ("score.json", ("window",)),
    ):
        data = json.loads((folder / name).read_text())
        data.update(dict.fromkeys(keys, nasty))
        (folder / name).write_text(json.dumps(data))
    _effects(folder)
    for name, change in (
        ("verdict.json", lambda d: d["checks"][0].update(title=nasty, statement=nasty, passed=False)),
        ("verdict.json", lambda d: d.update(verdict=nasty)),
        ("artifact.json", lambda d: d["by_tensor"][3].update(name="blocks.1." + nasty)),
        ("artifact.json", lambda d: d["by_role"].update({nasty: d["by_role"].pop("gain")})),
        ("baselines.json", lambda d: d["compressors"][0].update(name=nasty)),
        ("trace.json", lambda d: d.update({nasty: [[1, nasty]]})),
        (
            "effects.json",
            lambda d: d["settings"].append({"path": nasty, "old": nasty, "new": nasty, "matters": False, "why": nasty}),
        ),
        ("config.json", lambda d: d.update(lineage=[nasty], overrides=[nasty])),
        ("config.json", lambda d: d["diff"].append({"path": nasty, "old": nasty, "new": nasty})),
    ):
        data = json.loads((folder / name).read_text())
        change(data)
        (folder / name).write_text(json.dumps(data))
    page = write_report([folder], tmp_path / "page.html").read_text()
    assert "<img" not in page
    assert page.count("</script>") == page.count("<script")
    assert page.count("&lt;img src=x onerror=alert(1)&gt;") > 10


def test_a_change_without_effect_is_said(seq4096_runs: list[Path], tmp_path: Path) -> None:
    folder = seq4096_runs[0]
    page = write_report([folder], tmp_path / "page.html").read_text()
    assert "no difference to this run" not in page
    first, *_ = json.loads((folder / "config.json").read_text())["diff"]
    _effects(folder, {**first, "matters": False, "why": "nothing read it"})
    page = write_report([folder], tmp_path / "page.html").read_text()
    assert "1 changed setting made no difference to this run" in page
    assert "<b>no effect</b>: nothing read it" in page
    _effects(folder, {**first, "matters": True, "why": "read by training"})
    page = write_report([folder], tmp_path / "page.html").read_text()
    assert "no difference to this run" not in page
    assert "read by training" in page


def test_a_vain_part_of_a_replaced_choice_has_a_row(seq4096_runs: list[Path], tmp_path: Path) -> None:
    folder = seq4096_runs[0]
    _effects(
        folder, {"path": "optim.matrix.vain", "old": None, "new": "0.5", "matters": False, "why": "nothing read it"}
    )
    page = write_report([folder], tmp_path / "page.html").read_text()
    assert "<code>optim.matrix.vain</code>" in page


@pytest.mark.parametrize("damage", [[], {"settings": 3}, {"settings": [3, {}, {"path": 4}]}])
def test_damaged_effects_break_no_page(seq4096_runs: list[Path], tmp_path: Path, damage: object) -> None:
    (seq4096_runs[0] / "effects.json").write_text(json.dumps(damage))
    if isinstance(damage, list):
        with pytest.raises(RecordError, match="holds a list"):
            write_report(seq4096_runs[:1], tmp_path / "page.html")
        return
    assert write_report(seq4096_runs[:1], tmp_path / "page.html").exists()


def _effects(folder: Path, *settings: dict[str, object]) -> None:
    (folder / "effects.json").write_text(json.dumps({"against": "golf/longcontext2048", "settings": settings}))


def test_nothing_is_loaded(seq4096_runs: list[Path], tmp_path: Path) -> None:
    page = write_report(seq4096_runs, tmp_path / "page.html").read_text()
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\(|src=|<iframe|fetch\(", page)
    assert re.findall(r'href="([^"]*)"', page) == ["data:,"]


def test_every_drawing_has_a_name(seq4096_runs: list[Path], tmp_path: Path) -> None:
    page = write_report(seq4096_runs, tmp_path / "page.html").read_text()
    drawings = re.findall(r"<svg .*?</svg>", page, flags=re.DOTALL)
    assert len(drawings) > 15
    for drawing in drawings:
        assert 'role="img"' in drawing
        assert re.search(r"<title[^>]*>[^<]+</title>", drawing)
        assert "nan" not in drawing
        assert "inf" not in drawing
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for named in re.findall(r'aria-labelledby="([^"]+)"', page):
        assert set(named.split()) <= set(ids)


def _palettes() -> dict[str, dict[str, str]]:
    css = (files("underpar.records") / "assets" / "report.css").read_text()
    blocks = re.findall(r"color-scheme: (light|dark);([^}]*)", css)
    return {f"{name}-{i}": dict(re.findall(r"--(\w+): (#\w+)", body)) for i, (name, body) in enumerate(blocks)}


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(a: str, b: str) -> float:
    high, low = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("name", "palette"), _palettes().items(), ids=lambda v: v if isinstance(v, str) else "")
def test_contrast(name: str, palette: dict[str, str]) -> None:
    for text in ("ink", "soft", "good", "bad", "wait"):
        for ground in ("paper", "card", "code"):
            assert _contrast(palette[text], palette[ground]) >= 4.5, (name, text, ground)
    for series in range(1, 7):
        assert _contrast(palette[f"c{series}"], palette["paper"]) >= 3.0, (name, series)


def test_the_two_dark_palettes_are_one() -> None:
    palettes = list(_palettes().values())
    assert len(palettes) == 3
    assert palettes[1] == palettes[2] != palettes[0]


def test_refuses_two_recipes_and_a_seed_twice(fake_run: FakeRun, tmp_path: Path) -> None:
    one = fake_run(1, points=20)
    with pytest.raises(RecordError, match="one page shows one recipe"):
        write_report([one, fake_run(2, recipe="golf/baseline", points=20)], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
    assert not list(tmp_path.glob(".page*"))


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 8))
def test_ticks_are_inside_round_and_few(low: float, width: float, about: int) -> None:
    high = low + width
    places = ticks(low, high, about)
    slack = 1e-6 * max(abs(low), abs(high), 1)
    assert 2 <= len(places) <= about + 3
    assert all(low - slack <= t <= high + slack for t in places)
    labels = [tick_label(t, places) for t in places]
    assert len(labels) < 2 or max(map(abs, places)) >= 10_000 or len(set(labels)) == len(labels)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=400), st.integers(1, 50))
def test_smoothing_stays_within_the_data(values: list[float], window: int) -> None:
    smooth = trailing_mean(values, window)
    assert len(smooth) == len(values)
    assert smooth[0] == values[0]
    assert min(values) - 1e-9 <= min(smooth) <= max(smooth) <= max(values) + 1e-9


@given(st.integers(1, 5000), st.integers(2, 400))
def test_thinning_keeps_the_ends(count: int, at_most: int) -> None:
    kept = evenly(count, at_most)
    assert kept[0] == 0
    assert kept[-1] == count - 1
    assert len(kept) <= at_most
    assert kept == sorted(set(kept))


def test_a_flat_curve_can_be_drawn() -> None:
    drawing = Plot("flat", "Flat", "", "constant", (Series("a", [1.0, 2.0], [0.5, 0.5]),)).html()
    assert "nan" not in drawing
    assert 'd="M' in drawing


def test_script_json_cannot_leave_its_element() -> None:
    text = script_json({"a": "</script><b>&"})
    assert "<" not in text
    assert json.loads(text) == {"a": "</script><b>&"}
