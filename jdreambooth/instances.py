"""The pictures to learn as people have them: one folder, or kohya's numbered folders in one.

    FOLDER/*.png                       every picture as often as any other
    FOLDER/10_sks fox/*.png            drawn ten times where others are drawn once; "sks fox" is
                                       what they show, unless they have captions of their own

Needs no backbone, so a plan can be checked without one.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import NamedTuple

from jstyle.sd import image
from jstyle.sd.image import ImageError
from jstyle.sd.picture_files import (
    holds_pictures,
    is_clutter,
    list_images,
    listed,
    pictures_in,
    tell_once,
)

log = logging.getLogger("jdreambooth")

NUMBERED = re.compile(r"(\d+)_(.*)", re.DOTALL)
MOST_REPEATS = 1000  # a round of the data holds every picture that often


class Instance(NamedTuple):
    """A picture to learn. name: within the folder that was given. words: of a numbered folder."""

    path: Path
    name: str
    repeats: int = 1
    words: str | None = None


def find_instances(folder: str | Path, skip_bad: bool = False) -> list[Instance]:
    """The pictures by name, those of numbered folders where there are none beside these.

    Raises ImageError if there are none, or one is bad. skip_bad: see readable_images.
    """
    folder = Path(folder)
    numbered = [] if holds_pictures(folder) else _numbered(folder)
    if not numbered:
        words = _parsed(folder.resolve())[1]
        paths = readable_images(folder, skip_bad)
        return [Instance(path, path.name, 1, words) for path in paths]
    return [
        Instance(path, f"{below.name}/{path.name}", repeats, words)
        for below, repeats, words in numbered
        for path in readable_images(below, skip_bad)
    ]


def _numbered(folder: Path) -> list[tuple[Path, int, str]]:
    """Folders called REPEATS_WORDS that hold pictures. Others with pictures are told."""
    if not folder.is_dir():
        return []
    below = sorted(p for p in folder.iterdir() if p.is_dir() and not is_clutter(p.name))
    below = [path for path in below if holds_pictures(path)]
    found = [(path, *_parsed(path)) for path in below]
    taken = [(path, repeats, words) for path, repeats, words in found if repeats]
    for path, repeats, _ in taken:
        if repeats > MOST_REPEATS:
            raise ImageError(f"{path}: {repeats} repeats; at most {MOST_REPEATS} are possible")
    if taken:
        pictures_in(folder, subfolders=True)  # tells what else lies there
    others = [path for path, repeats, _ in found if not repeats]
    if taken and others:
        tell_once(f"{folder}: left out {listed(others)}; folders of pictures are named 10_WORDS")
    return taken


def _parsed(folder: Path) -> tuple[int, str | None]:
    """(10, "sks fox") of "10_sks fox"; (0, None) of other names."""
    match = NUMBERED.fullmatch(folder.name)
    if match is None:
        return 0, None
    return int(match[1]), " ".join(match[2].replace("_", " ").split()) or None


def readable_images(folder: str | Path, skip_bad: bool = False) -> list[Path]:
    """The pictures of a folder by name. Raises ImageError if there are none, or one is bad.

    skip_bad: leave bad ones out, with a warning, as long as any is good.
    """
    good = []
    for path in list_images(folder):
        try:
            image.read_rgb(path)
            good.append(path)
        except ImageError as error:
            if not skip_bad:
                raise ImageError(f"{error}; skip_bad_images leaves such files out") from None
            log.warning("left out: %s", error)
    if not good:
        raise ImageError(f"{folder}: none of the images can be read")
    return good


def told(pictures: list[Instance]) -> str:
    """How many there are, and how often those of which folder are drawn."""
    folders: dict[str, list[Instance]] = {}
    for picture in pictures:
        folders.setdefault(picture.path.parent.name, []).append(picture)
    total = f"{len(pictures)} picture{'' if len(pictures) == 1 else 's'}"
    if len(pictures) == 0 or "/" not in pictures[0].name:
        return total
    parts = [f"{name}: {len(own)} x {own[0].repeats}" for name, own in folders.items()]
    return f"{total} ({', '.join(parts)})"
