"""Multistep sampling of latent consistency models, arXiv:2310.04378, algorithm 3.

Only for models distilled that way: the network's x0 is taken for the end of the path, and noised
again to the next level.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..schedule import Array, Schedule, add_noise
from . import levels
from .base import Run
from .levels import Level, Levels

ORIGINAL_STEPS = 50  # of the solver that such models were distilled with
TIMESTEP_SCALING, SIGMA_DATA = 10.0, 0.5


def spaced(schedule: Schedule, num_steps: int, sigmas: str | None = None) -> Levels:
    """num_steps of the 50 timesteps of distillation, as LCMScheduler, then clean latents.

    Raises ValueError for more than 50 steps, or fewer than 50 training timesteps.
    """
    skip = len(schedule.abar) // ORIGINAL_STEPS
    if not 1 <= num_steps <= ORIGINAL_STEPS or skip == 0:
        raise ValueError(f"num_steps must be in 1..{ORIGINAL_STEPS} for lcm, got {num_steps}")
    places = [i * ORIGINAL_STEPS // num_steps for i in range(num_steps)]
    ts = [(ORIGINAL_STEPS - place) * skip - 1 for place in places]
    return levels.chain(schedule, [Level(t, schedule.abar_at(t)) for t in ts])


def consistency(z: Array, x0: Array, t: float) -> Array:
    """f of eq. 3: c_skip z + c_out x0, which is z at t = 0."""
    scaled = t * TIMESTEP_SCALING
    skip = SIGMA_DATA**2 / (scaled**2 + SIGMA_DATA**2)
    out = scaled / math.sqrt(scaled**2 + SIGMA_DATA**2)
    return x0 * out + z * skip


def walk(z: Array, run: Run) -> Iterator[tuple[float, Array]]:
    for i, here, there in run.steps:
        x0, _ = run.denoise(z, here)
        z = consistency(z, x0, here.t)
        if there.abar < 1.0:
            z = add_noise(z, run.noise(i, tuple(z.shape)), there.abar)
        yield here.t, z
