"""log, sin and cos in float32 as PyTorch's AVX2 code computes them, to the last bit.

They are the polynomials of the Cephes library in the form of J. Pommier's sse_mathfun and
G. Garberoglio's AVX version, which PyTorch uses (aten/src/ATen/native/cpu/avx_mathfun.h). Compilers
contract most multiplications with the addition that follows; where that is so was found by
comparing bits. A libm differs in every third value, by many units where the result is near zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np

LOG = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)
SIN = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
COS = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
LN2 = (-2.12194440e-4, 0.693359375)  # ln 2 in two parts, the smaller first
PI_4 = (0.78515625, 2.4187564849853515625e-4, 3.77489497744594108e-8)  # pi / 4 in three
_F = np.float32


def fma(a: Any, b: Any, c: Any) -> Any:
    """a * b + c rounded once: in float64 the product of two float32 is exact."""
    return (np.float64(a) * np.float64(b) + np.float64(c)).astype(_F)


def _polynomial(coefficients, x: np.ndarray) -> np.ndarray:
    y = np.full_like(x, _F(coefficients[0]))
    for c in coefficients[1:]:
        y = fma(y, x, _F(c))
    return y


def log(x: np.ndarray) -> np.ndarray:
    """Natural logarithm of normal float32 above 0."""
    mantissa, exponent = np.frexp(x)  # mantissa in [0.5, 1)
    small = mantissa < _F(0.5**0.5)
    e = (exponent - small).astype(_F)
    m = np.where(small, mantissa + mantissa, mantissa) - _F(1)
    z = m * m
    y = fma(_polynomial(LOG, m) * m, z, e * _F(LN2[0]))
    y = fma(z, _F(-0.5), y)
    return fma(e, _F(LN2[1]), m + y)


def sin_cos(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(sin x, cos x) of float32 x, 0 <= x < 8192."""
    octant = ((x * _F(4 / np.pi)).astype(np.int32) + 1) & ~1
    for part in PI_4:
        x = fma(octant.astype(_F), _F(-part), x)
    z = x * x
    cosine = fma(_polynomial(COS, z) * z, z, z * _F(-0.5)) + _F(1)
    sine = fma(_polynomial(SIN, z) * z, x, x)
    swapped = (octant & 2) != 0
    s, c = np.where(swapped, cosine, sine), np.where(swapped, sine, cosine)
    return np.where(octant & 4, -s, s), np.where((octant + 2) & 4, -c, c)
