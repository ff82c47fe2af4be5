"""DPM-Solver-23 with steps of its own choice, arXiv:2206.00927, appendix C.

A solver of order two inside one of order three tells the error of every step; a step that errs too
much is tried again, shorter. All images of a batch share the steps, the worst of them decides. The
levels of the run say where it starts and where the last step, to clean latents, begins.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..schedule import Array, ddim_move
from .base import Run
from .levels import Level

ABSOLUTE, RELATIVE = 0.0078, 0.05  # tolerances; this and the next line: the paper's own values
FIRST_H, SAFETY = 0.05, 0.9
ORDER, R1, R2 = 3, 1 / 3, 2 / 3


class Pair(NamedTuple):
    low: object  # latents of the order-two solver
    high: object  # and of the order-three one


def transfer(z: Array, eps: Array, here: Level, there: Level, extra: Array | None = None) -> Array:
    """Eq. 4.1: the step with eps as it is at `here`, plus a correction for how it changes."""
    h = there.lam - here.lam
    z = z * (there.signal / here.signal) - eps * (there.noise * math.expm1(h))
    return z if extra is None else z - extra * there.noise


def step(z: Array, eps: Array, here: Level, there: Level, run: Run) -> Pair:
    """Algorithm 1 (r1 = 1/3) and algorithm 2 (r1 = 1/3, r2 = 2/3), two evaluations for both."""
    h = there.lam - here.lam
    first, second = (run.levels.at(math.exp(-here.lam - r * h)) for r in (R1, R2))
    change = run.denoise(transfer(z, eps, here, first), first)[1] - eps
    low = transfer(z, eps, here, there, change * (math.expm1(h) / (2 * R1)))
    bent = change * (R2 / R1 * (math.expm1(R2 * h) / (R2 * h) - 1.0))
    change = run.denoise(transfer(z, eps, here, second, bent), second)[1] - eps
    high = transfer(z, eps, here, there, change * ((math.expm1(h) / h - 1.0) / R2))
    return Pair(low, high)


def error(pair: Pair, before: Array) -> float:
    """The largest of the images' root mean square errors, in units of what is tolerated."""
    low, high, before = (_host(z).astype(np.float64) for z in (*pair, before))
    allowed = np.maximum(ABSOLUTE, RELATIVE * np.maximum(np.abs(low), np.abs(before)))
    square = np.square((high - low) / allowed).reshape(len(low), -1)
    return float(np.sqrt(square.mean(1)).max())


def walk(z: Array, run: Run) -> Iterator[tuple[float, Array]]:
    """Raises FloatingPointError if the network's output stops being finite."""
    if not run.steps:
        return
    here, end, clean = run.steps[0].here, run.steps[-1].here, run.steps[-1].there
    h = FIRST_H
    while here.lam < end.lam:
        _, eps = run.denoise(z, here)
        while True:
            h = min(h, end.lam - here.lam)
            there = end if h == end.lam - here.lam else run.levels.at(math.exp(-here.lam - h))
            pair = step(z, eps, here, there, run)
            e = error(pair, z)
            if not math.isfinite(e):
                raise FloatingPointError(f"latents are not finite after timestep {here.t:.1f}")
            h *= SAFETY * max(e, 1e-8) ** (-1 / ORDER)
            if e <= 1.0:
                break
        yield here.t, pair.high
        here, z = there, pair.high
    x0, eps = run.denoise(z, here)
    yield here.t, ddim_move(x0, eps, clean.abar)


def _host(z) -> np.ndarray:
    return np.asarray(z.numpy() if hasattr(z, "numpy") else z)
