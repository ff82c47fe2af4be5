"""Ancestral sampling of DDPM, arXiv:2006.11239, over any list of timesteps."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..schedule import Array
from .base import Run
from .levels import Level


def step(z: Array, x0: Array, here: Level, there: Level, noise: Array | None = None) -> Array:
    """Algorithm 2 with eq. 7: the posterior's mean, and its variance beta tilde as fresh noise.

    noise None: the mean alone, as for the last step.
    """
    alpha = here.abar / there.abar  # of all the training steps between the two levels
    beta, left = 1.0 - alpha, 1.0 - here.abar
    mean = x0 * (there.signal * beta / left) + z * (math.sqrt(alpha) * (1.0 - there.abar) / left)
    if noise is None:
        return mean
    return mean + noise * math.sqrt((1.0 - there.abar) / left * beta)


def walk(z: Array, run: Run) -> Iterator[tuple[float, Array]]:
    for i, here, there in run.steps:
        x0, _ = run.denoise(z, here)
        noise = run.noise(i, tuple(z.shape)) if there.abar < 1.0 else None
        z = step(z, x0, here, there, noise)
        yield here.t, z
