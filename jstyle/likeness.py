"""How like two pictures are, in figures that need no network: colours, and where edges are."""

from __future__ import annotations

import numpy as np

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BLUR = 4  # pixels: edges that are moved by less still count


def opponents(images: np.ndarray) -> np.ndarray:
    """Images (N, 3, H, W) in [-1, 1] -> brightness, red - green and yellow - blue, (N, 3, H, W)."""
    x = (np.asarray(images, np.float64) + 1) / 2
    red, green, blue = x[:, 0], x[:, 1], x[:, 2]
    return np.stack([(red + green + blue) / 3, red - green, (red + green) / 2 - blue], 1)


def colours(planes: np.ndarray) -> np.ndarray:
    """Planes (N, 3, H, W) of `opponents` -> (N, 15): QUANTILES of each."""
    found = np.quantile(planes.reshape(len(planes), 3, -1), QUANTILES, axis=2)  # (Q, N, 3)
    return found.transpose(1, 2, 0).reshape(len(planes), -1)


def colour_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Root mean square difference of the colours of two images (1, 3, H, W) in [-1, 1]; 0 for the
    same colours, wherever they are."""
    a, b = (colours(opponents(images)) for images in (one, other))
    return float(np.sqrt(((a - b) ** 2).mean()))


def edge_similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of the edges of two images (1, 3, H, W) of one size, in [-1, 1]: 1 where edges of
    the same relative strength are in the same places, whatever their colours; 0 for an image
    without edges."""
    a, b = (_edges(images) for images in (one, other))
    squared = (a * a).sum() * (b * b).sum()
    return float((a * b).sum() / np.sqrt(squared)) if squared > 1e-20 else 0.0


def _edges(images: np.ndarray) -> np.ndarray:
    """Strength of the gradient of brightness over cells of BLUR x BLUR, without its mean."""
    dy, dx = np.gradient(opponents(images)[0, 0])
    strength = np.hypot(dy, dx)
    h, w = (max(side // BLUR, 1) * BLUR for side in strength.shape)
    cells = strength[:h, :w].reshape(h // BLUR, BLUR, w // BLUR, BLUR).mean((1, 3))
    return cells - cells.mean()
