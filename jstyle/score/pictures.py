"""The pictures to be scored, as the checker's libraries see them: plain 8-bit RGB."""

from __future__ import annotations

import os
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..sd.image import DECODE_ERRORS
from .layout import ContestError

MODES = ("RGB", "RGBA", "L", "LA", "P", "1")  # 8 bits; alpha is left out, as OpenCV does


def read_rgb(path: str | os.PathLike) -> np.ndarray:
    """uint8 (H, W, 3), neither turned nor resized. Raises ContestError in one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata
            with Image.open(path) as image:
                if image.mode not in MODES:
                    raise ContestError(f"{path}: pixel format {image.mode} is not supported")
                return np.asarray(image.convert("RGB"))
    except ContestError:
        raise
    except FileNotFoundError:
        raise ContestError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise ContestError(f"{path}: is not an image") from None
    except (*DECODE_ERRORS, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ContestError(f"{path}: cannot be read ({reason})") from None
