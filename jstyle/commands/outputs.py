"""What a command leaves on the disk: pictures, and beside each the record of how it was made."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .. import __version__
from ..sd import files, image, targets
from ..sd.picture_files import SUFFIXES
from ..sd.reading import read_object

OF_THE_RUN = ("seconds", "features")  # not in pictures: the same work gives the same bytes


def picture_path(out: str | Path) -> Path:
    """`out` as the path of one PNG. Raises ValueError for another suffix or a folder."""
    path = Path(out)
    if os.path.isdir(path):
        raise ValueError(f"{path}: is a folder; --out names one .png file here")
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path}: results are PNG files, the name must end in .png")
    return path


def names_file(out: str | Path) -> bool:
    """True if `out` is meant as one picture, not as a folder. Raises ValueError for a JPEG name."""
    path = Path(out)
    if os.path.isdir(path) or path.suffix.lower() not in SUFFIXES:
        return False
    return picture_path(path) == path


def record_path(picture: Path) -> Path:
    return picture.with_suffix(".json")


def require_free(
    pictures: Iterable[Path], overwrite: bool = False, inputs: Iterable[str | os.PathLike] = ()
) -> None:
    """Raise TargetError if a picture or its record would replace an input, or with `overwrite`
    off something that is no result of ours."""
    both = [path for picture in pictures for path in (picture, record_path(picture))]
    targets.require_free(both, overwrite, inputs)


def write_result(picture: Path, pixels: np.ndarray, record: dict) -> None:
    """Save uint8 (H, W, 3), then its record; a result is finished when its record is there.

    If one of them cannot be written, both are as they were.
    """
    record = {"jstyle": __version__, **record}
    inside = {name: value for name, value in record.items() if name not in OF_THE_RUN}
    with files.atomic_write(record_path(picture)) as part:
        files.write_text(part, files.json_text(record))
        image.save_png(picture, pixels, metadata=inside)


def is_finished(picture: Path, key: str) -> bool:
    """True if the picture is there with a record, and both carry this key: a record may lie beside
    the picture of another run that was at work in the same folder."""
    try:
        record = read_object(record_path(picture))
    except files.InputError:
        return False
    recorded = image.recorded_in(picture)
    return record.get("key") == recorded.get("key") == key
