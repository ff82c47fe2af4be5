"""DPM-Solver++ with a middle evaluation per step (2S, arXiv:2211.01095, algorithm 1, r = 1/2) and
fresh noise: ancestral, and as a solver of the SDE, as k-diffusion has them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..schedule import Array, ddim_move
from .base import Run
from .euler import split
from .levels import Level


def step(z: Array, data: Array, here: Level, there: Level, noise: Array | None) -> Array:
    """x0 = data from `here` down to sigma_down (eq. 9), then noise up to level `there`."""
    down, up = split(here.sigma, there.sigma)
    ratio = down / here.sigma
    z = z * (there.signal / here.signal * ratio) + data * (there.signal * (1.0 - ratio))
    return z + noise * (there.signal * up)


def joined(first: Array, second: Array, part: float) -> Array:
    """The standard normal of a whole interval of Brownian motion, from those of its two parts.

    part: the share of the first in the whole.
    """
    return first * math.sqrt(part) + second * math.sqrt(1.0 - part)


def ancestral(z: Array, run: Run) -> Iterator[tuple[float, Array]]:
    for i, here, there in run.steps:
        x0, eps = run.denoise(z, here)
        if there.sigma:
            middle = run.levels.at(math.sqrt(here.sigma * split(here.sigma, there.sigma).down))
            x0, _ = run.denoise(ddim_move(x0, eps, middle.abar), middle)
            z = step(z, x0, here, there, run.noise(i, tuple(z.shape)))
        else:
            z = ddim_move(x0, eps, there.abar)
        yield here.t, z


def sde(z: Array, run: Run) -> Iterator[tuple[float, Array]]:
    """Noise is one Brownian motion in sigma: two pieces per step, numbers 2 i and 2 i + 1."""
    for i, here, there in run.steps:
        x0, eps = run.denoise(z, here)
        if there.sigma:
            middle = run.levels.at(math.sqrt(here.sigma * there.sigma))
            first, second = (run.noise(2 * i + k, tuple(z.shape)) for k in (0, 1))
            x0, _ = run.denoise(step(z, x0, here, middle, first), middle)
            part = (here.sigma - middle.sigma) / (here.sigma - there.sigma)
            z = step(z, x0, here, there, joined(first, second, part))
        else:
            z = ddim_move(x0, eps, there.abar)
        yield here.t, z
