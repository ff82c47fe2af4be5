"""Small pictures inside pages that open without a network."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from .picture_files import DECODE_ERRORS, open_picture

QUALITY = 85


def thumbnail(path: Path, size_px: int) -> str | None:
    """A picture as a data URI, its longer side at most size_px; None if it cannot be read."""
    try:
        with open_picture(path) as picture:
            small = picture.convert("RGB")
        small.thumbnail((size_px, size_px), Image.Resampling.LANCZOS)
    except (*DECODE_ERRORS, OSError, ValueError):
        return None
    written = io.BytesIO()
    small.save(written, "WEBP", quality=QUALITY, method=6)
    return "data:image/webp;base64," + base64.b64encode(written.getvalue()).decode("ascii")
