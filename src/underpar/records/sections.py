"""The sections of the page. Each takes the runs and gives HTML; a section whose files are missing says what makes them."""

import statistics
from collections.abc import Sequence
from html import escape
from typing import Any

from underpar.core.units import format_bytes, format_count
from underpar.records.charts import (
    compressor_bars,
    document_histogram,
    layer_bars,
    loss_plot,
    role_bars,
    schedule_plots,
)
from underpar.records.run import STAGES, Run
from underpar.records.submission import reproduction_command
from underpar.stats import summarise

_MARKS = {"O": "stated rule", "C": "convention", "D": "disputed rule"}


def section(key: str, title: str, body: str) -> str:
    return f'<section id="{key}" aria-labelledby="h-{key}"><h2 id="h-{key}">{escape(title)}</h2>{body}</section>'


def missing(run: Run, name: str, what: str) -> str:
    """A line that names the command which writes `name`."""
    command = f"underpar {STAGES[name]} {run.folder}"
    return f'<p class="missing">{escape(what)} <code>{escape(command)}</code></p>'


def mean_bpb(runs: Sequence[Run]) -> float | None:
    """Mean over the scored runs, None when none is scored."""
    scores = [float(r.score["bpb"]) for r in runs if r.score]
    return statistics.fmean(scores) if scores else None


# ------------------------------------------------------------------------------------------------- result


def hero(runs: Sequence[Run]) -> str:
    """The score, and what it cost."""
    first, bpb = runs[0], mean_bpb(runs)
    if bpb is None:
        left = missing(first, "score.json", "Not scored yet.")
    else:
        scores = [float(r.score["bpb"]) for r in runs if r.score]
        what = "bits per byte of the held-out text"
        if len(scores) > 1:
            summary = summarise(scores)
            what += f", mean of {len(scores)} seeds ± {summary.sd:.4f} (sample sd)"
        if any(r.score and not r.score.get("lossless") for r in runs):
            what += " · lossy tokenizer"
        left = f'<div class="score"><b>{bpb:.4f}</b><span>{escape(what)}</span>'
        verdicts = sorted({str(r.verdict["verdict"]) for r in runs if r.verdict})
        left += "".join(f'<br><span class="badge {escape(v)}">{escape(v)}</span>' for v in verdicts) + "</div>"
    return f'<div class="hero">{left}<dl class="facts">{"".join(_facts(runs))}</dl></div>'


def _facts(runs: Sequence[Run]) -> list[str]:
    facts, budget = [], runs[0].budget
    artifacts = [r.artifact for r in runs if r.artifact]
    if artifacts:
        size = max(int(a["artifact_bytes"]) for a in artifacts)
        limit = int(budget.get("artifact_bytes") or artifacts[0].get("budget_bytes") or 0)
        facts.append(_fact("Artifact, code included", f"{size:,} B", size, limit, f"{limit:,} B"))
    trains = [r.train for r in runs if r.train]
    if trains:
        seconds = max(float(t["train_seconds"]) for t in trains)
        cap = float(budget.get("train_seconds") or 0)
        facts.append(_fact("Training", f"{seconds:,.1f} s", seconds, cap, f"{cap:g} s"))
    before = [_unquantised(t) for t in trains]
    if before and None not in before:
        facts.append(_fact("Before quantisation", f"{statistics.fmean(b for b in before if b is not None):.4f} bpb"))
    scores = [r.score for r in runs if r.score]
    if scores:
        seconds = max(float(s["eval_seconds"]) for s in scores)
        cap = float(budget.get("eval_seconds") or 0)
        facts.append(_fact("Evaluation", f"{seconds:,.1f} s", seconds, cap, f"{cap:g} s"))
    if trains:
        train = trains[0]
        params, short = f"{int(train['params']):,}", format_count(float(train["params"]))
        facts.append(_fact("Parameters", short, note=params if params != short else ""))
        rate = statistics.fmean(float(t["tokens_per_second"]) for t in trains)
        steps = f"{int(train['steps']):,} steps of {float(train['step_ms_median']):.4g} ms"
        facts.append(_fact("Throughput", f"{format_count(rate)} tokens/s", note=steps))
        facts.append(_fact("Trained on", f"{format_count(float(train['tokens']))} tokens", note=_machine(runs[0])))
    return facts


def _fact(name: str, value: str, used: float = 0.0, limit: float = 0.0, limit_text: str = "", *, note: str = "") -> str:
    meter = ""
    if limit > 0:
        share, over = used / limit, used > limit
        width = 1000 * min(1.0, share)
        meter = (
            f'<svg class="meter{" over" if over else ""}" role="img" viewBox="0 0 1000 4" preserveAspectRatio="none" '
            f'aria-label="{share:.1%} of the limit"><title>{share:.1%} of the limit</title>'
            f'<rect width="{width:.1f}" height="4"/></svg>'
        )
        note = f"{'over ' if over else ''}{share:.1%} of {limit_text}"
    small = f"<small>{escape(note)}</small>" if note else ""
    return f"<div><dt>{escape(name)}</dt><dd>{escape(value)}{meter}{small}</dd></div>"


def _machine(run: Run) -> str:
    environment = run.environment or {}
    if environment.get("gpu"):
        return f"{(run.train or {}).get('world_size', 1)} x {environment['gpu']}"
    return f"{environment['cores']} CPU cores" if environment.get("cores") else ""


def _unquantised(train: dict[str, Any]) -> float | None:
    """The bpb of the weights that were packed, before they were."""
    found = train.get("validation")
    counted = (found.get("averaged") or found.get("raw")) if isinstance(found, dict) else None
    value = counted.get("bpb") if isinstance(counted, dict) else None
    return float(value) if isinstance(value, int | float) else None


def seed_table(runs: Sequence[Run]) -> str:
    """One row a seed, with mean and spread; nothing for a single run."""
    if len(runs) < 2:
        return ""
    head = ("seed", "bpb", "loss, nats", "steps", "train s", "artifact B", "verdict")
    rows = []
    for run in runs:
        score, train, artifact = run.score or {}, run.train or {}, run.artifact or {}
        cells = (
            str(run.seed),
            _number(score.get("bpb"), ".6f"),
            _number(score.get("loss_nats"), ".6f"),
            _number(train.get("steps"), ",d"),
            _number(train.get("train_seconds"), ".1f"),
            _number(artifact.get("artifact_bytes"), ",d"),
            str((run.verdict or {}).get("verdict", "not verified")),
        )
        rows.append(_row(cells))
    scores = [float(r.score["bpb"]) for r in runs if r.score]
    note = ""
    if len(scores) > 1:
        summary = summarise(scores)
        losses = statistics.fmean(float(r.score["loss_nats"]) for r in runs if r.score)
        rows.append(_row(("mean", f"{summary.mean:.6f}", f"{losses:.6f}", "", "", "", ""), "mean"))
        note = (
            f'<p class="note">Sample sd {summary.sd:.6f}; 95 % interval of the mean '
            f"{summary.low:.6f} to {summary.high:.6f} (Student t, n = {summary.n}).</p>"
        )
    header = "".join(f'<th scope="col"{" class=n" if i else ""}>{h}</th>' for i, h in enumerate(head))
    table = _scroll("Seeds", f"<table><thead><tr>{header}</tr></thead><tbody>{''.join(rows)}</tbody></table>")
    return section("seeds", "Seeds", table + note)


def _scroll(label: str, table: str) -> str:
    """A table that scrolls in its own frame on a narrow screen, by touch and by keyboard."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">{table}</div>'


def _row(cells: Sequence[str], name: str = "") -> str:
    inner = "".join(f"<td{' class=n' if i else ''}>{escape(c)}</td>" for i, c in enumerate(cells))
    return f"<tr{f' class={name}' if name else ''}>{inner}</tr>"


def _number(value: Any, form: str) -> str:
    return format(value, form) if isinstance(value, int | float) else "-"


# ------------------------------------------------------------------------------------------------- curves and bytes


def training(runs: Sequence[Run]) -> str:
    """Loss, learning rate, momentum."""
    loss = loss_plot(runs)
    if loss is None:
        return section("training", "Training", missing(runs[0], "train.jsonl", "No training steps here."))
    pair = "".join(plot.html() for plot in schedule_plots(runs))
    return section("training", "Training", loss.html() + (f'<div class="pair">{pair}</div>' if pair else ""))


def compressors(runs: Sequence[Run]) -> str:
    """The score beside general compressors."""
    bpb, first = mean_bpb(runs), runs[0]
    if bpb is None:
        return ""
    drawn = compressor_bars(first, bpb, "this model")
    title = "Against compressors"
    if drawn is None or first.baselines is None:
        return section("compressors", title, missing(first, "baselines.json", "Not measured."))
    best = min(first.baselines["compressors"], key=lambda c: float(c["bpb"]))
    share = 1 - bpb / float(best["bpb"])
    words = (
        f"{share:.1%} fewer bits than {best['name']}" if share > 0 else f"{-share:.1%} more bits than {best['name']}"
    )
    note = f"Bits per byte on the same {format_bytes(int(first.baselines['text_bytes']))} of held-out text: {words}."
    note += " The model's own size is not in its bar; a compressor's program is not in its bar either."
    return section("compressors", title, f'<div class="compressors">{drawn}</div><p class="note">{escape(note)}</p>')


def sizes(runs: Sequence[Run]) -> str:
    """Where the bytes of the artifact went."""
    run, title = runs[0], "Where the bytes went"
    artifact = run.artifact
    if artifact is None:
        return section("bytes", title, missing(run, "artifact.json", "Not packed yet."))
    layers = layer_bars(artifact)
    body = f"<h3>By role</h3>{role_bars(artifact)}"
    body += f'<h3>By layer</h3><div class="layers">{layers}</div>' if layers else ""
    note = f"{artifact['quantiser']}, then {artifact['codec']}: {int(artifact['payload_bytes']):,} bytes of codes and "
    note += f"scales became a container of {int(artifact['container_bytes']):,}."
    note += f" Shown for {run.label}." if len(runs) > 1 else ""
    return section("bytes", title, body + f'<p class="note">{escape(note)}</p>')


def documents(runs: Sequence[Run]) -> str:
    """Per-document bits per byte of the first scored run."""
    for run in runs:
        if run.score:
            drawn = document_histogram(run, float(run.score["bpb"]))
            if drawn:
                return section("documents", "Easy and hard documents", drawn + _held_out(run.score))
    return ""


def _held_out(score: dict[str, Any]) -> str:
    tokens, text_bytes = int(score["tokens"]), int(score["bytes"])
    recoverable = "lossless" if score.get("lossless") else "lossy: the text cannot be recovered from its tokens"
    words = f"Scored: {tokens:,} tokens for {text_bytes:,} bytes of text, {text_bytes / tokens:.4f} bytes per token "
    words += f"({recoverable}), {float(score['loss_nats']):.6f} nats per token, window {score['window']}."
    if score.get("adaptation"):
        before = float(score["before_adaptation"]["bpb"])
        words += f" Learnt from while it was scored: {score['adaptation']}; {before:.6f} bits per byte without."
    return f'<p class="note">{escape(words)}</p>'


# ------------------------------------------------------------------------------------------------- provenance


def recipe(runs: Sequence[Run]) -> str:
    """Lineage, computed difference, command-line overrides, effect trace."""
    config = runs[0].config
    names = config.get("lineage") or [runs[0].name]
    lineage = "".join(f"<li>{escape(str(n))}</li>" for n in names)
    body = f'<ol class="lineage">{lineage}</ol>'
    changes = config.get("diff") or []
    if changes:
        body += _changes(changes, runs[0].effects)
        body += (
            f'<p class="note">Computed against {escape(str(config.get("parent") or "the parent"))}, not claimed.</p>'
        )
    else:
        body += '<p class="note">No setting differs from a parent recipe.</p>'
    overrides = [o for o in config.get("overrides") or [] if not str(o).startswith("seed=")]
    if overrides:
        body += "<h3>Overrides</h3><p>" + " ".join(f"<code>{escape(str(o))}</code>" for o in overrides) + "</p>"
    return section("recipe", "Recipe", body + _trace(runs[0]))


def _changes(changes: Sequence[dict[str, Any]], effects: Sequence[dict[str, Any]]) -> str:
    """What changed and, where the run was watched, what came of it; a change without effect is said first."""
    seen = {str(e["path"]): e for e in effects}
    idle = [e for e in effects if e.get("matters") is False]
    listed = {str(c["path"]) for c in changes}
    rows = ""
    for change in [*changes, *(e for e in idle if str(e["path"]) not in listed)]:
        effect = seen.get(str(change["path"]))
        observed = "" if effect is None else f'<td class="seen">{_observed(effect)}</td>'
        rows += (
            f"<tr><td><code>{escape(str(change['path']))}</code></td><td class=old>{_setting(change.get('old'))}</td>"
        )
        rows += f"<td class=new>{_setting(change.get('new'))}</td>{observed}</tr>"
    head = "<tr><th scope=col>setting</th><th scope=col>before</th><th scope=col>now</th>"
    head += "<th scope=col>observed</th></tr>" if effects else "</tr>"
    table = f'<table class="diff"><thead>{head}</thead><tbody>{rows}</tbody></table>'
    if not idle:
        return table
    one = len(idle) == 1
    words = f"{len(idle)} changed setting{'' if one else 's'} made no difference to this run."
    return f'<p class="idle" role="alert">{escape(words)}</p>{table}'


def _observed(effect: dict[str, Any]) -> str:
    word = {True: "", False: "<b>no effect</b>: "}.get(effect.get("matters"), "open: ")  # type: ignore[arg-type]
    return word + escape(str(effect.get("why") or ""))


def _setting(value: Any) -> str:
    return "(absent)" if value is None else f"<code>{escape(str(value))}</code>"


def _trace(run: Run) -> str:
    """Settings as they were really consumed: first and last value, and how often they changed."""
    rows = ""
    for name, changes in sorted((run.trace or {}).items()):
        if isinstance(changes, list) and changes:
            times = f"{len(changes) - 1:,}" if len(changes) > 1 else "constant"
            rows += _row((str(name), _consumed(changes[0]), _consumed(changes[-1]), times))
    if not rows:
        return ""
    head = "<tr><th scope=col>setting</th><th scope=col class=n>first</th><th scope=col class=n>last</th>"
    head += "<th scope=col class=n>changes</th></tr>"
    table = _scroll("Consumed settings", f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>")
    return f"<details><summary>Settings that training really consumed</summary>{table}</details>"


def _consumed(change: Any) -> str:
    value = change[1] if isinstance(change, list) and len(change) == 2 else change
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def verification(runs: Sequence[Run]) -> str:
    """Verdict and its checks, for every run that has one."""
    body = ""
    for run in runs:
        if run.verdict is None:
            body += missing(
                run, "verdict.json", f"{run.label} is not verified yet." if len(runs) > 1 else "Not verified yet."
            )
            continue
        if len(runs) > 1:
            body += f"<h3>{escape(run.label)}: {escape(str(run.verdict['verdict']))}</h3>"
        reason = str(run.verdict.get("reason") or "")
        if reason and reason != str(run.verdict["verdict"]):
            body += f"<p>{escape(reason)}</p>"
        items = "".join(_check(c) for c in run.verdict.get("checks", []))
        body += f'<ul class="checks">{items}</ul>'
    verdicts = {str(r.verdict["verdict"]) for r in runs if r.verdict}
    title = f"Verification: {', '.join(sorted(verdicts))}" if verdicts else "Verification"
    return section("verification", title, body)


def _check(check: dict[str, Any]) -> str:
    passed = check.get("passed")
    name, word = (
        ("passed", "passed") if passed is True else ("failed", "failed") if passed is False else ("open", "not run")
    )
    mark = _MARKS.get(str(check.get("mark")), "")
    origin = f" <small>({escape(mark)})</small>" if mark and passed is False else ""
    statement = str(check.get("statement") or "")
    return (
        f'<li><span class="state {name}">{word}</span><div><p>{escape(str(check.get("title") or check.get("id")))}'
        f"{origin}</p><p>{escape(statement)}</p></div></li>"
    )


def environment(runs: Sequence[Run]) -> str:
    """Hardware and versions of the first run, and in what the others differ."""
    first = runs[0].environment
    if first is None:
        return section("environment", "Environment", missing(runs[0], "environment.json", "Not recorded."))
    pairs = [(k.replace("_", " "), _plain(k, v)) for k, v in first.items() if k != "packages" and v is not None]
    pairs += [(name, str(version)) for name, version in sorted((first.get("packages") or {}).items()) if version]
    pairs.append(("fingerprint", runs[0].fingerprint))
    body = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in pairs)
    other = [r.label for r in runs[1:] if r.environment != first]
    note = f'<p class="note">Recorded differently for {escape(", ".join(other))}.</p>' if other else ""
    return section("environment", "Environment", f'<dl class="kv">{body}</dl>{note}')


def _plain(key: str, value: Any) -> str:
    return format_bytes(int(value)) if key.endswith("_bytes") and isinstance(value, int) else str(value)


def reproduction(runs: Sequence[Run]) -> str:
    """The exact command lines."""
    commands = escape("\n".join(reproduction_command(run) for run in runs))
    copy = '<button type="button" data-copy>Copy</button>'
    return section("reproduce", "Reproduce", f'<div class="command"><pre>{commands}</pre>{copy}</div>')
