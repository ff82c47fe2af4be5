"""What published classifiers are made of, for inference only, with PyTorch's conventions.

Jittor's own pooling divides by the window's size at a border whatever it is told, and refuses a
picture that is as small as its window; its batch norm has a training side.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...sd.startup import jt
from ...sd.weights import Rule, load_strict

nn = jt.nn

LOWEST = -3e38  # what a window sees outside of the picture when the largest value is asked for
COUNTERS = Rule(r"\.num_batches_tracked$", None, "counts training steps, unused in inference")


class FrozenBatchNorm(nn.Module):
    """Batch norm with the recorded statistics; (B, C, H, W) -> the same."""

    def __init__(self, channels: int, eps: float = 1e-5):
        self.eps = eps
        self.weight, self.bias = jt.ones(channels), jt.zeros(channels)
        self.running_mean, self.running_var = jt.zeros(channels), jt.ones(channels)

    def execute(self, x: jt.Var) -> jt.Var:
        scale = self.weight / jt.sqrt(self.running_var + self.eps)
        shift = self.bias - self.running_mean * scale
        return x * scale.broadcast(x.shape, [0, 2, 3]) + shift.broadcast(x.shape, [0, 2, 3])


class MaxPool(nn.Module):
    """max_pool as an entry of nn.Sequential, where its place gives the others their numbers."""

    def __init__(self, kernel: int, stride: int, ceil_mode: bool = False):
        self.kernel, self.stride, self.ceil_mode = kernel, stride, ceil_mode

    def execute(self, x: jt.Var) -> jt.Var:
        return max_pool(x, self.kernel, self.stride, ceil_mode=self.ceil_mode)


def max_pool(
    x: jt.Var, kernel: int, stride: int, padding: int = 0, ceil_mode: bool = False
) -> jt.Var:
    """The largest value of each window. x: (B, C, H, W) -> (B, C, h, w).

    ceil_mode: windows that stick out at the far edges count too, unless they begin in the padding.
    Raises ValueError if no window fits.
    """
    return _windows(x, kernel, stride, padding, ceil_mode, LOWEST).reduce("maximum", [4, 5])


def avg_pool(
    x: jt.Var, kernel: int, stride: int, padding: int = 0, count_padding: bool = True
) -> jt.Var:
    """The mean of each window. x: (B, C, H, W) -> (B, C, h, w).

    count_padding: the padding's zeros are counted, as PyTorch does; False divides by the number of
    pixels inside, as TensorFlow does. Raises ValueError if no window fits.
    """
    total = _windows(x, kernel, stride, padding, False, 0.0).reduce("add", [4, 5])
    if count_padding or padding == 0:
        return total / (kernel * kernel)
    rows, columns = (_inside(side, kernel, stride, padding) for side in x.shape[2:])
    return total / jt.array(np.outer(rows, columns)[None, None])


def _windows(x, kernel, stride, padding, ceil_mode, outside):
    """(B, C, H, W) -> (B, C, h, w, kernel, kernel), never made: it melts into the reduction."""
    batch, channels, height, width = x.shape
    h, w = (num_windows(side, kernel, stride, padding, ceil_mode) for side in (height, width))
    if h < 1 or w < 1:
        raise ValueError(f"{height} x {width} values are too few for a window of {kernel}")
    places = ["i0", "i1", f"i2*{stride}-{padding}+i4", f"i3*{stride}-{padding}+i5"]
    return x.reindex([batch, channels, h, w, kernel, kernel], places, overflow_value=outside)


def num_windows(size: int, kernel: int, stride: int, padding: int, ceil_mode: bool) -> int:
    """How many windows a side has, by PyTorch's rule."""
    room = size + 2 * padding - kernel
    if not ceil_mode:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= size + padding else count


def _inside(size: int, kernel: int, stride: int, padding: int) -> np.ndarray:
    """How many pixels of each window lie inside the side, float32."""
    starts = np.arange(num_windows(size, kernel, stride, padding, False)) * stride - padding
    inside = np.minimum(starts + kernel, size) - np.maximum(starts, 0)
    return inside.astype(np.float32)


def load_frozen(
    module: jt.nn.Module,
    tensors: Mapping[str, np.ndarray],
    where: object,
    unused: tuple[Rule, ...] = (),
) -> None:
    """Fill `module` strictly; `unused` names the parts of the file that this network leaves out.

    Raises WeightsError for anything missing, unexpected or of another shape.
    """
    load_strict(module, tensors, (COUNTERS, *unused), where)
