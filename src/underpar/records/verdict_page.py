"""A verdict as a page: one self-contained HTML file that reads like a reviewer's comment."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from underpar.core.whole import write_whole
from underpar.records.sections import section

PAGE_FILE = "verdict.html"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
"""The browser itself refuses to load anything from anywhere."""
MARKS = {"O": "official rule", "C": "convention", "D": "disputed"}
MAX_EVIDENCE_CHARACTERS = 20_000
"""Of one check; verdict.json has all of it."""


def write_verdict_page(verdict: Mapping[str, Any], out_html: Path) -> Path:
    """Write the page of a verdict, as its file holds it, and return the path. Nothing is loaded from elsewhere."""
    return write_whole(out_html, render(verdict))


def render(verdict: Mapping[str, Any]) -> str:
    """The text of the page."""
    word, checks = str(verdict["verdict"]), verdict["checks"]
    failed = [check for check in checks if check["passed"] is False]
    missing = [check for check in checks if check["passed"] is None and check.get("missing")]
    others = [check for check in checks if check not in failed and check not in missing]
    titles = verdict.get("classes", {})
    body = (
        _checks("failed", "What failed", failed, titles),
        _readings(verdict.get("readings", ())),
        _checks("missing", "What could not be measured", missing, titles),
        _checks("others", "What was checked", others, titles),
        _effort(verdict),
        _files(verdict),
        _repeat(verdict),
    )
    css = (files("underpar.records") / "assets" / "report.css").read_text(encoding="utf-8")
    script = (files("underpar.records") / "assets" / "report.js").read_text(encoding="utf-8")
    counts = f"{len(failed)} failed, {sum(c['passed'] is True for c in checks)} passed, {len(checks)} in all"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>verdict: {escape(word)}</title><link rel="icon" href="data:,"><style>{css}</style></head>\n'
        '<body><header><div class="top"><span>verdict of underpar verify</span>'
        '<button type="button" id="theme" aria-label="Colour theme">Theme</button></div>'
        f'<h1><span class="badge {escape(word)}">{escape(word)}</span></h1>'
        f'<p class="summary">{escape(str(verdict.get("reason", "")))}</p><p class="note">{escape(counts)}</p></header>\n'
        f"<main>{chr(10).join(part for part in body if part)}</main>\n"
        "<footer><p>Derived from the evidence in verdict.json; "
        "<code>underpar verify --replay verdict.json</code> derives it again.</p></footer>\n"
        f"<script>{script}</script></body></html>\n"
    )


def _checks(key: str, title: str, checks: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> str:
    if not checks:
        return ""
    return section(key, title, f'<ul class="checks">{"".join(_check(check, titles) for check in checks)}</ul>')


def _check(check: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    state = {True: ("passed", "passed"), False: ("failed", "failed")}.get(check["passed"], ("open", "not run"))
    origin = f"{check['rule']}, {MARKS.get(str(check['mark']), '')}"
    named = [f"{id} {titles.get(id, '')}" for id in check.get("classes", ())]
    likely = f"<p>Looks like: {escape('; '.join(named[:3]))}.</p>" if named else ""
    return (
        f'<li><span class="state {state[0]}">{state[1]}</span><div><p>{escape(str(check["title"]))} '
        f"<small><code>{escape(str(check['id']))}</code> ({escape(origin)})</small></p>"
        f"<p>{escape(str(check['statement']))}</p>{likely}{_evidence(check)}</div></li>"
    )


def _evidence(check: Mapping[str, Any]) -> str:
    if not check.get("evidence"):
        return ""
    text = json.dumps(check["evidence"], indent=1)
    if len(text) > MAX_EVIDENCE_CHARACTERS:
        text = f"{text[:MAX_EVIDENCE_CHARACTERS]}\n... the rest is in verdict.json"
    return f"<details><summary>evidence</summary><pre>{escape(text)}</pre></details>"


def _readings(readings: Sequence[Mapping[str, Any]]) -> str:
    if not readings:
        return ""
    scores = ["not known" if one["bpb"] is None else f"{one['bpb']:.6f}" for one in readings]
    rows = "".join(
        f"<tr><td>{escape(str(one['reading']))}</td><td>{escape(str(one['verdict']))}</td><td class=n>{score}</td></tr>"
        for one, score in zip(readings, scores, strict=True)
    )
    head = "<tr><th scope=col>reading</th><th scope=col>verdict</th><th scope=col class=n>bits per byte</th></tr>"
    note = f'<p class="note">Contested: {escape(str(readings[0]["contested"]))}. Nobody has ruled on it.</p>'
    return section("readings", "Both readings", f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>{note}")


def _effort(verdict: Mapping[str, Any]) -> str:
    measured = verdict.get("measured", {})
    plan = measured.get("facts", {}).get("plan", {})
    pairs = [("seconds in all", measured.get("wall_seconds")), ("seed of the probes", measured.get("seed"))]
    pairs += [(key.replace("_", " "), value) for key, value in plan.items()]
    closure = measured.get("closure", {}).get("statement")
    note = f'<p class="note">{escape(str(closure))}</p>' if closure else ""
    return section("effort", "How much was probed", _pairs(pairs) + note)


def _files(verdict: Mapping[str, Any]) -> str:
    listed = verdict.get("subject", {}).get("files", {})
    if not listed:
        return ""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td "
        f"class=n>{entry['bytes']:,}</td><td><code>{escape(entry['sha256'])}</code></td></tr>"
        for name, entry in listed.items()
    )
    head = "<tr><th scope=col>file</th><th scope=col class=n>bytes</th><th scope=col>sha256</th></tr>"
    return section("files", "What was judged", f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>")


def _repeat(verdict: Mapping[str, Any]) -> str:
    command = verdict.get("subject", {}).get("command")
    return section("repeat", "Repeat", f"<pre>{escape(str(command))}</pre>") if command else ""


def _pairs(pairs: Sequence[tuple[str, Any]]) -> str:
    items = (
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in pairs if value is not None
    )
    return f'<dl class="kv">{"".join(items)}</dl>'
