"""Line charts as HTML: an SVG that stretches with the page, and tick labels that do not.

The SVG is drawn in a 1000 x 1000 box with `preserveAspectRatio="none"` and strokes that keep their width, so one drawing
serves a phone and a wall. Dots are round caps on strokes without length. Text is HTML placed by percentages. The values
for the pointer travel as JSON beside the drawing.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

COLOURS = 6
"""Series colours that the style sheet defines, numbered from 1."""


@dataclass(frozen=True)
class Series:
    """One curve, or one set of dots. `colour` is 1 to COLOURS."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int = 1
    kind: Literal["line", "dots"] = "line"
    digits: int = 4
    in_legend: bool = True


@dataclass(frozen=True)
class Band:
    """The area between `low` and `high`, behind the curves."""

    name: str
    x: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    colour: int = 1


@dataclass(frozen=True)
class Plot:
    """A chart: what it shows, and over which ranges. Ranges are (low, high) and None takes them from the data."""

    key: str
    title: str
    subtitle: str
    description: str
    series: tuple[Series, ...]
    bands: tuple[Band, ...] = ()
    y_range: tuple[float, float] | None = None
    x_name: str = "step"

    def html(self) -> str:
        """The figure element. Curves outside `y_range` are clipped."""
        x_low, x_high = _extent(v for s in self.series for v in s.x)
        x_low = 0.0 if 0 < x_low < 0.05 * x_high else x_low  # counts begin at nought
        x_high += 0.02 * ((x_high - x_low) or 1.0)  # room for the last dot
        y_low, y_high = self.y_range or _padded(_extent(v for s in self.series for v in s.y))

        def at_x(value: float) -> float:
            return 1000 * (value - x_low) / (x_high - x_low)

        def at_y(value: float) -> float:
            return 1000 * (1 - (value - y_low) / (y_high - y_low))

        x_ticks, y_ticks = ticks(x_low, x_high, 5), ticks(y_low, y_high, 5)
        grid = "".join(_stroke(f"M0 {at_y(t):.1f}H1000", "grid") for t in y_ticks)
        areas = "".join(_area(band, at_x, at_y) for band in self.bands)
        curves = "".join(_curve(s, at_x, at_y) for s in self.series)
        labels = "".join(
            f'<span class="ty" style="top:{at_y(t) / 10:.2f}%">{escape(tick_label(t, y_ticks))}</span>' for t in y_ticks
        ) + "".join(
            f'<span class="tx" style="left:{at_x(t) / 10:.2f}%">{escape(tick_label(t, x_ticks))}</span>'
            for t in x_ticks
        )
        data = {
            "x": [x_low, x_high],
            "y": [y_low, y_high],
            "xName": self.x_name,
            "series": [
                {
                    "name": s.name,
                    "c": s.colour,
                    "dots": s.kind == "dots",
                    "x": [_short(v) for v in s.x],
                    "y": [_short(v) for v in s.y],
                    "d": s.digits,
                }
                for s in self.series
            ],
        }
        return (
            f'<figure class="plot" id="plot-{self.key}"><figcaption><b>{escape(self.title)}</b> '
            f"<span>{escape(self.subtitle)}</span></figcaption>{self._legend()}"
            f'<div class="canvas" tabindex="0" role="group" aria-label="{escape(self.title)}: values with the arrow keys">'
            f'<svg role="img" aria-labelledby="t-{self.key} d-{self.key}" viewBox="0 0 1000 1000" '
            f'preserveAspectRatio="none"><title id="t-{self.key}">{escape(self.title)}</title>'
            f'<desc id="d-{self.key}">{escape(self.description)}</desc>{grid}{areas}{curves}</svg>{labels}'
            f'<i class="cursor" hidden></i><output class="tip" hidden></output>'
            f'<script type="application/json">{script_json(data)}</script></div></figure>'
        )

    def _legend(self) -> str:
        entries = [(s.name, s.colour, s.kind) for s in self.series if s.in_legend] + [
            (b.name, b.colour, "band") for b in self.bands
        ]
        if len(entries) < 2:
            return ""
        items = "".join(
            f'<li><i class="key {kind} c{colour}"></i>{escape(name)}</li>' for name, colour, kind in entries
        )
        return f'<ul class="legend">{items}</ul>'


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round values within [low, high], two or more and `about` so many, 1, 2 or 5 times a power of ten apart."""
    raw = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(raw))
    steps = [m * power for m in (10, 5, 2, 1, 0.5)]
    fitting = [s for s in steps if s >= raw * 0.999]
    for step in [fitting[-1], *steps[len(fitting) :]]:
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last > first:
            break
    return [round(i * step, 12) for i in range(first, last + 1)]


def tick_label(value: float, among: Sequence[float]) -> str:
    """'2.5', '0', '12k': as many decimals as the spacing asks for."""
    step = abs(among[1] - among[0]) if len(among) > 1 else abs(value) or 1.0
    if max(abs(v) for v in among) >= 10_000:
        decimals = 0 if step >= 1000 else 1
        return f"{value / 1000:.{decimals}f}k" if value else "0"
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:,.{decimals}f}"


def script_json(data: object) -> str:
    """JSON that cannot leave its script element."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _curve(series: Series, at_x: Callable[[float], float], at_y: Callable[[float], float]) -> str:
    points = [(at_x(x), at_y(y)) for x, y in zip(series.x, series.y, strict=True)]
    if series.kind == "dots":
        path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points)
    else:
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) if points else ""
    return _stroke(path, f"{series.kind} c{series.colour}")


def _area(band: Band, at_x: Callable[[float], float], at_y: Callable[[float], float]) -> str:
    upper = [f"{at_x(x):.1f} {at_y(y):.1f}" for x, y in zip(band.x, band.high, strict=True)]
    lower = [f"{at_x(x):.1f} {at_y(y):.1f}" for x, y in zip(band.x, band.low, strict=True)]
    return f'<path class="band c{band.colour}" d="M{"L".join(upper + lower[::-1])}Z"/>' if upper else ""


def _stroke(path: str, names: str) -> str:
    return f'<path class="{names}" vector-effect="non-scaling-stroke" d="{path}"/>'


def _extent(values: Iterable[float]) -> tuple[float, float]:
    numbers = [v for v in values if math.isfinite(v)]
    return (min(numbers), max(numbers)) if numbers else (0.0, 1.0)


def _padded(extent: tuple[float, float]) -> tuple[float, float]:
    low, high = extent
    pad = 0.06 * (high - low) or max(0.05 * abs(high), 0.05)
    return low - pad, high + pad


def _short(value: float) -> float:
    return float(f"{value:.6g}")
