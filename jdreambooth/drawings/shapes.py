"""Vector parts in unit coordinates (x right, y down, roughly -1..1), each with a role.

A role says what a part is for, so that every style can paint the same part its own way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

GROUND, BODY, ACCENT, DARK, LIGHT = range(5)  # GROUND as a part cuts a hole


class Part(NamedTuple):
    role: int
    points: np.ndarray  # (n, 2)
    width: float  # 0: a filled polygon; otherwise a stroke of this width


def poly(role: int, *points: Sequence[float]) -> Part:
    return Part(role, np.asarray(points, dtype=np.float64), 0.0)


def line(role: int, width: float, *points: Sequence[float]) -> Part:
    return Part(role, np.asarray(points, dtype=np.float64), width)


def box(role: int, x0: float, y0: float, x1: float, y1: float) -> Part:
    return poly(role, (x0, y0), (x1, y0), (x1, y1), (x0, y1))


def arc(
    cx: float,
    cy: float,
    rx: float,
    ry: float,
    start: float = 0.0,
    stop: float = 360.0,
    count: int = 28,
) -> list:
    """Points of an elliptic arc; degrees run clockwise from +x, since y points down."""
    a = np.radians(np.linspace(start, stop, count))
    return list(np.stack([cx + rx * np.cos(a), cy + ry * np.sin(a)], 1))


def oval(
    role: int, cx: float, cy: float, rx: float, ry: float | None = None, turn: float = 0.0
) -> Part:
    """A filled ellipse turned by `turn` degrees."""
    points = np.array(arc(0, 0, rx, rx if ry is None else ry, count=37))
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    return Part(role, points @ np.array([[c, s], [-s, c]]) + (cx, cy), 0.0)


def burst(
    role: int, spikes: int, outer: float, inner: float, cx: float = 0.0, cy: float = 0.0
) -> Part:
    a = np.pi * np.arange(2 * spikes) / spikes - np.pi / 2
    r = np.where(np.arange(2 * spikes) % 2 == 0, outer, inner)
    return Part(role, np.stack([cx + r * np.cos(a), cy + r * np.sin(a)], 1), 0.0)


def blob(role: int, *points: Sequence[float]) -> Part:
    """A filled closed Catmull-Rom curve through the points."""
    p1 = np.asarray(points, dtype=np.float64)
    p0, p2, p3 = np.roll(p1, 1, 0), np.roll(p1, -1, 0), np.roll(p1, -2, 0)
    u = np.linspace(0, 1, 8, endpoint=False)[None, :, None]
    p0, p1, p2, p3 = (p[:, None] for p in (p0, p1, p2, p3))
    curve = p1 + 0.5 * u * (
        p2 - p0 + u * (2 * p0 - 5 * p1 + 4 * p2 - p3 + u * (3 * (p1 - p2) + p3 - p0))
    )
    return Part(role, curve.reshape(-1, 2), 0.0)


def both(*parts: Part) -> list:
    """The parts and their mirror images in x."""
    return [*parts, *(Part(p.role, p.points * (-1, 1), p.width) for p in parts)]
