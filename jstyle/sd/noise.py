"""Gaussian noise made on the host: one seed, one array, the same on every device and framework."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .rng import NUMPY, torch_generator, torch_noise


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


class InjectedNoise:
    """What a stochastic sampler adds: noise(i, (B, C, h, w)) -> float32 array.

    Picture j draws from seeds[j], whose first draw was the noise that it starts from. NumPy's i-th
    noise is a function of (seed, i); PyTorch's generators go on drawing, as diffusers does with a
    list of generators.
    """

    def __init__(self, seeds: Sequence[int], rng: str = NUMPY):
        self.seeds, self.rng = tuple(seeds), rng
        self._drawing: list | None = None

    def __call__(self, i: int, shape: Sequence[int]) -> np.ndarray:
        if shape[0] != len(self.seeds):
            raise ValueError(f"{len(self.seeds)} seeds for {shape[0]} latents")
        if self.rng == NUMPY:
            streams = (np.random.default_rng((seed, 1 + i)) for seed in self.seeds)
            return np.stack([gaussian_from(stream, shape[1:]) for stream in streams])
        return np.stack([draw(shape[1:]) for draw in self._generators(shape[1:])])

    def _generators(self, shape: Sequence[int]) -> list:
        if self._drawing is None:
            self._drawing = [torch_generator(seed, self.rng) for seed in self.seeds]
            for draw in self._drawing:
                draw(shape)  # the noise that the picture starts from
        return self._drawing
