"""Pseudo linear multistep sampling, arXiv:2202.09778 (PLMS).

The first step is a pseudo improved Euler step instead of the paper's Runge-Kutta warm-up, which is
what "skip_prk_steps" stands for in Stable Diffusion's files; later steps take as many of the last
four eps as there are. Always eps is extrapolated, also for networks that predict v. (diffusers
extrapolates v there and converts the sum, which is another method. Also its second evaluation is
told the next timestep of the list, which "linspace" spacing puts elsewhere than where z stands.)
"""

from __future__ import annotations

from collections.abc import Iterator

from ..schedule import Array
from .base import Run
from .euler import move
from .levels import Level

ADAMS_BASHFORTH = (  # weights of the latest eps first; eq. 12 for four
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def step(z: Array, past: tuple, here: Level, there: Level) -> Array:
    """One step with the eps of `past`, the latest first, one to four of them."""
    weights = ADAMS_BASHFORTH[len(past) - 1]
    slope = past[0] * weights[0]
    for eps, weight in zip(past[1:], weights[1:], strict=True):
        slope = slope + eps * weight
    return move(z, slope, here, there)


def walk(z: Array, run: Run) -> Iterator[tuple[float, Array]]:
    past = ()
    for k, (_, here, there) in enumerate(run.steps):
        past = (run.denoise(z, here)[1], *past[:3])
        if k == 0 and there.t >= 0:
            _, ahead = run.denoise(move(z, past[0], here, there), there)
            z = move(z, (past[0] + ahead) * 0.5, here, there)
        else:
            z = step(z, past, here, there)
        yield here.t, z


def evaluations(num_steps: int) -> int:
    return num_steps + 1 if num_steps > 1 else 1
