"""How each picture of a style stands to the references: HIST, and whether it repeats one of them.

Needs neither weights nor time. Structure is compared as measures.py does it for latents, here on
small copies of the pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from jstyle.score.histogram import Histogram, style_score
from jstyle.score.layout import ContestError
from jstyle.score.pictures import read_rgb

from ..measures import COPY, to_training

SMALL_PX = 64


class Close(NamedTuple):
    """hist: the picture's own part of HIST. reference: the one whose structure is nearest, at this
    distance: 0 for the same, about 1 for a stranger. copied: whether it is far nearer to that one
    than to the others."""

    hist: float
    reference: str
    distance: float
    copied: bool


class Yardstick:
    """The references of one style, to hold pictures against. Raises ContestError."""

    def __init__(self, references: Sequence[Path]):
        self.names = [path.stem for path in references]
        self._metric = Histogram()
        pixels = [read_rgb(path) for path in references]
        self._counts = np.stack([self._metric.of(one) for one in pixels])
        self._small = np.concatenate([_small(one) for one in pixels])

    def close(self, path: Path) -> Close | None:
        """None for a picture that cannot be read."""
        try:
            pixels = read_rgb(path)
        except ContestError:
            return None
        hist = style_score(self._metric.of(pixels)[None], self._counts)
        (distances,) = to_training(_small(pixels), self._small)
        nearest = int(distances.argmin())
        others = np.delete(distances, nearest)
        copied = bool(len(others)) and bool(distances[nearest] < COPY * others.mean())
        return Close(hist, self.names[nearest], float(distances[nearest]), copied)


def _small(pixels: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) -> float64 (1, 3, SMALL_PX, SMALL_PX)."""
    picture = Image.fromarray(pixels).resize((SMALL_PX, SMALL_PX), Image.Resampling.BOX)
    return np.asarray(picture, np.float64).transpose(2, 0, 1)[None] / 255
