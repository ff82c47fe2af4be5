"""Image processors: uint8 pictures -> what a network was trained on, number for number.

Pillow resizes (and rounds to 8 bits), the centre is cropped, pixels are scaled and normalised in
the order and precision of transformers' Pillow processors (Bit, CLIP, ViT), which checkers use.
All settings are read from the folder's preprocessor_config.json; none are assumed for a network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..sd.config_json import ConfigError
from .networks.hub_folder import read_json

NAME = "preprocessor_config.json"
SHORTEST_EDGE = ("BitImageProcessor", "CLIPImageProcessor", "CLIPFeatureExtractor")
SQUARE = ("ViTImageProcessor", "ViTFeatureExtractor")  # what a plain number as size means


@dataclass(frozen=True)
class ImageProcessor:
    """size: the shortest edge, or (height, width); None leaves the size. crop: (height, width)."""

    size: int | tuple[int, int] | None
    resample: int  # a member of PIL.Image.Resampling
    crop: tuple[int, int] | None
    rescale: float | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, 3) -> float32 (B, 3, height, width)."""
        if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[3] != 3:
            raise ValueError(f"expected uint8 (B, H, W, 3), got {batch.dtype} {batch.shape}")
        pixels = np.stack([self._cropped(self._resized(image)) for image in batch])
        table = self._table()
        out = np.empty((len(batch), 3, *pixels.shape[1:3]), np.float32)
        for channel in range(3):
            out[:, channel] = table[channel][pixels[..., channel]]
        return out

    def _resized(self, image: np.ndarray) -> np.ndarray:
        if self.size is None:
            return image
        height, width = self.size_of(*image.shape[:2])
        picture = Image.fromarray(np.ascontiguousarray(image))
        return np.asarray(picture.resize((width, height), self.resample))

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after resizing an image of this height and width."""
        if not isinstance(self.size, int):
            return (height, width) if self.size is None else self.size
        short, long = min(height, width), max(height, width)
        long = int(self.size * long / short)  # cut off, not rounded
        return (long, self.size) if width <= height else (self.size, long)

    def _cropped(self, image: np.ndarray) -> np.ndarray:
        if self.crop is None:
            return image
        top, left = ((have - want) // 2 for have, want in zip(image.shape, self.crop, strict=False))
        if top < 0 or left < 0:
            raise ValueError(
                f"an image of {image.shape[1]} x {image.shape[0]} is too small to crop"
            )
        return image[top : top + self.crop[0], left : left + self.crop[1]]

    def _table(self) -> np.ndarray:
        """(3, 256) float32: what becomes of each 8-bit value of each channel."""
        values = np.arange(256)
        if self.rescale is not None:
            values = values.astype(np.float64) * self.rescale
        values = np.tile(values.astype(np.float32), (3, 1))
        if self.mean is not None:
            mean, std = (np.array(v, np.float32)[:, None] for v in (self.mean, self.std))
            values = (values - mean) / std
        return values


def read_processor(folder: Path | str) -> ImageProcessor:
    """The processor of a hub folder. Raises WeightsError without its file, ConfigError for its
    contents."""
    return processor_from_json(read_json(folder, NAME), f"{folder}/{NAME}")


def processor_from_json(values: dict, where: object = NAME) -> ImageProcessor:
    """Old files (sizes as plain numbers) and new ones. Raises ConfigError naming key and value."""
    kind = values.get("image_processor_type", values.get("feature_extractor_type"))
    kind = kind.removesuffix("Fast") if isinstance(kind, str) else kind
    if kind not in (*SHORTEST_EDGE, *SQUARE):
        known = ", ".join((*SHORTEST_EDGE, *SQUARE))
        raise ConfigError(f"{where}: image_processor_type = {kind!r} (supported: {known})")
    size = crop = rescale = mean = std = None
    if values.get("do_resize", True):
        size = _size(values, "size", where, square=kind in SQUARE)
    if values.get("do_center_crop", kind in SHORTEST_EDGE):
        cut = _size(values, "crop_size", where, square=True)
        if not isinstance(cut, tuple):
            raise ConfigError(f"{where}: crop_size must be a number or have a height and a width")
        crop = cut
    if values.get("do_rescale", True):
        rescale = values.get("rescale_factor", 1 / 255)
    if values.get("do_normalize", True):
        mean, std = _channels(values, "image_mean", where), _channels(values, "image_std", where)
    resample = values.get("resample")
    if size is not None and resample not in tuple(Image.Resampling):
        raise ConfigError(f"{where}: resample = {resample!r} must be one of Pillow's, 0 to 5")
    return ImageProcessor(size, resample, crop, rescale, mean, std)


def _size(values: dict, key: str, where: object, square: bool) -> int | tuple[int, int]:
    size = values.get(key)
    if isinstance(size, dict):
        found = tuple(size.get(k) for k in ("shortest_edge", "height", "width"))
        size = found[0] if found[1:] == (None, None) else found[1:]
    elif square:
        size = (size, size)
    sides = size if isinstance(size, tuple) else (size,)
    if not all(type(side) is int and side > 0 for side in sides):
        raise ConfigError(
            f"{where}: {key} = {values.get(key)!r} must be a number, "
            '{"shortest_edge": n} or {"height": n, "width": n}'
        )
    return size


def _channels(values: dict, key: str, where: object) -> tuple[float, ...]:
    numbers = values.get(key)
    if not (
        isinstance(numbers, list)
        and len(numbers) == 3
        and all(type(n) in (int, float) and (n > 0 or key == "image_mean") for n in numbers)
    ):
        what = "three numbers" if key == "image_mean" else "three numbers above 0"
        raise ConfigError(f"{where}: {key} = {numbers!r} must be {what}")
    return tuple(float(n) for n in numbers)
