"""UniPC, arXiv:2302.04867: a predictor and a corrector of order two on x0, B(h) = e^h - 1 (bh2).

The corrector uses the evaluation that the next step needs anyway, so there is one per step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..schedule import Array
from . import dpmpp
from .base import Run
from .levels import Level

ORDER = 2


def predict(z: Array, past: tuple, there: Level) -> Array:
    """UniP, eq. 9: for order two and this B(h) it is the step of DPM-Solver++(2M).

    past: pairs (level, x0), the latest first; as many as the order.
    """
    here = past[0][0]
    known = tuple((level.lam, x0) for level, x0 in past)
    return dpmpp.step(z, dpmpp.extrapolate(known, there.lam - here.lam), here, there)


def correct(z: Array, past: tuple, x0: Array, there: Level) -> Array:
    """UniC, eq. 8: the step from z at past[0] to `there` again, now that x0 is known there.

    Weights solve the conditions of theorem 3.1; for order one they are 1/2.
    """
    (here, x0_here), *before = past
    h = there.lam - here.lam
    fall = math.expm1(-h)
    change = (x0 - x0_here) * 0.5
    if before:
        level, x0_before = before[0]
        r = (level.lam - here.lam) / h
        phi = -fall / h - 1.0  # h phi_2 and h phi_3 of -h, over B
        b1, b2 = phi / fall, 2.0 * (-phi / h - 0.5) / fall
        old = (b1 - b2) / (1.0 - r)  # old + new = b1, r old + new = b2
        change = (x0_before - x0_here) * (old / r) + (x0 - x0_here) * (b1 - old)
    return dpmpp.step(z, x0_here, here, there) - change * (there.signal * fall)


def walk(z: Array, run: Run) -> Iterator[tuple[float, Array]]:
    past, used, before = (), (), None
    for k, (_, here, there) in enumerate(run.steps):
        x0, _ = run.denoise(z, here)
        if used:
            z = correct(before, used, x0, here)
        past = ((here, x0), *past[: ORDER - 1])
        used = past[: len(run.steps) - k]  # of order one in the last step
        before, z = z, predict(z, used, there)
        yield here.t, z
