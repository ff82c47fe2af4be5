"""What a change of the total is made of, as an SVG drawing: from one run's total to another's."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from jstyle.score.total import METRICS, bought, total

WIDTH, ROW, LEFT, RIGHT = 620, 22, 110, 70
UP, DOWN, WHOLE = "#2f9e6e", "#b3261e", "#8888"


def draw_waterfall(before: Mapping, after: Mapping, names: tuple[str, str]) -> str | None:
    """A bar for either total, and one for what each metric adds or takes; None without totals."""
    if total(before) is None or total(after) is None:
        return None
    shares = bought(before, after)
    start, end = total(before), total(after)
    steps, level = [], start
    for name in METRICS:
        steps.append((name, level, level + shares[name], f"{shares[name]:+.4f}"))
        level += shares[name]
    rows = [(names[0], None, start, f"{start:.4f}"), *steps, (names[1], None, end, f"{end:.4f}")]
    levels = [value for _, low, high, _ in rows for value in (low, high) if value is not None]
    low, high = min(levels), max(levels)
    room = (high - low or 1e-4) * 0.15
    return _drawn(rows, low - room, high + room, f"{start:.4f} to {end:.4f}")


def _drawn(rows: list[tuple], low: float, high: float, told: str) -> str:
    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low)

    parts = []
    for number, (name, start, end, text) in enumerate(rows):
        left, right = sorted((x(low if start is None else start), x(end)))
        colour = WHOLE if start is None else UP if end >= start else DOWN
        y = number * ROW
        label = escape(name if start is None else name.upper().replace("_", "-"))
        parts.append(f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{label}</text>')
        size = f'width="{max(right - left, 1):.1f}" height="{ROW - 6}"'
        parts.append(f'<rect x="{left:.1f}" y="{y + 3}" {size} fill="{colour}"/>')
        parts.append(f'<text x="{right + 6:.1f}" y="{y + 15}">{text}</text>')
    height = len(rows) * ROW
    frame = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" role="img"'
    return f'<svg class="waterfall" {frame} aria-label="{told}">{"".join(parts)}</svg>'
