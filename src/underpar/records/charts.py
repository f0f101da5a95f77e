"""What the page draws, from the files of the runs: curves, bars, histogram."""

import itertools
import math
from collections.abc import Sequence
from html import escape

from underpar.core.units import format_bytes
from underpar.records.plot import COLOURS, Band, Plot, Series, tick_label, ticks
from underpar.records.run import JsonObject, Run, layer_and_part

_POINTS = 360
"""Points of a drawn curve: more than pixels on a phone, few enough for a small page."""


def colour_of(index: int) -> int:
    return index % COLOURS + 1


# ------------------------------------------------------------------------------------------------- curves


def loss_plot(runs: Sequence[Run]) -> Plot | None:
    """Training loss, smoothed, with validation points; one run also shows the range of its single steps."""
    series: list[Series] = []
    bands: list[Band] = []
    starts: list[float] = []
    tops: list[float] = []
    bottoms: list[float] = []
    window = 1
    for index, run in enumerate(runs):
        rows = [s for s in run.steps if math.isfinite(float(s["loss_nats"]))]
        if len(rows) < 2:
            continue
        steps = [float(s["step"]) for s in rows]
        losses = [float(s["loss_nats"]) for s in rows]
        window = max(1, len(rows) // 100)
        smooth = trailing_mean(losses, window)
        kept = evenly(len(rows), _POINTS)
        shown = run.label if len(runs) > 1 else "training"
        series.append(Series(shown, [steps[i] for i in kept], [smooth[i] for i in kept], colour_of(index)))
        if len(runs) == 1 and len(rows) > 200:
            bands.append(_range_band(steps, losses))
        checks = [v for v in run.validations if math.isfinite(float(v["loss_nats"]))]
        if checks:
            y = [float(v["loss_nats"]) for v in checks]
            other = colour_of(1) if len(runs) == 1 else colour_of(index)
            name = f"{run.label}, validation" if len(runs) > 1 else "validation"
            series.append(Series(name, [float(v["step"]) for v in checks], y, other, "dots", in_legend=len(runs) == 1))
            bottoms.append(min(y))
        starts.append(losses[0])
        tops.append(max(smooth[len(smooth) // 40 :]))
        bottoms.append(min(smooth))
    if not series:
        return None
    low, high = min(bottoms), max(tops)
    pad = max(0.08 * (high - low), 0.02)
    note = "nats per token by step" + (f", mean of the last {window} logged steps" if window > 1 else "")
    note += "; dots are validation" if len(runs) > 1 else ""
    note += f"; starts at {max(starts):.2f}, above the drawn range" if max(starts) > high + pad else ""
    described = f"Loss from {max(starts):.2f} at the first step to {series[0].y[-1]:.4f} at the last."
    limits = (low - pad, high + pad)
    return Plot("loss", "Loss", note, described, tuple(series), tuple(bands), limits)


def schedule_plots(runs: Sequence[Run]) -> list[Plot]:
    """Learning-rate multiplier and momentum of the first run; seeds share their schedule in steps or differ by clock."""
    plots = []
    for key, title, subtitle in (
        ("lr_scale", "Learning rate", "multiplier of every group's rate, by step"),
        ("momentum", "Momentum", "of the matrix optimiser, by step"),
    ):
        series = []
        for index, run in enumerate(runs):
            rows = [s for s in run.steps if isinstance(s.get(key), int | float) and math.isfinite(s[key])]
            if len(rows) < 2:
                continue
            kept = [rows[i] for i in evenly(len(rows), _POINTS)]
            name = run.label if len(runs) > 1 else title
            values = [float(s[key]) for s in kept]
            series.append(Series(name, [float(s["step"]) for s in kept], values, colour_of(index), digits=3))
        if series:
            first, last = series[0].y[0], series[0].y[-1]
            described = f"{title} from {first:.3f} at the first step to {last:.3f} at the last."
            plots.append(Plot(key, title, subtitle, described, tuple(series)))
    return plots


def trailing_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean of the last `window` values at each place; fewer at the start, where the curve falls faster than the window."""
    sums = [0.0, *itertools.accumulate(values)]
    out = []
    for index in range(len(values)):
        size = min(window, 1 + index // 8)
        out.append((sums[index + 1] - sums[index + 1 - size]) / size)
    return out


def evenly(count: int, at_most: int) -> list[int]:
    """Indices 0 to count - 1, thinned to `at_most`, first and last kept."""
    if count <= at_most:
        return list(range(count))
    return [round(i * (count - 1) / (at_most - 1)) for i in range(at_most)]


def _range_band(steps: Sequence[float], losses: Sequence[float]) -> Band:
    size = max(1, len(losses) // 180)
    starts = range(0, len(losses), size)
    buckets = [losses[i : i + size] for i in starts]
    middle = [steps[min(i + size // 2, len(steps) - 1)] for i in starts]
    return Band("range of single steps", middle, [min(b) for b in buckets], [max(b) for b in buckets], 1)


# ------------------------------------------------------------------------------------------------- bars

Segment = tuple[float, int, str]
"""(value, colour, what it is)"""


def bars(rows: Sequence[tuple[str, Sequence[Segment], str]], *, scale: float, strong: int | None = None) -> str:
    """Horizontal stacked bars as a list. Rows are (label, segments, text); `scale` is the value of the full width."""
    items = []
    for index, (label, segments, text) in enumerate(rows):
        left, rects = 0.0, ""
        for value, colour, what in segments:
            width = 1000 * value / scale if scale else 0.0
            box = f'class="c{colour}" x="{left:.2f}" width="{width:.2f}" height="10"'
            rects += f"<rect {box}><title>{escape(what)}</title></rect>"
            left += width
        names = ' class="strong"' if index == strong else ""
        items.append(
            f'<li{names}><span class="label">{escape(label)}</span>'
            f'<svg role="img" viewBox="0 0 1000 10" preserveAspectRatio="none" aria-label="{escape(label)}: {escape(text)}">'
            f"<title>{escape(label)}: {escape(text)}</title>{rects}</svg>"
            f'<span class="value">{escape(text)}</span></li>'
        )
    return f'<ul class="bars">{"".join(items)}</ul>'


def compressor_bars(run: Run, bpb: float, name: str) -> str | None:
    """The model's bits per byte among the compressors on the same text, best first."""
    if run.baselines is None:
        return None
    rows = [(str(c["name"]), float(c["bpb"])) for c in run.baselines["compressors"]]
    rows = sorted([*rows, (name, bpb)], key=lambda r: r[1])
    own = next(i for i, r in enumerate(rows) if r == (name, bpb))
    drawn = [
        (label, [(v, 1 if i == own else 0, f"{v:.4f} bits per byte")], f"{v:.3f}") for i, (label, v) in enumerate(rows)
    ]
    return bars(drawn, scale=max(v for _, v in rows), strong=own)


def role_bars(artifact: JsonObject) -> str:
    """Coded bytes of each role of parameter, and the counted source."""
    rows = sorted(artifact["by_role"].items(), key=lambda r: -float(r[1]["coded_bytes"]))
    total = float(artifact["artifact_bytes"])
    drawn: list[tuple[str, list[Segment], str]] = []
    for index, (role, part) in enumerate(rows):
        size, params = int(part["coded_bytes"]), int(part["params"])
        what = f"{format_bytes(size)}, {params:,} parameters, {8 * size / max(1, params):.2f} bits each"
        drawn.append(
            (str(role), [(size, colour_of(index), what)], f"{size:,} B · {8 * size / max(1, params):.2f} bit/param")
        )
    code = int(artifact["code_bytes"])
    drawn.append(("code", [(code, 0, format_bytes(code))], f"{code:,} B"))
    rest = int(total) - code - sum(int(p["coded_bytes"]) for _, p in rows)
    if rest > 0:
        drawn.append(("header and sums", [(rest, 0, format_bytes(rest))], f"{rest:,} B"))
    return bars(drawn, scale=max((s[0][0] for _, s, _ in drawn), default=1.0))


def layer_bars(artifact: JsonObject) -> str | None:
    """Coded bytes of each layer, split by its parts; None when no tensor name carries a layer index."""
    table: dict[int, dict[str, int]] = {}
    for tensor in artifact.get("by_tensor", []):
        layer, part = layer_and_part(str(tensor["name"]))
        if layer is not None:
            parts = table.setdefault(layer, {})
            parts[part] = parts.get(part, 0) + int(tensor["coded_bytes"])
    if not table:
        return None
    sums: dict[str, int] = {}
    for parts in table.values():
        for part, size in parts.items():
            sums[part] = sums.get(part, 0) + size
    ranked = sorted(sums, key=lambda p: -sums[p])
    shown = ranked if len(ranked) <= COLOURS - 1 else ranked[: COLOURS - 2]
    colour = {part: colour_of(i) for i, part in enumerate(shown)}
    rows: list[tuple[str, list[Segment], str]] = []
    for layer, parts in sorted(table.items()):
        segments: list[Segment] = [(parts[p], colour[p], f"{p}: {parts[p]:,} B") for p in shown if p in parts]
        other = sum(size for part, size in parts.items() if part not in colour)
        if other:
            segments.append((other, 0, f"other: {other:,} B"))
        rows.append((f"layer {layer}", segments, f"{sum(parts.values()):,} B"))
    legend = "".join(f'<li><i class="key box c{c}"></i>{escape(p)}</li>' for p, c in colour.items())
    legend += '<li><i class="key box c0"></i>other</li>' if len(shown) < len(ranked) else ""
    scale = max(sum(parts.values()) for parts in table.values())
    return f'<ul class="legend">{legend}</ul>{bars(rows, scale=scale)}'


# ------------------------------------------------------------------------------------------------- documents


def document_histogram(run: Run, bpb: float) -> str | None:
    """Documents by their own bits per byte, the middle 98 %, with a line at the score of the whole text."""
    documents = run.documents
    if documents is None or len(documents["bits"]) < 2:
        return None
    import numpy as np

    sizes = np.asarray(documents["bytes"], dtype=np.float64)
    each = np.asarray(documents["bits"], dtype=np.float64)[sizes > 0] / sizes[sizes > 0]
    low, high = (float(q) for q in np.quantile(each, (0.01, 0.99)))
    if not low < high:
        return None
    inside = each[(each >= low) & (each <= high)]
    counts, edges = np.histogram(inside, bins=min(48, max(8, int(math.sqrt(len(inside))))), range=(low, high))
    top, width = max(1, int(counts.max())), 1000 / len(counts)
    rects = "".join(
        f'<rect x="{i * width + 0.6:.2f}" y="{1000 - 1000 * n / top:.1f}" width="{max(width - 1.2, 1):.2f}" '
        f'height="{1000 * n / top:.1f}"><title>{edges[i]:.2f} to {edges[i + 1]:.2f}: {n:,} documents</title></rect>'
        for i, n in enumerate(counts.tolist())
    )
    places = ticks(low, high, 6)
    labels = "".join(
        f'<span class="tx" style="left:{100 * (t - low) / (high - low):.2f}%">{tick_label(t, places)}</span>'
        for t in places
    )
    mean = min(max((bpb - low) / (high - low), 0.0), 1.0)
    outside = len(each) - len(inside)
    quartiles = np.quantile(each, (0.25, 0.5, 0.75))
    words = f"{len(each):,} documents; median {quartiles[1]:.3f}, middle half {quartiles[0]:.3f} to {quartiles[2]:.3f}"
    note = f"{words}. {outside:,} beyond the drawn range of {low:.2f} to {high:.2f}."
    return (
        '<figure class="plot histogram" id="plot-documents"><figcaption><b>Documents</b> '
        "<span>by their own bits per byte; the line is the score of the whole text</span></figcaption>"
        '<div class="canvas"><svg role="img" aria-labelledby="t-documents d-documents" viewBox="0 0 1000 1000" '
        f'preserveAspectRatio="none"><title id="t-documents">Documents by bits per byte</title>'
        f'<desc id="d-documents">{escape(note)}</desc>{rects}'
        f'<path class="mean" vector-effect="non-scaling-stroke" d="M{1000 * mean:.1f} 0V1000"/></svg>{labels}'
        f'<span class="mean-label" style="left:{100 * mean:.2f}%">{bpb:.3f}</span></div>'
        f'<p class="note">{escape(note)}</p></figure>'
    )
