"""The contest's HIST of painted pictures, for `jdreambooth pick`."""

from __future__ import annotations

import numpy as np

from jstyle.score.histogram import Histogram, style_score


def hist(pictures: np.ndarray, references: np.ndarray) -> float:
    """uint8 (N, H, W, 3) and (M, H, W, 3) -> agreement of their colours, at most 1."""
    histogram = Histogram()
    return style_score(histogram.features(pictures), histogram.features(references))
