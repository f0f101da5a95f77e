"""The drawing of the power study: one line a kind of cheat, detection over gain."""

import math
from html import escape
from typing import Any

WIDTH, HEIGHT, LEFT, TOP, PLOT_WIDTH, PLOT_HEIGHT = 960, 520, 64, 70, 560, 380
COLOURS = ("#1f5fae", "#b5520b", "#18794e", "#7b3fb4", "#a61e4d", "#5c6b00", "#0f7b8a", "#8a5a00", "#444c56", "#c2410c")


def draw(found: dict[str, Any]) -> str:
    """An SVG of the share of predictors that were found (invalid or disputed), by gain in bits per byte."""
    kinds = found["cheats"]
    gains = sorted({cell["gain_bpb"] for cells in kinds.values() for cell in cells})
    low, high = math.log(gains[0]), math.log(gains[-1])

    def x(gain: float) -> float:
        return LEFT + PLOT_WIDTH * (math.log(gain) - low) / (high - low)

    def y(share: float) -> float:
        return TOP + PLOT_HEIGHT * (1 - share)

    honest = list(found["honest"].values())
    total = sum(sum(words.values()) for words in honest)
    accused = sum(words.get("invalid", 0) for words in honest)
    doubted = sum(words.get("disputed", 0) for words in honest)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" '
        'font-size="13"><rect width="100%" height="100%" fill="#fcfcfa"/>',
        f'<text x="{LEFT}" y="28" font-size="17" font-weight="600">Cheats found, by what they gain</text>',
        f'<text x="{LEFT}" y="48" fill="#565f69">{total} honest predictors: {accused} called invalid, {doubted} disputed. '
        "Lines: share of cheats called invalid or disputed.</text>",
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<path d="M{LEFT} {y(share):.1f}h{PLOT_WIDTH}" stroke="#dfe2e5"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(share) + 4:.1f}" text-anchor="end" fill="#565f69">{share:.0%}</text>')
    for gain in gains:
        parts.append(f'<text x="{x(gain):.1f}" y="{y(0) + 22:.1f}" text-anchor="middle" fill="#565f69">{gain:g}</text>')
    parts.append(
        f'<text x="{LEFT + PLOT_WIDTH / 2}" y="{y(0) + 44:.1f}" text-anchor="middle">gain, bits per byte</text>'
    )
    for index, (name, cells) in enumerate(kinds.items()):
        colour, dash = COLOURS[index % len(COLOURS)], ' stroke-dasharray="6 4"' if index >= len(COLOURS) else ""
        points = [(x(c["gain_bpb"]), y(1 - c["valid"] / c["predictors"])) for c in cells if c["predictors"]]
        if not points:
            continue
        line = "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
        parts.append(f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in points]
        at = TOP + 10 + 26 * index
        parts.append(f'<path d="M{LEFT + PLOT_WIDTH + 30} {at}h26" stroke="{colour}" stroke-width="2"{dash}/>')
        parts.append(f'<text x="{LEFT + PLOT_WIDTH + 64}" y="{at + 4}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
