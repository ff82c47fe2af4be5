"""Image files <-> arrays, and nothing about models.

In pixel space an array is float32 (B, 3, H, W) in [-1, 1]; for saving it is uint8 (B, H, W, 3) in
[0, 255]. Only this file converts between the two.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from .files import atomic_write
from .picture_files import DECODE_ERRORS, ImageError, open_picture, own_bound
from .printable import reason_of
from .reading import parse_json

ORIENTATION_TAG = 0x0112
TRANSPOSE = {  # EXIF orientation -> what brings the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load(
    path: str | os.PathLike,
    size_px: int | tuple[int, int] | None = None,
    multiple: int = 8,
) -> np.ndarray:
    """Read an image as float32 (1, 3, H, W) in [-1, 1].

    size_px: n, or (height, width): centre crop to that shape, Lanczos to that size. None: only a
        centre crop down to multiples of `multiple`. Any Pillow mode; 16-bit values are scaled,
        transparency lies on white, EXIF rotation is applied, the first frame of an animation.
    Raises ImageError for a bad file, ValueError for a size that is not a multiple of `multiple`.
    """
    box_h, box_w = (size_px, size_px) if isinstance(size_px, int) else size_px or (None, None)
    for side in (box_h, box_w):
        if side is not None and (side < 1 or side % multiple):
            raise ValueError(f"size_px must be a positive multiple of {multiple}, got {side}")
    image = read_rgb(path)
    if size_px is None:
        box_h, box_w = (side - side % multiple for side in (image.height, image.width))
        if not box_h or not box_w:
            raise ImageError(
                f"{path}: {image.width} x {image.height} pixels are too few, "
                f"at least {multiple} x {multiple} are needed"
            )
        left, top = (image.width - box_w) // 2, (image.height - box_h) // 2
        with own_bound():
            image = image.crop((left, top, left + box_w, top + box_h))
    else:
        box = _centre_box(image.width, image.height, box_w / box_h)
        image = image.resize((box_w, box_h), Image.Resampling.LANCZOS, box=box)
    return from_uint8(np.asarray(image)[None])


def _centre_box(width: int, height: int, aspect: float) -> tuple[float, float, float, float]:
    """The largest centred box (left, top, right, bottom) with width / height = aspect."""
    w, h = min(width, height * aspect), min(height, width / aspect)
    left, top = (width - w) / 2, (height - h) / 2
    return left, top, min(left + w, width), min(top + h, height)


def read_rgb(path: str | os.PathLike) -> Image.Image:
    """The whole picture as load sees it: decoded completely, upright, RGB. Raises ImageError."""
    with own_bound(), open_picture(path) as image:
        return _rgb(_decode_pixels(image, Path(path)), path)


def _decode_pixels(image: Image.Image, path: Path) -> Image.Image:
    try:
        image.load()
    except DECODE_ERRORS as error:
        reason = reason_of(error)
        if isinstance(error, EOFError) or "truncated" in reason.lower():
            raise ImageError(f"{path}: is truncated") from None
        raise ImageError(f"{path}: is damaged ({reason})") from None
    if not image.width or not image.height:
        raise ImageError(f"{path}: has no pixels")
    try:
        orientation = image.getexif().get(ORIENTATION_TAG)
    except DECODE_ERRORS:  # broken metadata is no reason to refuse good pixels
        orientation = None
    return image.transpose(TRANSPOSE[orientation]) if orientation in TRANSPOSE else image


def _rgb(image: Image.Image, path: str | os.PathLike) -> Image.Image:
    """Any mode -> RGB, 8 bits per channel."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bits(image)).convert("RGB")
    if image.mode in ("La", "RGBa"):  # premultiplied alpha
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    try:
        if image.has_transparency_data:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        return image if image.mode == "RGB" else image.convert("RGB")  # large: no second copy
    except (ValueError, OSError):
        raise ImageError(f"{path}: pixel format {image.mode} is not supported") from None


def _eight_bits(image: Image.Image) -> np.ndarray:
    """One channel of wide pixels -> uint8 (H, W).

    Whole numbers span 16 bits (Pillow's "I" holds 16-bit PNG and PGM too), or up to their maximum
    where that is larger. Floats span [0, 1], or [0, 255] where any is above 1.
    """
    pixels = np.nan_to_num(np.asarray(image, np.float64))
    top = pixels.max()
    if image.mode == "F":
        white = 1.0 if top <= 1.0 else 255.0
    else:
        white = max(65535.0, top)
    return np.rint(np.clip(pixels / white, 0.0, 1.0) * 255.0).astype(np.uint8)


def from_uint8(pixels: np.ndarray) -> np.ndarray:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in [-1, 1]."""
    scaled = np.asarray(pixels, np.float32) / 127.5 - 1.0
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def require_finite(x: np.ndarray) -> None:
    """Raise ValueError for a picture that holds NaN or infinity."""
    if not np.isfinite(x).all():
        raise ValueError(
            "the picture holds values that are not finite (NaN or infinity); numbers that are too "
            "large, such as of --guidance or of a LoRA's weight, lead there"
        )


def to_uint8(x: Any) -> np.ndarray:
    """(B, 3, H, W) in [-1, 1], array or Var -> uint8 (B, H, W, 3); clamps, rounds half to even.

    Raises ValueError if a value is not finite, which would otherwise be saved as black.
    """
    x = np.asarray(x.numpy() if hasattr(x, "numpy") else x, np.float32)
    require_finite(x)
    pixels = np.rint((np.clip(x, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)
    return pixels.transpose(0, 2, 3, 1)


def save_png(path: str | os.PathLike, pixels: np.ndarray, metadata: dict | None = None) -> None:
    """Write uint8 (H, W, 3) as PNG, atomically; the same input gives the same bytes.

    metadata: stored as JSON in a tEXt chunk called "jstyle". Raises OSError if it cannot write.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"expected uint8 (H, W, 3), got {pixels.dtype} {pixels.shape}")
    info = PngImagePlugin.PngInfo()
    if metadata is not None:
        info.add_text("jstyle", json.dumps(metadata, sort_keys=True))
    image = Image.fromarray(np.ascontiguousarray(pixels))
    with atomic_write(path) as part:
        image.save(part, format="PNG", compress_level=6, pnginfo=info)


def recorded_in(path: str | os.PathLike) -> dict:
    """The metadata that `save_png` wrote; {} if there is none, or the file cannot be read."""
    try:
        with open_picture(path) as picture:
            found = parse_json(picture.info.get("jstyle", "{}"), path)
    except (*DECODE_ERRORS, TypeError):  # ImageError and InputError are ValueErrors
        return {}
    return found if isinstance(found, dict) else {}


def grid(
    rows: Sequence[Sequence[np.ndarray | None]],
    column_labels: Sequence[str],
    row_labels: Sequence[str] | None = None,
) -> Image.Image:
    """A labelled table of uint8 (H, W, 3) images on white; None leaves a cell empty.

    Images are not resized: cells have the size of the largest. Labels longer than their cell end
    in an ellipsis. Raises ValueError if the labels do not match the rows and columns.
    """
    if any(len(row) != len(column_labels) for row in rows):
        raise ValueError(f"every row needs {len(column_labels)} images, as many as column labels")
    if row_labels is not None and len(row_labels) != len(rows):
        raise ValueError(f"{len(rows)} rows but {len(row_labels)} row labels")
    images = [image for row in rows for image in row if image is not None]
    if not images:
        raise ValueError("a grid needs at least one image")
    cell_h, cell_w = (max(image.shape[axis] for image in images) for axis in (0, 1))
    font: Any = ImageFont.load_default(max(13, cell_h // 12))
    gap = max(4, cell_w // 32)
    header = sum(font.getmetrics()) + gap
    labels = [_shorten(text, font, 2 * cell_w) for text in row_labels or ()]
    margin = max((int(font.getlength(text)) + 2 * gap for text in labels), default=0)
    width = margin + gap + len(column_labels) * (cell_w + gap)
    canvas = Image.new("RGB", (width, header + gap + len(rows) * (cell_h + gap)), "white")
    draw = ImageDraw.Draw(canvas)
    for i, text in enumerate(column_labels):
        middle = margin + gap + i * (cell_w + gap) + cell_w // 2
        draw.text((middle, gap), _shorten(text, font, cell_w), "black", font, anchor="ma")
    for j, row in enumerate(rows):
        top = header + gap + j * (cell_h + gap)
        if labels:
            draw.text((gap, top + cell_h // 2), labels[j], "black", font, anchor="lm")
        for i, image in enumerate(row):
            if image is not None:
                left = margin + gap + i * (cell_w + gap) + (cell_w - image.shape[1]) // 2
                canvas.paste(Image.fromarray(image), (left, top + (cell_h - image.shape[0]) // 2))
    return canvas


def _shorten(text: str, font: Any, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
