"""The noise schedule, and DDIM in both directions, as in arXiv:2010.02502 with sigma = 0.

x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps, with abar the cumulative product of 1 - beta. Tables
are NumPy float64 on the host; what meets a tensor is a Python float (or, for a training batch with
one timestep per image, an array that broadcasts), so the functions serve Jittor Vars and NumPy
arrays alike. `t` is a training timestep, never a position in the sampling list.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import numpy as np

from .config import ScheduleConfig

Array = Any  # Jittor's or NumPy's: the formulas do not ask which


class PredictionType(str, Enum):
    """What the network's output stands for."""

    EPSILON = "epsilon"
    V = "v_prediction"
    SAMPLE = "sample"


def alphas_cumprod(cfg: ScheduleConfig) -> np.ndarray:
    """abar, float64 (num_train_timesteps,), falling from nearly 1 towards 0."""
    count = cfg.num_train_timesteps
    if cfg.beta_schedule == "scaled_linear":  # linear in sqrt(beta)
        betas = np.linspace(cfg.beta_start**0.5, cfg.beta_end**0.5, count) ** 2
    else:
        betas = np.linspace(cfg.beta_start, cfg.beta_end, count)
    abar = np.cumprod(1.0 - betas)
    return zero_terminal_snr(abar) if cfg.rescale_betas_zero_snr else abar


def zero_terminal_snr(abar: np.ndarray) -> np.ndarray:
    """abar moved and stretched so that its last value is exactly 0 and its first stays.

    Source: arXiv:2305.08891, algorithm 1.
    """
    root = np.sqrt(abar)
    moved = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    return moved**2


def timesteps(cfg: ScheduleConfig, num_steps: int) -> np.ndarray:
    """The `num_steps` timesteps of sampling, int64, descending, as diffusers' DDIMScheduler.

    One deviation: for some counts (61 of 1000 is the first) rounding makes its "trailing" list one
    longer, ending in timestep -1, which no network knows; the surplus is dropped here.
    Raises ValueError if num_steps is not in 1 .. num_train_timesteps, or if steps_offset pushes the
    first timestep out of the table.
    """
    count = cfg.num_train_timesteps
    if not 1 <= num_steps <= count:
        raise ValueError(f"num_steps must be in 1..{count}, got {num_steps}")
    if cfg.timestep_spacing == "linspace":
        ts = np.linspace(0, count - 1, num_steps).round()[::-1]
    elif cfg.timestep_spacing == "leading":
        ts = np.arange(num_steps)[::-1] * (count // num_steps) + cfg.steps_offset
    else:  # trailing; a float step, so that rounding falls as it does in diffusers
        ts = np.round(np.arange(count, 0, -count / num_steps))[:num_steps] - 1
    ts = ts.astype(np.int64)
    if ts[0] >= count:
        raise ValueError(
            f"num_steps = {num_steps} with steps_offset = {cfg.steps_offset} starts at timestep "
            f"{ts[0]}, past the last one, {count - 1}; use fewer steps"
        )
    return ts


def _roots(abar):
    """sqrt(abar), sqrt(1 - abar): Python floats for a number, float32 for an array."""
    abar = np.asarray(abar, np.float64)
    signal, noise = np.sqrt(abar), np.sqrt(1.0 - abar)
    if abar.ndim == 0:
        return float(signal), float(noise)
    # float64 up to here: 1 - abar loses four digits in float32 where abar is close to 1
    return signal.astype(np.float32), noise.astype(np.float32)


def add_noise(x0: Array, eps: Array, abar: Array) -> Array:
    """x_t = sqrt(abar) x0 + sqrt(1 - abar) eps. abar: float, or array of shape (B, 1, 1, 1)."""
    signal, noise = _roots(abar)
    return x0 * signal + eps * noise


def ddim_move(x0: Array, eps: Array, abar_to: Array) -> Array:
    """Eq. 12 of arXiv:2010.02502 with sigma = 0: the same x0 and eps at another noise level.

    abar_to below the present abar adds noise (inversion), above it removes noise (sampling).
    """
    return add_noise(x0, eps, abar_to)


def x0_and_eps(out: Array, x_t: Array, abar_t: Array, kind: PredictionType) -> tuple[Array, Array]:
    """Turn the network's output at noise level abar_t into (x0, eps). v: arXiv:2202.00512, app. D.

    out, x_t: same shape; abar_t: float in [0, 1]. Raises ValueError for an unknown kind, for
    kind SAMPLE at abar_t = 1, where nothing says what the noise was, and for kind EPSILON at
    abar_t = 0, where nothing says what the picture was.
    """
    signal, noise = _roots(abar_t)
    kind = PredictionType(kind)
    if kind is PredictionType.EPSILON:
        if signal == 0.0:
            raise ValueError("prediction_type = 'epsilon' cannot start from abar = 0: no x0 there")
        return (x_t - out * noise) / signal, out
    if kind is PredictionType.V:
        return x_t * signal - out * noise, out * signal + x_t * noise
    if noise == 0.0:
        raise ValueError("prediction_type = 'sample' cannot start from abar = 1: eps is undefined")
    return out, (x_t - out * signal) / noise


def target(kind: PredictionType, x0: Array, eps: Array, abar: Array) -> Array:
    """What the network should have said, for training. abar: float, or array (B, 1, 1, 1)."""
    kind = PredictionType(kind)
    if kind is PredictionType.EPSILON:
        return eps
    if kind is PredictionType.SAMPLE:
        return x0
    signal, noise = _roots(abar)
    return eps * signal - x0 * noise


class Schedule:
    """One model's noise schedule with the DDIM step in both directions.

    A step joins level t with level p = previous(t, n), n being the number of steps. Sampling and
    inversion evaluate the network at the same t: sampling on the latent at t, inversion on the
    latent that still stands at p (the convention of StyleID's diffusers version). So what is
    recorded at t on the way up is used at t on the way down.
    """

    def __init__(self, cfg: ScheduleConfig):
        self.config = cfg
        self.abar = alphas_cumprod(cfg)
        self.final_abar = 1.0 if cfg.set_alpha_to_one else float(self.abar[0])
        self.kind = PredictionType(cfg.prediction_type)

    def timesteps(self, num_steps: int) -> np.ndarray:
        """Descending int64 timesteps; see the function of the same name.

        Raises ValueError also if the first is pure noise and the network predicts that noise.
        """
        ts = timesteps(self.config, num_steps)
        if self.kind is PredictionType.EPSILON and self.abar[ts[0]] == 0.0:
            raise ValueError(
                f"rescale_betas_zero_snr with prediction_type = 'epsilon': timestep {ts[0]} is "
                "pure noise, from which such a network cannot tell a picture; timestep_spacing = "
                "leading does not start there, and v_prediction can"
            )
        return ts

    def abar_at(self, t: int) -> float:
        """abar of timestep t; below 0 the level of clean latents. IndexError past the table."""
        return self.final_abar if t < 0 else float(self.abar[t])

    def previous(self, t: int, num_steps: int) -> int:
        """The level below t, as diffusers has it (also where spacing is not even)."""
        return int(t) - self.config.num_train_timesteps // num_steps

    def step(self, out: Array, z: Array, t: int, num_steps: int) -> Array:
        """One DDIM sampling step (eta 0): z at t and the network's output for (z, t) -> z at p."""
        x0, eps = x0_and_eps(out, z, self.abar_at(t), self.kind)
        return ddim_move(x0, eps, self.abar_at(self.previous(t, num_steps)))

    def invert_step(self, out: Array, z: Array, t: int, num_steps: int) -> Array:
        """One inversion step: z at p and the network's output for (z, t) -> z at t."""
        x0, eps = x0_and_eps(out, z, self.abar_at(self.previous(t, num_steps)), self.kind)
        return ddim_move(x0, eps, self.abar_at(t))
