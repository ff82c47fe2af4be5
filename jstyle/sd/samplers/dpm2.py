"""The midpoint sampler of k-diffusion ("DPM2"): DPM-Solver-2 of arXiv:2206.00927 (algorithm 1,
r = 1/2) with the slope at the middle in lambda taken for a whole step in sigma. Its ancestral
variant steps to sigma_down and adds noise, see euler.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..schedule import Array, ddim_move
from .base import Run
from .euler import Split, move, split
from .levels import Level


def ancestral_step(
    z: Array, slope: Array, here: Level, there: Level, parts: Split, noise: Array | None
) -> Array:
    """Along `slope` down to parts.down, then parts.up of noise, which makes level `there`."""
    z = z * (there.signal / here.signal) + slope * (there.signal * (parts.down - here.sigma))
    return z + noise * (there.signal * parts.up)


def walk(z: Array, run: Run) -> Iterator[tuple[float, Array]]:
    for _, here, there in run.steps:
        x0, eps = run.denoise(z, here)
        if there.sigma:
            middle = run.levels.at(math.sqrt(here.sigma * there.sigma))
            _, eps = run.denoise(ddim_move(x0, eps, middle.abar), middle)
            z = move(z, eps, here, there)
        else:
            z = ddim_move(x0, eps, there.abar)
        yield here.t, z


def ancestral(z: Array, run: Run) -> Iterator[tuple[float, Array]]:
    for i, here, there in run.steps:
        x0, eps = run.denoise(z, here)
        if there.sigma:
            parts = split(here.sigma, there.sigma)
            middle = run.levels.at(math.sqrt(here.sigma * parts.down))
            _, eps = run.denoise(ddim_move(x0, eps, middle.abar), middle)
            z = ancestral_step(z, eps, here, there, parts, run.noise(i, tuple(z.shape)))
        else:
            z = ddim_move(x0, eps, there.abar)
        yield here.t, z
