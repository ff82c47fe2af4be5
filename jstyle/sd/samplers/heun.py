"""Heun's method, arXiv:2206.00364, algorithm 1 (without churn, which is algorithm 2)."""

from __future__ import annotations

from collections.abc import Iterator

from ..schedule import Array, ddim_move
from .base import Run
from .euler import move
from .levels import Level


def step(z: Array, eps: Array, eps_there: Array, here: Level, there: Level) -> Array:
    """Lines 7 and 8: the mean of the slopes at both ends."""
    return move(z, (eps + eps_there) * 0.5, here, there)


def walk(z: Array, run: Run) -> Iterator[tuple[float, Array]]:
    for _, here, there in run.steps:
        x0, eps = run.denoise(z, here)
        ahead = ddim_move(x0, eps, there.abar)
        if there.sigma:
            _, eps_there = run.denoise(ahead, there)
            z = step(z, eps, eps_there, here, there)
        else:
            z = ahead
        yield here.t, z
