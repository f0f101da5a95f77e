"""The page in headless Chromium: phone and desk, light and dark, pointer and keyboard, nothing loaded, nothing overflowing."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from underpar.records.report import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
    *("--enable-logging=stderr", "--virtual-time-budget=4000", "--dump-dom"),
]

# runs inside the copy of the page: measures, uses every control, and posts what it saw to the frame's owner
PROBE = """
<script>
addEventListener("load", () => {
  const seen = { errors: window.faults, name: window.name };
  const root = document.documentElement, size = (e) => e.getBoundingClientRect();
  seen.overflow = root.scrollWidth - root.clientWidth;
  seen.width = root.clientWidth;
  seen.wide = [...document.querySelectorAll("body *")].filter((e) => !e.closest(".scroll") && !e.closest("svg")
    && size(e).width > 0 && size(e).right > root.clientWidth + 1).map((e) => e.outerHTML.slice(0, 80));
  seen.drawings = [...document.querySelectorAll("svg")].map((e) => [size(e).width, size(e).height]);
  seen.resources = performance.getEntriesByType("resource").map((e) => e.name);
  const text = (e) => parseFloat(getComputedStyle(e).fontSize);
  seen.smallest = Math.min(...[...document.querySelectorAll("p, span, td, dd, dt, li")].map(text));
  seen.tips = [...document.querySelectorAll(".canvas")].filter((c) => c.querySelector("script")).map((canvas) => {
    const box = size(canvas), tip = canvas.querySelector(".tip");
    canvas.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + box.width / 2, bubbles: true }));
    const pointed = tip.textContent, shown = !tip.hidden, inside = size(tip).right <= root.clientWidth + 1;
    canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "PageDown", bubbles: true }));
    const moved = tip.textContent;
    canvas.dispatchEvent(new PointerEvent("pointerleave"));
    return { pointed, shown, inside, moved, gone: tip.hidden };
  });
  const toggle = document.getElementById("theme"), ground = () => getComputedStyle(document.body).backgroundColor;
  seen.themes = [0, 1, 2].map(() => { toggle.click(); return [toggle.textContent, ground()]; });
  parent.postMessage(JSON.stringify(seen), "*");
});
</script>
"""
FAULTS = (
    '<script>window.faults = []; addEventListener("error", (e) => window.faults.push(e.message)); '
    'addEventListener("securitypolicyviolation", (e) => window.faults.push("blocked " + e.blockedURI));</script>'
)
OWNER = """<!doctype html><body>{frames}<pre id="seen"></pre><script>
const all = [];
addEventListener("message", (e) => {{
  all.push(JSON.parse(e.data));
  document.getElementById("seen").textContent = JSON.stringify(all);
}});
</script>{load}</body>"""


def browse(pages: dict[str, tuple[Path, int]], folder: Path) -> tuple[dict[str, dict[str, Any]], str]:
    """What the probe saw in each page at its width, and what the browser logged."""
    frames = ""
    for name, (page, width) in pages.items():
        text = page.read_text().replace("<style>", FAULTS + "<style>", 1).replace("</body>", PROBE + "</body>")
        (folder / f"{name}.probe.html").write_text(text)
        frames += f'<iframe name="{name}" width="{width}" height="900" style="border:0" data-src="{name}.probe.html"></iframe>'
    load = "<script>for (const f of document.querySelectorAll('iframe')) f.src = f.dataset.src;</script>"
    (folder / "owner.html").write_text(OWNER.format(frames=frames, load=load))
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", (folder / "owner.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    assert found, done.stderr[-2000:]
    assert found[1], done.stderr[-2000:]
    return {seen["name"]: seen for seen in json.loads(html.unescape(found[1]))}, done.stderr


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on PATH")
def test_page_in_a_browser(seq4096_runs: list[Path], fake_run: Any, tmp_path: Path) -> None:
    whole = write_report([fake_run(7, bpb=1.19)], tmp_path / "whole.html")
    seeds = write_report(seq4096_runs, tmp_path / "seeds.html")
    bare = fake_run(8, points=30)
    for path in bare.iterdir():
        if path.name != "config.json":
            path.unlink()
    empty = write_report([bare], tmp_path / "empty.html")
    pages = {
        "whole-phone": (whole, 360),
        "whole-desk": (whole, 1280),
        "seeds-phone": (seeds, 360),
        "seeds-desk": (seeds, 1280),
        "empty-phone": (empty, 360),
    }
    seen, log = browse(pages, tmp_path)
    assert set(seen) == set(pages)
    assert "CONSOLE" not in log, [line for line in log.splitlines() if "CONSOLE" in line]
    for name, page in seen.items():
        assert page["errors"] == [], name
        assert page["resources"] == [], name
        assert page["overflow"] <= 0, (name, page["overflow"])
        assert page["wide"] == [], name
        assert page["width"] == pages[name][1]
        assert page["smallest"] >= 11, name
        assert all(w > 40 and h > 2 for w, h in page["drawings"]), name
        labels, grounds = zip(*page["themes"], strict=True)
        assert labels == ("Theme: light", "Theme: dark", "Theme: auto")
        assert grounds[0] != grounds[1]
        for tip in page["tips"]:
            assert tip["shown"], name
            assert tip["inside"], name
            assert tip["gone"], name
            assert tip["pointed"].startswith("step ")
            assert tip["moved"] != tip["pointed"], name
    assert len(seen["whole-phone"]["tips"]) == 3
    assert len(seen["whole-desk"]["drawings"]) > 15
    assert seen["empty-phone"]["drawings"] == []


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on PATH")
def test_the_probe_notices_a_broken_page(fake_run: Any, tmp_path: Path) -> None:
    page = write_report([fake_run(7, points=30)], tmp_path / "page.html")
    broken = page.read_text().replace(
        "</main>",
        '<p style="width:500px">wide</p><img src="http://127.0.0.1:9/x.png" alt="">'
        '<script>console.error("said"); throw new Error("fell");</script></main>',
    )
    page.write_text(broken)
    seen, log = browse({"broken": (page, 360)}, tmp_path)
    assert "said" in log
    assert "CONSOLE" in log
    assert seen["broken"]["overflow"] > 100
    assert seen["broken"]["wide"]
    assert any("fell" in fault for fault in seen["broken"]["errors"])
    assert any(fault.startswith("blocked") for fault in seen["broken"]["errors"])
