"""Gaussian noise from NumPy: one seed, one array, the same on every device and framework."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def gaussian(shape: Sequence[int], seed: int) -> np.ndarray:
    """Standard normal float32 array of `shape`, a function of (shape, seed) alone."""
    return gaussian_from(np.random.default_rng(seed), shape)


def gaussian_from(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    """Standard normal float32 array of `shape`; advances `rng`."""
    return rng.standard_normal(tuple(shape), dtype=np.float32)
