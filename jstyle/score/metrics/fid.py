"""FID: how far apart are two sets of pictures, as normal distributions of Inception's features?

The contest takes 64 features after the first pool of the network, averaged over the pixels, and one
distance between all references and all generated pictures.
Source: Heusel et al., arXiv:1706.08500; features as in torchmetrics and torch-fidelity 0.4.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...sd.startup import jt
from ...sd.torch_zip import read_tensors
from ..networks.inception import Inception

SIZE_PX = 299
RESIZES = ("tensorflow", "antialias")


class Fid:
    """Features: (B, 64) float32.

    resize: "tensorflow" as torchmetrics had it until 1.7, which the contest was scored with;
    "antialias" is the default of torchmetrics from 1.8 on.
    """

    name = "fid"
    needs = ("inception",)

    def __init__(self, weights: Path | str, channels: int = 64, resize: str = RESIZES[0]):
        if resize not in RESIZES:
            raise ValueError(f"resize must be {' or '.join(RESIZES)}, got {resize!r}")
        self.network = Inception("fid")
        self.network.load(read_tensors(weights), weights)
        self.channels = channels
        self._resize = resize_like_tensorflow if resize == RESIZES[0] else resize_antialiased

    def features(self, batch: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, 3) RGB -> float32 (B, channels)."""
        with jt.no_grad():
            pixels = np.ascontiguousarray(self._resize(batch).transpose(0, 3, 1, 2))
            return self.network(jt.array((pixels - 128) / 128), self.channels).numpy()


def resize_like_tensorflow(batch: np.ndarray, size_px: int = SIZE_PX) -> np.ndarray:
    """Bilinear as TensorFlow 1 had it: the first pixels' corners coincide, and nothing is averaged
    when a picture shrinks. uint8 (B, H, W, 3) -> float32 (B, size_px, size_px, 3), 0 to 255."""
    rows, columns = (_between(side, size_px) for side in batch.shape[1:3])
    x = batch.astype(np.float32)
    for axis, (low, high, part) in ((2, columns), (1, rows)):
        part = part.reshape((1, -1, 1, 1) if axis == 1 else (1, 1, -1, 1))
        before, after = x.take(low, axis), x.take(high, axis)
        x = before + (after - before) * part
    return x


def _between(size: int, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each new pixel the two old ones it lies between, and how far towards the second."""
    place = np.arange(wanted, dtype=np.float32) * np.float32(size / wanted)
    low = place.astype(np.int64)
    return low, np.minimum(low + 1, size - 1), place - low.astype(np.float32)


def resize_antialiased(batch: np.ndarray, size_px: int = SIZE_PX) -> np.ndarray:
    """Bilinear with a triangle as wide as the shrinking asks for, as Pillow and torch's antialias.

    uint8 (B, H, W, 3) -> float32 (B, size_px, size_px, 3), 0 to 255, not rounded.
    """
    rows, columns = (_triangles(side, size_px) for side in batch.shape[1:3])
    x = np.tensordot(batch.astype(np.float32), columns, ([2], [1]))  # -> (B, H, 3, size_px)
    x = np.tensordot(x, rows, ([1], [1]))  # -> (B, 3, size_px, size_px), columns before rows
    return x.transpose(0, 3, 2, 1)


def _triangles(size: int, wanted: int) -> np.ndarray:
    """float32 (wanted, size): what each old pixel gives to each new one; rows sum to 1."""
    shrink = size / wanted
    reach = max(shrink, 1.0)
    centres = (np.arange(wanted) + 0.5) * shrink
    away = np.abs(np.arange(size) + 0.5 - centres[:, None]) / reach
    shares = np.maximum(1.0 - away, 0.0)
    return (shares / shares.sum(1, keepdims=True)).astype(np.float32)


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """|mean a - mean b|^2 + tr(A + B - 2 (A B)^(1/2)) of features (n, D) and (m, D).

    A and B are unbiased covariances. With A = X'X and B = Y'Y the trace of the root is the sum of
    the singular values of X Y', which stays exact where there are fewer pictures than features and
    the roots of the eigenvalues of A B, the usual form, are mostly rounding.
    Raises ValueError if a side has fewer than two rows.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"FID needs two pictures on each side, got {len(a)} and {len(b)}")
    (mean_a, x), (mean_b, y) = _moments(a), _moments(b)
    root = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return float(((mean_a - mean_b) ** 2).sum() + (x * x).sum() + (y * y).sum() - 2 * root)


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean, X) with X'X the unbiased covariance; X has at most as many rows as columns."""
    features = np.asarray(features, np.float64)
    mean = features.mean(0)
    return mean, np.linalg.qr(features - mean, mode="r") / np.sqrt(len(features) - 1)
