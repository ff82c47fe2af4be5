"""Weights in half precision, for pictures: half of their memory.

Modules that are filled inside `kept_in(dtype)` keep the weights of their layers so.

    used=False   each layer's are widened when it runs: all arithmetic is in float32, and a model
                 whose files hold float16 paints the same bytes
    used=True    CUDA: the module computes in float16 too. In float32 stay sums of products, softmax
                 and the logits before it, the norms, and what is passed in and given back

A training computes in half precision by other means, with masters in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from .hooks import around, with_parameters
from .kernels import widened
from .number_types import FLOAT32
from .startup import jt

nn = jt.nn

MANTISSA = 16  # of float32's bits, that bfloat16 drops


@dataclass(frozen=True)
class Keep:
    """How modules keep their weights."""

    dtype: str = FLOAT32
    used: bool = False


_keep = Keep()


@contextmanager
def kept_in(dtype: str, used: bool = False) -> Iterator[None]:
    """Inside the block modules are filled with weights of this number type, see above."""
    global _keep
    before, _keep = _keep, Keep(dtype, used)
    try:
        yield
    finally:
        _keep = before


def dtypes_of(module: nn.Module) -> Mapping[str, str]:
    """Name -> the number type in which that parameter is to be kept.

    Where weights are widened before use, vectors stay in float32, and so does what no layer owns.
    """
    names = module.state_dict()
    if _keep.used:
        return dict.fromkeys(names, _keep.dtype)
    narrow = {f"{name}.weight" for name, layer in module.named_modules() if _is_layer(layer)}
    return {name: _keep.dtype if name in narrow else FLOAT32 for name in names}


def make_ready(module: nn.Module) -> None:
    """Hooks for a module that was filled: around its layers, or around itself."""
    if _keep.dtype == FLOAT32:
        return
    if _keep.used:
        around(module, "execute", _Narrowed(_keep.dtype))
        return
    for layer in module.modules():
        if isinstance(layer, nn.Embedding):
            around(layer, "execute", _looked_up)
        elif _is_layer(layer):
            around(layer, "execute", _Widened(layer))


def _is_layer(module: nn.Module) -> bool:
    return isinstance(module, (nn.Linear, nn.Conv, nn.Embedding))


@dataclass(frozen=True, eq=False)
class _Widened:
    """The hook around a layer whose weight is widened while it runs."""

    layer: Any

    def __call__(self, call, x):
        with with_parameters({(self.layer, "weight"): widened(self.layer.weight)}):
            return call(x)


def _looked_up(call, ids):
    """The hook around a table: only the rows that were asked for are widened."""
    return call(ids).float32()


@dataclass(frozen=True)
class _Narrowed:
    """The hook around a network that computes in half precision between float32 ends."""

    dtype: str

    def __call__(self, call, *inputs):
        return call(*(self._narrow(x) for x in inputs)).float32()

    def _narrow(self, x):
        wide = isinstance(x, jt.Var) and x.dtype == FLOAT32 and x.ndim > 1  # not timesteps
        return x.cast(self.dtype) if wide else x


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    """Values to the nearest of this number type, ties to even; of bfloat16 the bits, uint16.

    What is too large for float16 becomes infinite.
    """
    if dtype != "bfloat16":
        with np.errstate(over="ignore"):
            return values.astype(dtype, copy=False)
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    up = ((bits >> MANTISSA) & 1) + np.uint32((1 << MANTISSA - 1) - 1)
    return ((bits + up) >> MANTISSA).astype(np.uint16)
