"""HIST: do the pictures of a style have the colours of its references? NumPy only.

Two histograms of colour classes per picture, one over red, green and blue and one over hue,
saturation and value. A style's score is the mean correlation of its pictures' histograms with the
mean histogram of its references, taken over both kinds.

The organiser's checker has three quirks in its 8-bit arithmetic. Scores agree with it only if they
are repeated; each stands in a function named `quirk_*`, beside what was meant.
"""

from __future__ import annotations

import os

import numpy as np

from .layout import Contest, result_path
from .pictures import read_rgb

RGB_BINS = 4096  # 16 levels of each channel
HSV_BINS = 72  # 8 hues, 3 saturations, 3 values
HUE_ENDS = (20, 40, 75, 155, 190, 270, 295, 315)  # degrees; above the last it is red again
THIRDS = (51, 178)  # of saturation and value, 0..255


def hist_scores(
    contest: Contest, result: str | os.PathLike, corrected: bool = False
) -> dict[str, float]:
    """HIST of each style, at most 1. Reads one picture at a time."""
    metric, scores = Histogram(corrected), {}
    for style in contest.styles:
        paths = [result_path(result, style.name, prompt) for prompt in style.prompts]
        images, references = (
            np.stack([metric.of(read_rgb(path)) for path in group])
            for group in (paths, style.references)
        )
        scores[style.name] = style_score(images, references)
    return scores


class Histogram:
    """The metric: `features` are the counts of both histograms, one after the other."""

    name = "hist"
    needs = ()

    def __init__(self, corrected: bool = False):
        self.rgb_bin = rgb_bin if corrected else quirk_blue_overflows
        self.degrees = degrees if corrected else quirk_hue_overflows
        self.counted = all_classes if corrected else quirk_last_class_is_dropped

    def features(self, batch: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, 3) -> float32 (B, RGB_BINS + HSV_BINS) counts."""
        return np.stack([self.of(pixels) for pixels in batch])

    def of(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) -> float32 (RGB_BINS + HSV_BINS,)."""
        rgb = np.bincount(self.rgb_bin(pixels).ravel(), minlength=RGB_BINS)
        hue, saturation, value = to_hsv(pixels)
        classes = 9 * hue_class(self.degrees(hue)) + 3 * third(saturation) + third(value)
        hsv = self.counted(np.bincount(classes.ravel(), minlength=HSV_BINS))
        return np.concatenate([rgb, hsv]).astype(np.float32)


def style_score(generated: np.ndarray, references: np.ndarray) -> float:
    """HIST of one style from features (n, bins) and (m, bins)."""
    mean = np.mean(np.asarray(references, np.float32), axis=0)
    parts = [
        correlation(mean[part], image[part])
        for part in (slice(0, RGB_BINS), slice(RGB_BINS, None))
        for image in generated
    ]
    return float(np.mean(parts))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Of two histograms, in [-1, 1], as OpenCV's HISTCMP_CORREL: 1 where one of them is flat."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    a, b = a - a.mean(), b - b.mean()
    squared = (a @ a) * (b @ b)
    return float(a @ b / np.sqrt(squared)) if squared > np.finfo(np.float64).eps else 1.0


# ---- red, green, blue


def quirk_blue_overflows(pixels: np.ndarray) -> np.ndarray:
    """uint8 (..., 3) -> bin. Blue's share, its level times 256, is 0 in 8 bits."""
    red, green, _ = np.moveaxis(pixels // 16, -1, 0)
    return green * np.uint8(16) + red


def rgb_bin(pixels: np.ndarray) -> np.ndarray:
    """uint8 (..., 3) -> bin of RGB_BINS."""
    red, green, blue = np.moveaxis(pixels.astype(np.int32) // 16, -1, 0)
    return 256 * blue + 16 * green + red


# ---- hue, saturation, value


def quirk_hue_overflows(hue: np.ndarray) -> np.ndarray:
    """Hue 0..179 -> degrees in 8 bits: 256 and more start again at 0."""
    return hue.astype(np.uint8) * np.uint8(2)


def degrees(hue: np.ndarray) -> np.ndarray:
    return 2 * hue.astype(np.int32)


def quirk_last_class_is_dropped(counts: np.ndarray) -> np.ndarray:
    """The checker's bins end at class 71, exclusive; the bin of that class stays empty."""
    return np.append(counts[:-1], 0)


def all_classes(counts: np.ndarray) -> np.ndarray:
    return counts


def hue_class(degrees: np.ndarray) -> np.ndarray:
    """0 red, 1 orange, 2 yellow, 3 green, 4 cyan, 5 blue, 6 purple, 7 magenta."""
    return _HUE_CLASS[degrees]


def third(level: np.ndarray) -> np.ndarray:
    """Saturation or value 0..255 -> 0 low, 1 middle, 2 high."""
    return _THIRD[level]


def to_hsv(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """uint8 RGB (..., 3) -> hue 0..179, saturation and value 0..255, each int32 (...).

    The integers of OpenCV's COLOR_RGB2HSV: divisions by tables with 12 fractional bits,
    https://github.com/opencv/opencv/blob/4.11.0/modules/imgproc/src/color_hsv.simd.hpp (RGB2HSV_b).
    """
    red, green, blue = np.moveaxis(pixels.astype(np.int32), -1, 0)
    value = np.maximum(np.maximum(red, green), blue)
    chroma = value - np.minimum(np.minimum(red, green), blue)
    hue = np.where(value == green, blue - red + 2 * chroma, red - green + 4 * chroma)
    hue = np.where(value == red, green - blue, hue)
    hue = (hue * _HUE_PER_CHROMA[chroma] + 2048) >> 12
    saturation = (chroma * _SATURATION_PER_VALUE[value] + 2048) >> 12
    return np.where(hue < 0, hue + 180, hue), saturation, value


def _quotients(numerator: float) -> np.ndarray:
    """numerator / i for i in 0..255 with 12 fractional bits, and 0 for i = 0."""
    i = np.arange(1, 256)
    return np.append(0, np.rint(numerator * 4096 / i)).astype(np.int32)


_HUE_CLASS = np.searchsorted(HUE_ENDS, np.arange(360)) % len(HUE_ENDS)  # ends are inclusive
_THIRD = np.searchsorted(THIRDS, np.arange(256))
_HUE_PER_CHROMA = _quotients(30)  # 180 over six sectors
_SATURATION_PER_VALUE = _quotients(255)
