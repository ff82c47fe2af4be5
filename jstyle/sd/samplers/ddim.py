"""DDIM, arXiv:2010.02502."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..schedule import Array, ddim_move
from .base import Run
from .levels import Level


def deviation(here: Level, there: Level, eta: float) -> float:
    """sigma_t(eta), eq. 16: 0 is deterministic, eta = 1 is the ancestral step of DDPM."""
    if eta == 0.0 or there.abar == 1.0:
        return 0.0
    beta = 1.0 - here.abar / there.abar
    return eta * math.sqrt((1.0 - there.abar) / (1.0 - here.abar) * beta)


def step(
    x0: Array, eps: Array, there: Level, sigma: float = 0.0, noise: Array | None = None
) -> Array:
    """Eq. 12: x0 and eps at level `there`, with fresh noise for the part sigma of eps."""
    if sigma == 0.0:
        return ddim_move(x0, eps, there.abar)
    kept = math.sqrt(1.0 - there.abar - sigma * sigma)
    return x0 * there.signal + eps * kept + noise * sigma


def walk(z: Array, run: Run) -> Iterator[tuple[float, Array]]:
    for i, here, there in run.steps:
        x0, eps = run.denoise(z, here)
        sigma = deviation(here, there, run.eta)
        noise = run.noise(i, tuple(z.shape)) if sigma else None
        z = step(x0, eps, there, sigma, noise)
        yield here.t, z
