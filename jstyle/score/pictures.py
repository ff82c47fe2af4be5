"""The pictures to be scored, as the checker's libraries see them: plain 8-bit RGB."""

from __future__ import annotations

import os

import numpy as np

from ..sd.picture_files import DECODE_ERRORS, ImageError, open_picture, own_bound
from ..sd.printable import reason_of
from .layout import ContestError

MODES = ("RGB", "RGBA", "L", "LA", "P", "1")  # 8 bits; alpha is left out, as OpenCV does


def read_rgb(path: str | os.PathLike) -> np.ndarray:
    """uint8 (H, W, 3), neither turned nor resized. Raises ContestError in one line."""
    try:
        with own_bound(), open_picture(path) as image:
            if image.mode not in MODES:
                raise ContestError(f"{path}: pixel format {image.mode} is not supported")
            return np.asarray(image.convert("RGB"))
    except ContestError:
        raise
    except ImageError as error:
        raise ContestError(str(error)) from None
    except DECODE_ERRORS as error:
        raise ContestError(f"{path}: cannot be read ({reason_of(error)})") from None
