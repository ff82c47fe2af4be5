"""`torch.randn` with a generator on the CPU.

Source: normal_kernel and normal_fill of aten/src/ATen/native/cpu/DistributionTemplates.h and
normal_distribution of aten/src/ATen/core/DistributionsHelper.h, PyTorch 2.13. Both are Box-Muller,
sqrt(-2 log u1) (cos, sin)(2 pi u2), but on different draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import cephes, mersenne

DTYPES = ("float16", "float32", "float64")
BLOCK = 16  # a filled block holds 8 u1 and 8 u2, then the 8 cosines and the 8 sines


class TorchCPU:
    """A `torch.Generator` on the CPU after manual_seed(seed).

    avx2: as PyTorch computes float32 on x86 processors with AVX2 (AVX-512 too), bit for bit; False
        as it does elsewhere, within 2 units in the last place.
    """

    def __init__(self, seed: int, avx2: bool = True):
        self._words, self.avx2 = mersenne.engine(seed), avx2
        self._kept: float | None = None  # the sine's half of the last single draw

    def randn(self, shape: Sequence[int], dtype: str = "float32") -> np.ndarray:
        """What torch.randn(shape, dtype=dtype, generator=...) returns next. Fewer than 16 numbers
        are drawn one by one, others are filled in. Raises ValueError for a dtype that is none of
        float16 (as PyTorch 2.13 draws it; 2.7 did so from 11 bits, pytorch/pytorch#166853),
        float32 and float64."""
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        size = int(np.prod(shape))
        if size < BLOCK:
            return np.array([self._single() for _ in range(size)]).astype(dtype).reshape(shape)
        kind = "float64" if dtype == "float64" else "float32"
        whole = size // BLOCK * BLOCK
        # float16 goes block by block; the others first draw all, an unfinished block too
        drawn = mersenne.uniform(self._words, whole if dtype == "float16" else size, kind)
        values = np.empty(size, kind)
        values[:whole] = self._box_muller(drawn[:whole])
        if size > whole:  # the last 16 are drawn anew; they overlap the block before
            values[-BLOCK:] = self._box_muller(mersenne.uniform(self._words, BLOCK, kind))
        return values.astype(dtype).reshape(shape)

    def _single(self) -> float:
        """A double by double: the cosine's now, the sine's next time."""
        if self._kept is not None:
            value, self._kept = self._kept, None
            return value
        u1, u2 = mersenne.uniform(self._words, 2, "float64")
        radius, theta = np.sqrt(-2.0 * np.log1p(-u2)), 2.0 * np.pi * u1
        self._kept = float(radius * np.sin(theta))
        return float(radius * np.cos(theta))

    def _box_muller(self, uniform: np.ndarray) -> np.ndarray:
        """Blocks of 16 uniform numbers -> as many normal ones."""
        u1, u2 = np.moveaxis(uniform.reshape(-1, 2, BLOCK // 2), 1, 0)
        compute = _fast if self.avx2 and uniform.dtype == np.float32 else _plain
        radius, sine, cosine = compute(uniform.dtype.type(1) - u1, u2)
        return np.stack([radius * cosine, radius * sine], 1).reshape(-1)


def _fast(u1: np.ndarray, u2: np.ndarray):
    radius = np.sqrt(np.float32(-2) * cephes.log(u1))
    return radius, *cephes.sin_cos(np.float32(2 * np.pi) * u2)


def _plain(u1: np.ndarray, u2: np.ndarray):
    """Every result is rounded to the arrays' type, as the scalar functions of that type do."""
    kind = u1.dtype
    log = np.log(u1.astype(np.float64)).astype(kind)
    radius = np.sqrt(kind.type(-2) * log)
    theta = (2 * np.pi * u2.astype(np.float64)).astype(kind).astype(np.float64)
    return radius, np.sin(theta).astype(kind), np.cos(theta).astype(kind)
