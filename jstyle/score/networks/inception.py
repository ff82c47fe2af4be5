"""Inception v3 in the two forms that Frechet distances are taken in.

"fid"   the TensorFlow network of 2015 behind every published FID, as torch-fidelity converts it.
        Its averages leave the padding out, and its last block takes the largest value instead.
"art"   torchvision's network, trained anew on paintings for ArtFID (arXiv:2207.12280). Its
        averages count the padding, and its last block averages.

Names are torchvision's, which both files use. Source: Szegedy et al., arXiv:1512.00567.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ...sd.startup import jt
from ...sd.weights import Rule
from .frozen import FrozenBatchNorm, avg_pool, load_frozen, max_pool

nn = jt.nn

FORMS = ("fid", "art")
SMALLEST = 75  # pixels a side; with fewer nothing is left for the last block
STAGES = {64: 1, 192: 2, 768: 3, 2048: 4}  # channels -> the stage after which they are averaged
UNUSED = (
    Rule(r"^fc\d?\.", None, "the classifier's heads"),
    Rule(r"^AuxLogits\d?\.", None, "the auxiliary heads, used in training only"),
)


class Conv(NamedTuple):
    """One convolution of a branch; `kernel` is height and width, or one number for both."""

    name: str
    channels: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1


class BasicConv2d(nn.Module):
    """Convolution, batch norm, ReLU. The size is kept, unless there is a stride or padding 0."""

    def __init__(self, channels: int, out: int, kernel, stride: int = 1, padding=None):
        if padding is None:
            sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
            padding = tuple(side // 2 for side in sides) if stride == 1 else 0
        self.conv = nn.Conv(channels, out, kernel, stride, padding, bias=False)
        self.bn = FrozenBatchNorm(out, eps=1e-3)

    def execute(self, x: jt.Var) -> jt.Var:
        return nn.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Branches side by side, each a chain of convolutions, and a pool with or without one.

    branches: chains of Conv; a tuple of two in a chain's last place is a fork, both of whose
    results are kept. pool: x -> x, and `pool_channels` of the convolution after it, None for none.
    """

    def __init__(self, channels: int, branches: tuple, pool, pool_channels: int | None = None):
        self.branches, self._pool = branches, pool
        self.pool_conv = pool_channels is not None
        for chain in branches:
            width = channels
            for step in chain:
                for conv in (step,) if isinstance(step, Conv) else step:
                    layer = BasicConv2d(width, conv.channels, conv.kernel, conv.stride)
                    setattr(self, conv.name, layer)
                width = conv.channels
        if self.pool_conv:
            self.branch_pool = BasicConv2d(channels, pool_channels, 1)

    def execute(self, x: jt.Var) -> jt.Var:
        """(B, channels, H, W) -> (B, sum of the branches, H, W), or about half the size."""
        found = []
        for chain in self.branches:
            results = [x]
            for step in chain:
                convs = (step,) if isinstance(step, Conv) else step
                results = [getattr(self, conv.name)(results[0]) for conv in convs]
            found += results
        pooled = self._pool(x)
        return jt.concat([*found, self.branch_pool(pooled) if self.pool_conv else pooled], 1)


ROW, COLUMN = (1, 7), (7, 1)


def _narrow(channels: int, pool_channels: int, average) -> Mixed:
    fives = (Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, 5))
    threes = (
        Conv("branch3x3dbl_1", 64),
        Conv("branch3x3dbl_2", 96, 3),
        Conv("branch3x3dbl_3", 96, 3),
    )
    return Mixed(channels, ((Conv("branch1x1", 64),), fives, threes), average, pool_channels)


def _shrink_first(channels: int) -> Mixed:
    threes = (
        Conv("branch3x3dbl_1", 64),
        Conv("branch3x3dbl_2", 96, 3),
        Conv("branch3x3dbl_3", 96, 3, stride=2),
    )
    return Mixed(channels, ((Conv("branch3x3", 384, 3, stride=2),), threes), _halve)


def _sevens(channels: int, width: int, average) -> Mixed:
    single = (
        Conv("branch7x7_1", width),
        Conv("branch7x7_2", width, ROW),
        Conv("branch7x7_3", 192, COLUMN),
    )
    double = (
        Conv("branch7x7dbl_1", width),
        Conv("branch7x7dbl_2", width, COLUMN),
        Conv("branch7x7dbl_3", width, ROW),
        Conv("branch7x7dbl_4", width, COLUMN),
        Conv("branch7x7dbl_5", 192, ROW),
    )
    return Mixed(channels, ((Conv("branch1x1", 192),), single, double), average, 192)


def _shrink_second(channels: int) -> Mixed:
    threes = (Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, 3, stride=2))
    sevens = (
        Conv("branch7x7x3_1", 192),
        Conv("branch7x7x3_2", 192, ROW),
        Conv("branch7x7x3_3", 192, COLUMN),
        Conv("branch7x7x3_4", 192, 3, stride=2),
    )
    return Mixed(channels, (threes, sevens), _halve)


def _wide(channels: int, pool) -> Mixed:
    def fork(name: str):
        return Conv(f"{name}a", 384, (1, 3)), Conv(f"{name}b", 384, (3, 1))

    single = (Conv("branch3x3_1", 384), fork("branch3x3_2"))
    double = (Conv("branch3x3dbl_1", 448), Conv("branch3x3dbl_2", 384, 3), fork("branch3x3dbl_3"))
    return Mixed(channels, ((Conv("branch1x1", 320),), single, double), pool, 192)


def _halve(x):
    return max_pool(x, 3, 2)


def _largest_around(x):
    return max_pool(x, 3, 1, padding=1)


class Inception(nn.Module):
    """Normalised pixels -> features."""

    def __init__(self, form: str = "fid"):
        if form not in FORMS:
            raise ValueError(f"form must be {' or '.join(FORMS)}, got {form!r}")

        def average(x):
            return avg_pool(x, 3, 1, padding=1, count_padding=form == "art")

        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, 3, padding=0)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, 3)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, 1)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, 3, padding=0)
        self.Mixed_5b = _narrow(192, 32, average)
        self.Mixed_5c = _narrow(256, 64, average)
        self.Mixed_5d = _narrow(288, 64, average)
        self.Mixed_6a = _shrink_first(288)
        self.Mixed_6b = _sevens(768, 128, average)
        self.Mixed_6c = _sevens(768, 160, average)
        self.Mixed_6d = _sevens(768, 160, average)
        self.Mixed_6e = _sevens(768, 192, average)
        self.Mixed_7a = _shrink_second(768)
        self.Mixed_7b = _wide(1280, average)
        self.Mixed_7c = _wide(2048, _largest_around if form == "fid" else average)

    def execute(self, x: jt.Var, channels: int = 2048) -> jt.Var:
        """x: (B, 3, H, W), at least 75 x 75. Returns (B, channels) of 64, 192, 768 or 2048.

        The average over the pixels of the last stage needed; later stages are not computed.
        """
        if channels not in STAGES:
            raise ValueError(f"channels must be one of {tuple(STAGES)}, got {channels}")
        if min(x.shape[2:]) < SMALLEST:
            raise ValueError(f"Inception needs {SMALLEST} x {SMALLEST} pixels, got {x.shape[2:]}")
        stages = (self._stem, self._second, self._middle, self._last)
        for stage in stages[: STAGES[channels]]:
            x = stage(x)
        return x.mean(3).mean(2)  # in two steps: one long sum in float32 would be inexact

    def _stem(self, x):
        return _halve(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))

    def _second(self, x):
        return _halve(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))

    def _middle(self, x):
        for block in (self.Mixed_5b, self.Mixed_5c, self.Mixed_5d, self.Mixed_6a):
            x = block(x)
        for block in (self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e):
            x = block(x)
        return x

    def _last(self, x):
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))

    def load(self, tensors: Mapping[str, np.ndarray], where: object) -> None:
        """Fill from torch-fidelity's or ArtFID's file. Raises WeightsError."""
        load_frozen(self, tensors, where, UNUSED)
