"""PyTorch's CPU engine: the Mersenne Twister mt19937 (Matsumoto & Nishimura, 1998), 32-bit words.

NumPy has the recurrence; the seeding is init_genrand of the authors' 2002 version, as in
aten/src/ATen/core/MT19937RNGEngine.h, which keeps the lowest 32 bits of a seed.
"""

from __future__ import annotations

import numpy as np

STATE_WORDS = 624
_MULTIPLIER = 1812433253


def engine(seed: int) -> np.random.MT19937:
    """The engine as `torch.Generator().manual_seed(seed)` leaves it; random_raw(n) draws words."""
    state = np.empty(STATE_WORDS, np.uint32)
    word = state[0] = seed & 0xFFFFFFFF
    for i in range(1, STATE_WORDS):
        word = state[i] = (_MULTIPLIER * (word ^ (word >> 30)) + i) & 0xFFFFFFFF
    made = np.random.MT19937()
    made.state = {"bit_generator": "MT19937", "state": {"key": state, "pos": STATE_WORDS}}
    return made


def uniform(words: np.random.MT19937, count: int, dtype: str) -> np.ndarray:
    """`count` numbers in [0, 1) of `dtype`: as many low bits of a draw as its significand has.

    float32 takes one word each, float64 two, the first of them the upper half.
    Source: uniform_real of aten/src/ATen/core/TransformationHelper.h.
    """
    if dtype == "float64":
        high, low = words.random_raw(2 * count).reshape(-1, 2).T
        return ((high << np.uint64(32) | low) & np.uint64(2**53 - 1)) * 2.0**-53
    drawn = words.random_raw(count) & np.uint64(2**24 - 1)
    return (drawn * 2.0**-24).astype(np.float32)
