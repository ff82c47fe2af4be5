"""Linear multistep (Adams-Bashforth) sampling over uneven steps in sigma.

dxhat / dsigma = eps (arXiv:2206.00364, eq. 1) with eps as the polynomial through its last values;
see Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, section III.5.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..schedule import Array
from .base import Run
from .levels import Level

ORDER = 4
NODES, WEIGHTS = np.polynomial.legendre.leggauss(2)  # exact for cubics


def coefficients(sigmas: tuple[float, ...], there: float) -> list[float]:
    """Integrals of the Lagrange polynomials of `sigmas`, from sigmas[0] to `there`."""
    half = (there - sigmas[0]) / 2
    points = sigmas[0] + half * (NODES + 1)
    result = []
    for a in sigmas:
        factors = [(points - b) / (a - b) for b in sigmas if b != a]
        result.append(float(half * np.sum(WEIGHTS * np.prod(factors, axis=0))))
    return result


def step(z: Array, past: tuple, here: Level, there: Level) -> Array:
    """past: pairs (sigma, eps) at `here` and before, the latest first, one to four of them."""
    weights = coefficients(tuple(sigma for sigma, _ in past), there.sigma)
    z = z * (there.signal / here.signal)
    for weight, (_, eps) in zip(weights, past, strict=True):
        z = z + eps * (there.signal * weight)
    return z


def walk(z: Array, run: Run) -> Iterator[tuple[float, Array]]:
    past = ()
    for _, here, there in run.steps:
        past = ((here.sigma, run.denoise(z, here)[1]), *past[: ORDER - 1])
        z = step(z, past, here, there)
        yield here.t, z
