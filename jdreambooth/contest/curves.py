"""The losses of a run as an SVG drawing for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..plots import LOSSES, SMOOTHED_OVER, smooth

WIDTH, HEIGHT = 620, 220
LEFT, BOTTOM, EDGE = 48, 24, 8  # room for the numbers at the axes, and beyond the curves
GAP = 36  # at least, between two numbers of steps
POINTS = 400  # of a curve; more cannot be seen
COLOURS = {"loss": "#3d7edb", "instance": "#d9822b", "prior": "#2f9e6e"}
USED, SAVED = 'stroke="#1a7f4b"', 'stroke="#8888" stroke-dasharray="4"'


def draw_losses(
    losses: Mapping[str, np.ndarray], saved: Sequence[int], used: int | None
) -> str | None:
    """The losses over the steps, smoothed as in loss.png; None if there are none.

    saved: steps that get a dashed line; used: the one with a line that stands out.
    """
    names = LOSSES if "prior" in losses else LOSSES[:1]  # without, the first is all there is
    curves = {name: losses[name] for name in names if name in losses}
    if not curves:
        return None
    steps = max(map(len, curves.values()))
    curves = {n: smooth(v, max(1, round(steps * SMOOTHED_OVER))) for n, v in curves.items()}
    top = max(float(np.nanmax(values)) for values in curves.values()) * 1.1 or 1.0
    parts = [*_frame(top), *_saved_counts(saved, used, steps)]
    for number, (name, values) in enumerate(curves.items()):
        parts += _curve(name, values, number, steps, top)
    label = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
    return f'<svg {label} aria-label="loss over {steps} steps">{"".join(parts)}</svg>'


def _x(step: float, steps: int) -> float:
    return LEFT + (WIDTH - LEFT - EDGE) * step / steps


def _y(share: float) -> float:
    return EDGE + (HEIGHT - EDGE - BOTTOM) * (1 - share)


def _text(x: float, y: float, anchor: str, text: object, more: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}"{more}>{text}</text>'


def _frame(top: float) -> list[str]:
    axes = f'<path d="M{LEFT} {EDGE}V{_y(0):.0f}H{WIDTH}" fill="none" stroke="currentColor"/>'
    shares = (0.0, 0.5, 1.0)
    return [axes, *(_text(LEFT - 6, _y(s) + 4, "end", f"{top * s:.3f}") for s in shares)]


def _saved_counts(saved: Sequence[int], used: int | None, steps: int) -> list[str]:
    """A line at each, and its number where there is room, the last one first."""
    parts, free = [], float(WIDTH)
    for step in sorted({steps, *(s for s in saved if s < steps)}, reverse=True):
        x = _x(step, steps)
        line = USED if step == used else SAVED
        parts.append(f'<path d="M{x:.0f} {EDGE}V{_y(0):.0f}" {line}/>')
        if x <= free:
            parts.append(_text(x, HEIGHT - 8, "middle", step))
            free = x - GAP
    return parts


def _curve(name: str, values: np.ndarray, number: int, steps: int, top: float) -> list[str]:
    shown = np.unique(np.linspace(0, len(values) - 1, POINTS).round().astype(int))
    dots = " ".join(
        f"{_x(k + 1, steps):.1f},{_y(values[k] / top):.1f}" for k in shown if values[k] >= 0
    )
    colour = COLOURS[name]
    line = f'<polyline points="{dots}" fill="none" stroke="{colour}" stroke-width="2"/>'
    name = _text(WIDTH - 2 * EDGE, 22 + 15 * number, "end", name, f' style="fill:{colour}"')
    return [line, name]
