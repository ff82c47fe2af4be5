"""Photographs that may be used freely, and random 128 px views of them.

All come with scikit-image or Matplotlib, so that nothing is downloaded. The cat ("chelsea") is kept
out of training: it is the content picture of the demo.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from jdreambooth.drawings.canvas import hue_rotation

# name: (package, file, licence as stated by the package)
PHOTOS = {
    "astronaut": ("skimage", "data/astronaut.png", "public domain, NASA"),
    "brick": ("skimage", "data/brick.png", "CC0, CC0Textures"),
    "camera": ("skimage", "data/camera.png", "CC0, Lav Varshney"),
    "coffee": ("skimage", "data/coffee.png", "CC0, Rachel Michetti"),
    "coins": ("skimage", "data/coins.png", "no known copyright restrictions, Brooklyn Museum"),
    "grass": ("skimage", "data/grass.png", "CC0, CC0Textures"),
    "gravel": ("skimage", "data/gravel.png", "CC0, CC0Textures"),
    "hubble": ("skimage", "data/hubble_deep_field.jpg", "public domain, NASA"),
    "moon": ("skimage", "data/moon.png", "public domain"),
    "motorcycle": ("skimage", "data/motorcycle_left.png", "CC0, D. Scharstein"),
    "rocket": ("skimage", "data/rocket.jpg", "public domain, SpaceX"),
    "hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "public domain, US Navy"),
}
HELD_OUT = {"chelsea": ("skimage", "data/chelsea.png", "CC0, Stefan van der Walt")}
# Textures and the like say less about photographs than scenes do: drawn less often.
WEIGHTS = {"brick": 0.4, "grass": 0.5, "gravel": 0.5, "hubble": 0.5, "moon": 0.4, "coins": 0.6}


def open_photo(name: str) -> Image.Image:
    """The photograph as RGB."""
    package, file, _ = {**PHOTOS, **HELD_OUT}[name]
    root = Path(__import__(package).__file__).parent
    return Image.open(root / file).convert("RGB")


def random_view(photo: Image.Image, rng: np.random.Generator, size_px: int) -> Image.Image:
    """A random square of the photograph, mirrored and recoloured by chance, at `size_px`."""
    side = min(photo.size)
    crop = int(np.exp(rng.uniform(np.log(min(size_px, side)), np.log(side))))
    x, y = (int(rng.integers(0, extent - crop + 1)) for extent in photo.size)
    view = photo.resize((size_px, size_px), Image.LANCZOS, box=(x, y, x + crop, y + crop))
    if rng.random() < 0.5:
        view = view.transpose(Image.FLIP_LEFT_RIGHT)
    if rng.random() < 0.15:
        view = view.transpose(Image.FLIP_TOP_BOTTOM)
    return recolour(view, rng)


def recolour(view: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Change hue, saturation, contrast and channel gains, mildly or strongly by chance."""
    if rng.random() < 0.35:
        return view
    pixels = np.asarray(view, np.float32) / 255
    if rng.random() < 0.5:
        pixels = pixels @ hue_rotation(rng.uniform(-np.pi, np.pi))
    gain, bias = rng.uniform(0.75, 1.25, 3), rng.uniform(-0.1, 0.1, 3)
    pixels = np.clip(pixels * gain + bias, 0, 1)
    view = Image.fromarray((pixels * 255 + 0.5).astype(np.uint8))
    view = ImageEnhance.Color(view).enhance(rng.uniform(0.5, 1.8))
    return ImageEnhance.Contrast(view).enhance(rng.uniform(0.7, 1.3))


def views(count: int, size_px: int, seed: int) -> np.ndarray:
    """(count, size, size, 3) uint8: random views over all training photographs."""
    rng = np.random.default_rng(seed)
    names = list(PHOTOS)
    weights = np.array([WEIGHTS.get(name, 1.0) for name in names])
    photos = {name: open_photo(name) for name in names}
    picks = rng.choice(len(names), count, p=weights / weights.sum())
    return np.stack([np.asarray(random_view(photos[names[i]], rng, size_px)) for i in picks])
