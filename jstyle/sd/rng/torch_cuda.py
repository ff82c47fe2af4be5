"""`torch.randn` with a generator on a CUDA device, computed on the CPU.

The engine is Philox4x32-10 (Salmon et al., SC 2011, doi:10.1145/2063384.2063405). Who draws what
follows calc_execution_policy and distribution_elementwise_grid_stride_kernel of
aten/src/ATen/native/cuda/DistributionTemplates.h: a thread per element in blocks of 256, as many
as the device runs at once; thread i is subsequence i, every fourth of the offset a counter, and a
thread's four normals go to elements that lie a whole grid apart.

Integers are exact. The device takes sin and cos from its special function unit, whose absolute
error is some 5e-7 (CUDA C++ Programming Guide, intrinsic functions), here they are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
BLOCK, UNROLL = 256, 4
_LOW = np.uint64(0xFFFFFFFF)


class GPU(NamedTuple):
    """The facts of a device that decide which thread draws what in large tensors."""

    multiprocessors: int
    threads_per_multiprocessor: int

    @property
    def threads(self) -> int:
        """Threads of a full grid."""
        return self.multiprocessors * (self.threads_per_multiprocessor // BLOCK) * BLOCK


def philox(counter: np.ndarray, key: Sequence[int]) -> np.ndarray:
    """counter: (4, N) 32-bit words, key: 2 of them -> (4, N) random words, all uint64."""
    a, b, c, d = counter.astype(np.uint64)
    k0, k1 = map(int, key)
    for _ in range(ROUNDS):
        p, q = a * np.uint64(MULTIPLIERS[0]), c * np.uint64(MULTIPLIERS[1])
        a, b = (q >> np.uint64(32)) ^ b ^ np.uint64(k0), q & _LOW
        c, d = (p >> np.uint64(32)) ^ d ^ np.uint64(k1), p & _LOW
        k0, k1 = (k0 + WEYL[0]) & 0xFFFFFFFF, (k1 + WEYL[1]) & 0xFFFFFFFF
    return np.stack([a, b, c, d])


class TorchCUDA:
    """A `torch.Generator` on a CUDA device after manual_seed(seed).

    gpu: matters for tensors with more elements than it runs threads (40,960 on a T4, 221,184 on
        an A100). None: one that runs a thread per element, which for smaller ones is every device.
    """

    def __init__(self, seed: int, gpu: GPU | None = None):
        self.seed, self.gpu, self.offset = seed & (2**64 - 1), gpu, 0

    def randn(self, shape: Sequence[int], dtype: str = "float32") -> np.ndarray:
        """What torch.randn(shape, dtype=dtype, device="cuda", generator=...) returns next."""
        size = int(np.prod(shape))
        if dtype not in ("float16", "float32"):  # float64 draws in another way
            raise ValueError(f"dtype must be float16 or float32, got {dtype!r}")
        values = self.elements(np.arange(size), size)
        if size:
            self.offset += 4 * -(-size // (self._grid(size) * UNROLL))
        return values.astype(dtype).reshape(shape)

    def elements(self, indices: np.ndarray, size: int) -> np.ndarray:
        """Some elements, float32, of the tensor of `size` elements that is drawn next."""
        indices = np.asarray(indices, np.uint64)
        turn, thread = np.divmod(indices, np.uint64(max(self._grid(size), 1)))
        call, part = np.divmod(turn, np.uint64(UNROLL))
        counter = call + np.uint64(self.offset // 4)
        parts = counter & _LOW, counter >> np.uint64(32), thread, np.zeros_like(thread)
        words = philox(np.stack(parts), (self.seed & 0xFFFFFFFF, self.seed >> 32))
        normals = np.concatenate([_box_muller(*words[:2]), _box_muller(*words[2:])])
        return normals[part.astype(int), np.arange(len(indices))]

    def _grid(self, size: int) -> int:
        """Threads of the launch."""
        wanted = -(-size // BLOCK) * BLOCK
        return wanted if self.gpu is None else min(self.gpu.threads, wanted)


def _box_muller(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Two words -> two normals (2, N) float32, as curand_box_muller of curand_normal.h."""
    scale = np.float32(2.0**-32)
    turn = np.float64(np.float32(scale * np.float32(2 * np.pi)))
    u = (x * np.float64(scale) + np.float64(scale / 2)).astype(np.float32)
    v = (y * turn + turn / 2).astype(np.float32).astype(np.float64)
    radius = np.sqrt(np.float32(-2) * np.log(u.astype(np.float64)).astype(np.float32))
    return np.stack([radius * np.sin(v).astype(np.float32), radius * np.cos(v).astype(np.float32)])
