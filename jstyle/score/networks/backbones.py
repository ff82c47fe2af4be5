"""SqueezeNet 1.1, AlexNet and the beginning of VGG-19: activations at the places others named.

Attributes carry torchvision's names, so that its files fit. LPIPS reads the first two
(arXiv:1801.03924), the content measure of StyleID the third.
Sources: arXiv:1602.07360, arXiv:1404.5997, arXiv:1409.1556; torchvision 0.28, models/.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...sd.startup import jt
from ...sd.weights import Rule
from .frozen import MaxPool, load_frozen

nn = jt.nn

HEAD = Rule(r"^classifier\.", None, "the classifier's head")
VGG_REST = Rule(r"^features\.(1[2-9]|[23]\d)\.", None, "what comes after relu3_1")


class Backbone(nn.Module):
    """`features` in torchvision's numbering; `taps` are the entries whose outputs are wanted."""

    def __init__(self, layers: list, taps: tuple[int, ...], unused: tuple[Rule, ...] = (HEAD,)):
        self.features = nn.Sequential(*layers)
        self.taps = taps
        self.unused = unused

    def execute(self, x: jt.Var) -> list:
        """x: (B, 3, H, W), normalised as the weights want it. Returns one Var per tap."""
        found = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.taps:
                found.append(x)
        return found

    def load(self, tensors: Mapping[str, np.ndarray], where: object) -> None:
        """Fill from torchvision's file. Raises WeightsError."""
        load_frozen(self, tensors, where, self.unused)


class Fire(nn.Module):
    """SqueezeNet's block: few channels, then 1x1 and 3x3 side by side."""

    def __init__(self, channels: int, squeezed: int, expanded: int):
        self.squeeze = nn.Conv(channels, squeezed, 1)
        self.expand1x1 = nn.Conv(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv(squeezed, expanded, 3, padding=1)

    def execute(self, x: jt.Var) -> jt.Var:
        x = nn.relu(self.squeeze(x))
        return nn.relu(jt.concat([self.expand1x1(x), self.expand3x3(x)], 1))


def squeezenet() -> Backbone:
    """SqueezeNet 1.1 with LPIPS's seven taps: 64, 128, 256, 384, 384, 512, 512 channels."""
    layers = [nn.Conv(3, 64, 3, stride=2), nn.ReLU(), MaxPool(3, 2, ceil_mode=True)]
    layers += [Fire(64, 16, 64), Fire(128, 16, 64), MaxPool(3, 2, ceil_mode=True)]
    layers += [Fire(128, 32, 128), Fire(256, 32, 128), MaxPool(3, 2, ceil_mode=True)]
    layers += [Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)]
    return Backbone(layers, (1, 4, 7, 9, 10, 11, 12))


def alexnet() -> Backbone:
    """AlexNet with LPIPS's five taps: 64, 192, 384, 256, 256 channels."""
    layers = [nn.Conv(3, 64, 11, stride=4, padding=2), nn.ReLU(), MaxPool(3, 2)]
    layers += [nn.Conv(64, 192, 5, padding=2), nn.ReLU(), MaxPool(3, 2)]
    for channels, out in ((192, 384), (384, 256), (256, 256)):
        layers += [nn.Conv(channels, out, 3, padding=1), nn.ReLU()]
    return Backbone(layers, (1, 4, 7, 9, 11))


def vgg19() -> Backbone:
    """VGG-19 up to relu3_1, its one tap: 256 channels at a quarter of the size."""
    layers = []
    for channels, out in ((3, 64), (64, 64), (64, 128), (128, 128), (128, 256)):
        layers += [nn.Conv(channels, out, 3, padding=1), nn.ReLU()]
        if channels == out:
            layers.append(MaxPool(2, 2))
    return Backbone(layers, (11,), (HEAD, VGG_REST))
