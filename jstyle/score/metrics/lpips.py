"""LPIPS: how far apart are two pictures in the activations of a network trained on photographs?

Activations at several depths are scaled to unit length over the channels; their squared
differences are weighted per channel, averaged over the pixels, and summed.
Source: Zhang et al., arXiv:1801.03924, version 0.1 of the weights; details as in torchmetrics 1.8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ...sd.image import from_uint8
from ...sd.startup import jt
from ...sd.torch_zip import read_tensors
from ...sd.weights import WeightsError
from ..networks.backbones import Backbone, alexnet, squeezenet

SIZE_PX = 256
SHIFT = (-0.030, -0.088, -0.188)  # mean and deviation of photographs in [-1, 1]
SCALE = (0.458, 0.448, 0.450)
EPS = 1e-8  # added to squared lengths
CHANNELS = {
    "squeeze": (64, 128, 256, 384, 384, 512, 512),
    "alex": (64, 192, 384, 256, 256),
}


class Lpips:
    """Features: per picture 2.2 million float32, scaled so that LPIPS of two pictures is the
    squared distance of their features. Large: compare and forget rather than keep."""

    name = "lpips"
    needs = ("squeezenet1_1", "lpips-squeeze")

    def __init__(self, backbone: Path | str, linear: Path | str, net: str = "squeeze"):
        """backbone: torchvision's file; linear: LPIPS's own, the weights of the channels."""
        self.network = {"squeeze": squeezenet, "alex": alexnet}[net]()
        self.network.load(read_tensors(backbone), backbone)
        self.linear = read_linear(read_tensors(linear), CHANNELS[net], linear)

    def features(self, batch: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, 3) RGB, resized to 256 x 256 -> float32 (B, D)."""
        return self.embed(np.stack([resized(picture) for picture in batch]))

    def embed(self, batch: np.ndarray) -> np.ndarray:
        """The same without resizing."""
        with jt.no_grad():
            return perceptual_features(self.network, self.linear, batch).numpy()


def resized(picture: np.ndarray, size_px: int = SIZE_PX) -> np.ndarray:
    """uint8 (H, W, 3) -> uint8 (size_px, size_px, 3), with the filter Pillow takes by default."""
    image = Image.fromarray(picture)
    return np.asarray(image.resize((size_px, size_px), Image.Resampling.BICUBIC))


def read_linear(
    tensors: Mapping[str, np.ndarray], channels: tuple[int, ...], where: object
) -> list[np.ndarray]:
    """The weight of each channel at each depth, float32 (C,). Raises WeightsError."""
    names = [f"lin{i}.model.1.weight" for i in range(len(channels))]
    odd = set(names) ^ set(tensors)
    if odd:
        raise WeightsError(f"{where}: expected {', '.join(names)}; differs in {sorted(odd)}")
    for name, count in zip(names, channels, strict=True):
        if tensors[name].shape != (1, count, 1, 1):
            have = list(tensors[name].shape)
            raise WeightsError(f"{where}: {name} {have} instead of [1, {count}, 1, 1]")
        if not (np.isfinite(tensors[name]).all() and (tensors[name] >= 0).all()):
            raise WeightsError(f"{where}: {name} holds weights that are negative or not finite")
    return [tensors[name].astype(np.float32).reshape(-1) for name in names]


def perceptual_features(network: Backbone, linear: list[np.ndarray], batch: np.ndarray) -> jt.Var:
    """uint8 (B, H, W, 3) -> Var (B, D), whose squared distances are LPIPS."""
    x = jt.array(from_uint8(batch))
    shift, scale = (jt.array(np.asarray(v, np.float32).reshape(1, 3, 1, 1)) for v in (SHIFT, SCALE))
    parts = []
    for y, weights in zip(network((x - shift) / scale), linear, strict=True):
        count, channels, height, width = y.shape
        length = jt.sqrt((y * y).sum(1, keepdims=True) + EPS)
        share = jt.array(np.sqrt(weights / (height * width)).reshape(1, channels, 1, 1))
        parts.append((y / length * share).reshape(count, -1))
    return jt.concat(parts, 1)


def distances(a: np.ndarray, b: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
    """LPIPS of each picture of a (n, D) with each of b (m, D) -> float64 (n, m)."""
    found = np.empty((len(a), len(b)))
    for i, j in np.ndindex(found.shape):
        difference = a[i] - b[j]
        found[i, j] = np.dot(difference, difference)
    return found


def style_score(generated: np.ndarray, references: np.ndarray) -> float:
    """LPIPS of one style from features: the mean over all pairs; lower is more alike."""
    if not len(generated) or not len(references):
        raise ValueError(f"{len(generated)} pictures and {len(references)} references to compare")
    return float(distances(generated, references).mean())
