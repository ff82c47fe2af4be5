"""Gaussian noise made on the host: one seed, one array, the same on every device and framework."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .rng import NUMPY, torch_noise


def gaussian(shape: Sequence[int], seed: int, rng: str = NUMPY) -> np.ndarray:
    """Standard normal float32 array of `shape`, a function of the arguments alone.

    rng: "numpy", or the noise that PyTorch draws from this seed, see jstyle/sd/rng. Raises
    ValueError for another, and for a seed that it does not take.
    """
    if rng == NUMPY:
        return gaussian_from(np.random.default_rng(seed), shape)
    return torch_noise(shape, seed, rng)


def gaussian_from(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    """Standard normal float32 array of `shape`; advances `rng`."""
    return rng.standard_normal(tuple(shape), dtype=np.float32)
