"""What a command leaves on the disk: pictures, and beside each the record of how it was made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from .. import __version__
from ..sd import files, image
from ..sd.picture_files import SUFFIXES
from ..sd.reading import read_object

OF_THE_RUN = ("seconds", "features")  # not in pictures: the same work gives the same bytes


def picture_path(out: str | Path) -> Path:
    """`out` as the path of one PNG. Raises ValueError for another suffix or a folder."""
    path = Path(out)
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; --out names one .png file here")
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path}: results are PNG files, the name must end in .png")
    return path


def names_file(out: str | Path) -> bool:
    """True if `out` is meant as one picture, not as a folder. Raises ValueError for a JPEG name."""
    path = Path(out)
    if path.is_dir() or path.suffix.lower() not in SUFFIXES:
        return False
    return picture_path(path) == path


@contextmanager
def writable(folder: str | Path) -> Iterator[Path]:
    """Make sure of `folder` before the work starts; a folder made here and left empty goes again.

    Raises OSError in one line if it cannot be created or written.
    """
    folder = Path(folder)
    made = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        yield files.writable_folder(folder)
    finally:
        with suppress(OSError):  # not empty: there are results in it
            for path in made:  # innermost first
                path.rmdir()


def record_path(picture: Path) -> Path:
    return picture.with_suffix(".json")


def write_result(picture: Path, pixels: np.ndarray, record: dict) -> None:
    """Save uint8 (H, W, 3), then its record; a result is finished when its record is there."""
    record_path(picture).unlink(missing_ok=True)
    record = {"jstyle": __version__, **record}
    inside = {name: value for name, value in record.items() if name not in OF_THE_RUN}
    image.save_png(picture, pixels, metadata=inside)
    try:
        files.write_json(record_path(picture), record)
    except BaseException:
        picture.unlink(missing_ok=True)
        raise


def is_finished(picture: Path, key: str) -> bool:
    """True if the picture is there with a record that carries this key."""
    try:
        record = read_object(record_path(picture))
    except files.InputError:
        return False
    return picture.is_file() and record.get("key") == key
