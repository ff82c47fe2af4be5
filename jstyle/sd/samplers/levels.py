"""Noise levels, and the pairs of them that a sampler steps between.

z_t = sqrt(abar) x0 + sqrt(1 - abar) eps everywhere; samplers that were published in the variables
of arXiv:2206.00364 (xhat = x0 + sigma eps) use sigma = sqrt(1 - abar) / sqrt(abar) and
z = sqrt(abar) xhat. Spacings follow diffusers' scheduler of the same sampler. Host float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..schedule import Schedule, timesteps

KARRAS, EXPONENTIAL = "karras", "exponential"
RHO = 7.0  # table 1 of arXiv:2206.00364
LEAST_ABAR = 2.0**-24  # stands for a terminal abar of 0 where sigma must be finite, as in diffusers


class Level(NamedTuple):
    """How noisy latents are, and what the network is told about it."""

    t: float  # training timestep: an int where it is whole, below 0 for clean latents
    abar: float

    @property
    def signal(self) -> float:
        """sqrt(abar), "alpha" in arXiv:2211.01095."""
        return math.sqrt(self.abar)

    @property
    def noise(self) -> float:
        """sqrt(1 - abar), "sigma" in arXiv:2211.01095."""
        return math.sqrt(1.0 - self.abar)

    @property
    def sigma(self) -> float:
        """Noise per signal, "sigma" in arXiv:2206.00364; 0 for clean latents."""
        return math.sqrt((1.0 - self.abar) / self.abar)

    @property
    def lam(self) -> float:
        """lambda = log(signal / noise); infinite for clean latents."""
        return -math.log(self.sigma) if self.abar < 1.0 else math.inf


class Step(NamedTuple):
    """One step of a run: from level `here` to level `there`; i is its place in the whole run."""

    i: int
    here: Level
    there: Level


CLEAN = Level(-1, 1.0)


@dataclass(frozen=True)
class Levels:
    """The steps of a run, and the levels that lie between the model's own.

    scale: what standard normal noise is multiplied with to stand at the first level.
    """

    steps: tuple[Step, ...]
    log_sigmas: np.ndarray  # of every training timestep, rising
    scale: float = 1.0

    def at(self, sigma: float) -> Level:
        """The level of a sigma; its timestep is interpolated in log(sigma), and fractional."""
        return Level(float(_timestep(sigma, self.log_sigmas)), 1.0 / (1.0 + sigma * sigma))


def ddim(schedule: Schedule, num_steps: int, sigmas: str | None = None) -> Levels:
    """Pairs (t, t - N // num_steps), as DDIMScheduler and PNDMScheduler; sigmas must be None."""
    pairs = []
    for t in map(int, schedule.timesteps(num_steps)):
        below = schedule.previous(t, num_steps)
        pairs.append((Level(t, schedule.abar_at(t)), Level(below, schedule.abar_at(below))))
    return Levels(_numbered(pairs), _log_sigmas(schedule))


def ddpm(schedule: Schedule, num_steps: int, sigmas: str | None = None) -> Levels:
    """Neighbours of the same timesteps, then abar = 1, as DDPMScheduler; sigmas must be None."""
    levels = [Level(t, schedule.abar_at(t)) for t in map(int, schedule.timesteps(num_steps))]
    return chain(schedule, levels)


def k_diffusion(
    schedule: Schedule, num_steps: int, sigmas: str | None = None, whole: bool = False
) -> Levels:
    """The levels of the samplers of arXiv:2206.00364, as EulerDiscreteScheduler; ends clean.

    "linspace" spacing is not rounded here: timesteps are fractional and sigma is interpolated.
    Karras and exponential sigmas span the levels of the model's spacing. Their timesteps stay
    fractional, or are rounded for Karras sigmas with whole=True, as KDPM2DiscreteScheduler does.
    """
    table = _log_sigmas(schedule)
    count = len(table)
    if schedule.config.timestep_spacing == "linspace":
        timesteps(schedule.config, num_steps)  # its errors
        ts = np.linspace(0, count - 1, num_steps)[::-1]
    else:
        ts = schedule.timesteps(num_steps).astype(np.float64)
    spaced = np.interp(ts, np.arange(count), np.exp(table))
    if sigmas is not None:
        spaced = SIGMAS[sigmas](spaced[0], spaced[-1], num_steps)
        ts = _timestep(spaced, table)
        ts = np.round(ts) if whole and sigmas == KARRAS else ts
    levels = [Level(_whole(t), _abar(schedule, t, s)) for t, s in zip(ts, spaced, strict=True)]
    # diffusers starts from noise alone, without a signal's share, unless spacing is "leading"
    scale = 1.0 if schedule.config.timestep_spacing == "leading" else levels[0].noise
    return chain(schedule, levels, scale)


def k_diffusion_whole(schedule: Schedule, num_steps: int, sigmas: str | None = None) -> Levels:
    """k_diffusion with whole=True."""
    return k_diffusion(schedule, num_steps, sigmas, whole=True)


def solver(schedule: Schedule, num_steps: int, sigmas: str | None = None) -> Levels:
    """As DPMSolverMultistepScheduler and UniPCMultistepScheduler; ends clean.

    "linspace" and "leading" divide the table by num_steps + 1. Karras and exponential sigmas span
    the whole table; their timesteps are whole: rounded for Karras, cut for exponential, as there.
    """
    table, config = _log_sigmas(schedule), schedule.config
    count = len(table)
    timesteps(config, num_steps)  # its errors
    if config.timestep_spacing == "linspace":
        ts = np.linspace(0, count - 1, num_steps + 1).round()[:0:-1]
    elif config.timestep_spacing == "leading":
        ts = np.arange(num_steps, 0, -1) * (count // (num_steps + 1)) + config.steps_offset
    else:
        ts = schedule.timesteps(num_steps)
    if sigmas is None:
        if ts[0] >= count or len(set(ts)) < num_steps:
            raise ValueError(f"num_steps = {num_steps} is too many for {count} timesteps; use less")
        levels = [Level(int(t), _abar(schedule, int(t))) for t in ts]
    else:
        spaced = SIGMAS[sigmas](math.exp(table[-1]), math.exp(table[0]), num_steps)
        ts = _timestep(spaced, table)
        ts = np.round(ts) if sigmas == KARRAS else np.floor(ts)
        levels = [Level(int(t), 1.0 / (1.0 + s * s)) for t, s in zip(ts, spaced, strict=True)]
    return chain(schedule, levels)


def karras(highest: float, lowest: float, count: int) -> np.ndarray:
    """Eq. 5 of arXiv:2206.00364 with rho = 7, without the final 0."""
    ramp = np.linspace(0, 1, count)
    return (highest ** (1 / RHO) + ramp * (lowest ** (1 / RHO) - highest ** (1 / RHO))) ** RHO


def exponential(highest: float, lowest: float, count: int) -> np.ndarray:
    """Even in log(sigma), the uniform-logSNR steps of arXiv:2206.00927, without the final 0."""
    return np.exp(np.linspace(math.log(highest), math.log(lowest), count))


def chain(schedule: Schedule, levels: Sequence[Level], scale: float = 1.0) -> Levels:
    """Steps from every level to the next, and from the last to clean latents."""
    steps = _numbered(zip(levels, [*levels[1:], CLEAN], strict=True))
    return Levels(steps, _log_sigmas(schedule), scale)


SIGMAS = {KARRAS: karras, EXPONENTIAL: exponential}


def _log_sigmas(schedule: Schedule) -> np.ndarray:
    abar = np.maximum(schedule.abar, LEAST_ABAR)
    return 0.5 * np.log((1.0 - abar) / abar)


def _timestep(sigma, log_sigmas: np.ndarray):
    return np.interp(np.log(sigma), log_sigmas, np.arange(len(log_sigmas)))


def _abar(schedule: Schedule, t: float, sigma: float | None = None) -> float:
    if sigma is None:
        return max(float(schedule.abar[int(t)]), LEAST_ABAR)
    return float(1.0 / (1.0 + sigma * sigma))


def _whole(t: float) -> float:
    return int(t) if float(t).is_integer() else float(t)


def _numbered(pairs) -> tuple[Step, ...]:
    return tuple(Step(i, here, there) for i, (here, there) in enumerate(pairs))
