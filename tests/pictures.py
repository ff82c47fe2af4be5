"""Smooth random pictures, so that tests of images need no files."""

from __future__ import annotations

import numpy as np


def picture(seed: int, height: int = 64, width: int = 96, batch: int = 1) -> np.ndarray:
    """Waves over a colour of their own: float32 (batch, 3, height, width) in [-1, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 16.0
    phase = rng.uniform(0, 6.28, (batch, 3, 4, 1, 1))
    pace = rng.normal(size=(2, batch, 3, 4, 1, 1)) * 2
    waves = np.sin(pace[0] * y + pace[1] * x + phase).mean(2)
    return np.clip(waves + rng.uniform(-0.4, 0.4, (batch, 3, 1, 1)), -1, 1).astype(np.float32)
