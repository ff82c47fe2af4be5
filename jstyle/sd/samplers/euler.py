"""Euler's method of arXiv:2206.00364 (algorithm 1 without its second-order correction), and its
ancestral variant, which steps further down and adds the difference as fresh noise.

In xhat = x0 + sigma eps the ODE is dxhat / dsigma = eps. So Euler's step is DDIM's (eta 0), over
other levels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from ..schedule import Array, ddim_move
from .base import Run
from .levels import Level


class Split(NamedTuple):
    """A sigma as what a deterministic step leaves and what is added afterwards."""

    down: float
    up: float


def split(here: float, there: float) -> Split:
    """sigma_down^2 + sigma_up^2 = there^2, sigma_up as in the posterior of DDPM.

    Source: ancestral sampling of arXiv:2011.13456, eq. 4 of section 3.3 and appendix F.
    """
    up = math.sqrt(there**2 * (here**2 - there**2) / here**2)
    return Split(math.sqrt(there**2 - up**2), up)


def ancestral_step(
    x0: Array, eps: Array, here: Level, there: Level, noise: Array | None = None
) -> Array:
    """x0 and eps at sigma_down, then noise up to level `there`; noise None at clean latents."""
    if noise is None:
        return ddim_move(x0, eps, there.abar)
    down, up = split(here.sigma, there.sigma)
    return x0 * there.signal + eps * (there.signal * down) + noise * (there.signal * up)


def move(z: Array, slope: Array, here: Level, there: Level) -> Array:
    """z at level `there` if dxhat / dsigma = slope all the way (eps at `here`: Euler's step).

    The same as the transfer part of arXiv:2202.09778, eq. 11, with slope for its eps.
    """
    ratio = there.signal / here.signal
    return z * ratio + slope * (there.signal * (there.sigma - here.sigma))


def walk(z: Array, run: Run) -> Iterator[tuple[float, Array]]:
    for _, here, there in run.steps:
        x0, eps = run.denoise(z, here)
        z = ddim_move(x0, eps, there.abar)
        yield here.t, z


def ancestral(z: Array, run: Run) -> Iterator[tuple[float, Array]]:
    for i, here, there in run.steps:
        x0, eps = run.denoise(z, here)
        noise = run.noise(i, tuple(z.shape)) if there.sigma else None
        z = ancestral_step(x0, eps, here, there, noise)
        yield here.t, z
