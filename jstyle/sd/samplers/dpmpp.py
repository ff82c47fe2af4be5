"""DPM-Solver++, arXiv:2211.01095, multistep (2M) and its SDE: exponential integrators on x0.

lambda = log(signal / noise) is the time, h the length of a step in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..schedule import Array
from .base import Run
from .levels import Level


def extrapolate(past: tuple, h: float) -> Array:
    """D of algorithm 2: x0 at the middle of a step of length h, from the last one or two.

    past: pairs (lambda, x0), the latest first.
    """
    (lam, x0), *before = past
    if not before:
        return x0
    last_lam, last_x0 = before[0]
    half_over_r = 0.5 * h / (lam - last_lam)
    return x0 * (1.0 + half_over_r) - last_x0 * half_over_r


def step(z: Array, data: Array, here: Level, there: Level) -> Array:
    """Eq. 9 with x0 = data over the whole step; for clean `there` it is data itself."""
    fall = math.expm1(here.lam - there.lam)
    return z * (there.noise / here.noise) - data * (there.signal * fall)


def sde_step(z: Array, data: Array, here: Level, there: Level, noise: Array | None = None) -> Array:
    """The same step of the diffusion SDE (SDE-DPM-Solver++ of section 5); noise None: clean."""
    if noise is None:
        return step(z, data, here, there)
    h = there.lam - here.lam
    fall = math.expm1(-2.0 * h)
    z = z * (there.noise / here.noise * math.exp(-h)) - data * (there.signal * fall)
    return z + noise * (there.noise * math.sqrt(-fall))


def walk(z: Array, run: Run) -> Iterator[tuple[float, Array]]:
    past = ()
    for _, here, there in run.steps:
        past = ((here.lam, run.denoise(z, here)[0]), *past[:1])
        known = past if there.sigma else past[:1]  # a step to clean latents is of order one
        z = step(z, extrapolate(known, there.lam - here.lam), here, there)
        yield here.t, z


def sde(z: Array, run: Run) -> Iterator[tuple[float, Array]]:
    past = ()
    for i, here, there in run.steps:
        past = ((here.lam, run.denoise(z, here)[0]), *past[:1])
        known = past if there.sigma else past[:1]
        noise = run.noise(i, tuple(z.shape)) if there.sigma else None
        z = sde_step(z, extrapolate(known, there.lam - here.lam), here, there, noise)
        yield here.t, z
