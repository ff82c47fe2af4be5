"""A denoiser whose answer is known: data that is a mixture of Gaussians, in every latent value.

The exact E[x0 | z] of such data is what a perfect network would say, so a sampler's error is the
sampler's alone. As a "network" it is told nothing but z and the timestep, like a real one.
"""

from __future__ import annotations

import numpy as np

from jstyle.sd.config import ScheduleConfig
from jstyle.sd.samplers.levels import LEAST_ABAR
from jstyle.sd.schedule import Schedule, target, x0_and_eps

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SHAPE = (2, 4, 5, 6)
MEANS = np.array([[-0.9, 0.7], [-0.2, 1.1], [-1.4, 0.1], [0.3, 0.8]]).T.reshape(2, 1, 4, 1, 1)
DEVIATIONS = np.array([0.35, 0.55]).reshape(2, 1, 1, 1, 1)
WEIGHTS = np.array([0.4, 0.6]).reshape(2, 1, 1, 1, 1)


def schedule(**config) -> Schedule:
    return Schedule(ScheduleConfig(**{**SD, **config}))


def noise(seed: int = 0, dtype=np.float32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(dtype)


def x0_of(z, abar: float) -> np.ndarray:
    """E[x0 | z], exact, in float64."""
    signal, variance = np.sqrt(abar), abar * DEVIATIONS**2 + 1.0 - abar
    away = np.asarray(z, np.float64) - signal * MEANS
    share = WEIGHTS / np.sqrt(variance) * np.exp(-(away**2) / (2 * variance))
    known = MEANS + signal * DEVIATIONS**2 / variance * away
    return (share * known).sum(0) / share.sum(0)


def denoise(z, level):
    """(x0, eps) at a level, exact: for samplers alone, in the precision of z."""
    x0 = x0_of(z, level.abar).astype(z.dtype)
    return x0, (z - x0 * level.signal) * (1.0 / max(level.noise, 1e-12))


def network(schedule: Schedule):
    """out(z, t) of a network with the schedule's kind of prediction; t may be fractional."""
    abar = np.maximum(schedule.abar, LEAST_ABAR)
    log_sigmas, count = 0.5 * np.log((1 - abar) / abar), len(abar)

    def out(z, t):
        a = 1.0 / (1.0 + np.exp(2 * np.interp(float(t), np.arange(count), log_sigmas)))
        x0 = x0_of(z, a)
        eps = (np.asarray(z, np.float64) - np.sqrt(a) * x0) / np.sqrt(1 - a)
        return target(schedule.kind, x0, eps, float(a)).astype(z.dtype)

    return out


def told_by(out, schedule: Schedule):
    """denoise(z, level) of a network."""
    return lambda z, level: x0_and_eps(out(z, level.t), z, level.abar, schedule.kind)
