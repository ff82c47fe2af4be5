"""Which files are pictures, and how one is opened: by a few named decoders and no others.

Pillow knows formats whose decoders start other programs (EPS: Ghostscript) or hand a file to
handlers that somebody registered (WMF, GRIB, BUFR, HDF5). It goes by the content, so a name in
.png is no protection; only the list of formats is.
"""

from __future__ import annotations

import logging
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from .files import InputError, require_file, require_folder, require_name
from .limits import switched
from .printable import listing, reason_of

log = logging.getLogger("jstyle")

READ = {  # decoder -> suffixes; all of them turn bytes into pixels inside this process
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc"),
}
if find_spec("PIL._avif") is not None:  # not in every Pillow
    READ["AVIF"] = (".avif",)
FORMATS = tuple(READ)
SUFFIXES = tuple(suffix for suffixes in READ.values() for suffix in suffixes)

_RAW = (".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw")
_LAYERS = (".psd", ".psb", ".xcf", ".kra", ".ora", ".clip")
_DRAWN = (".svg", ".svgz", ".ai", ".eps", ".ps", ".pdf", ".wmf", ".emf")
_OTHER = (".jxl", ".avif", ".avifs", ".tga", ".exr", ".hdr", ".pfm", ".ico", ".icns", ".dds")
_OTHER += (".dib", ".pcx", ".qoi", ".sgi", ".xbm", ".xpm", ".fits", ".jxr")
HEIC = "HEIC is not read here; convert it, for example: heif-convert IN.heic OUT.png"
LAYERS = "a file with layers is not read here; save a flat copy as PNG"
DRAWN = "a page or drawing is not read here; save it as PNG, as large as you want it"
NOT_READ = {  # suffix -> why such a picture is left out, and what to do
    **dict.fromkeys((".heic", ".heif", ".hif"), HEIC),
    **dict.fromkeys(_RAW, "a camera's raw file is not read here; develop it to PNG or TIFF"),
    **dict.fromkeys(_LAYERS, LAYERS),
    **dict.fromkeys(_DRAWN, DRAWN),
    **{s: f"{s[1:]} is not read here; save it as PNG" for s in _OTHER if s not in SUFFIXES},
}
INSIDE = ((b"%!PS", DRAWN), (b"%PDF", DRAWN), (b"<svg", DRAWN), (b"8BPS", LAYERS))
HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
SYSTEM_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini")
SYSTEM_FOLDERS = ("__macosx", "@eadir")
MOST_LINES = 10  # for files of a folder that are left out for the same reason

MAX_PIXELS = 120_000_000  # 0.5 GB decoded; the largest phone cameras have 108 millions
PIXELS_SWITCH = "JSTYLE_MAX_PIXELS"
DECODE_ERRORS = (OSError, EOFError, SyntaxError, ValueError, IndexError, KeyError, struct.error)


class ImageError(ValueError):
    """A file that cannot be used as an image; one line that names it."""


def max_pixels() -> int:
    """Most pixels of a picture that is decoded. Raises ImageError for a bad JSTYLE_MAX_PIXELS."""
    try:
        return switched(PIXELS_SWITCH, MAX_PIXELS, 1, "a number of pixels above 0")
    except ValueError as error:
        raise ImageError(str(error)) from None


@contextmanager
def own_bound() -> Iterator[None]:
    """Without Pillow's bound on pixels, which is another one, and its remarks on odd metadata."""
    before = Image.MAX_IMAGE_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.MAX_IMAGE_PIXELS = None
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def open_picture(path: str | os.PathLike) -> Image.Image:
    """The picture with its size and metadata; its pixels are decoded when they are asked for.

    Raises ImageError for what is no regular file, has too many pixels, or none of FORMATS.
    """
    most = max_pixels()
    try:
        if Path(path).is_dir():
            raise ImageError(f"{path}: is a folder, not an image file")
        with own_bound():
            image = Image.open(require_file(path), formats=FORMATS)
    except InputError as error:
        raise ImageError(str(error)) from None
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except PermissionError:
        raise ImageError(f"{path}: no permission to read it") from None
    except UnidentifiedImageError:
        raise ImageError(f"{path}: {_kind_of(Path(path))}") from None
    except ImageError:
        raise
    except DECODE_ERRORS as error:
        raise ImageError(f"{path}: is not a readable image ({reason_of(error)})") from None
    if image.width * image.height > most:
        image.close()
        raise ImageError(
            f"{path}: is too large, {image.width} x {image.height} are more than {most} pixels; "
            f"make it smaller, or set {PIXELS_SWITCH} higher"
        )
    return image


def _kind_of(path: Path) -> str:
    """What a file is that no decoder of ours takes."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError:
        head = b"?"
    if not head:
        return "is empty"
    if head[4:8] == b"ftyp" and head[8:12] in HEIC_BRANDS:
        return HEIC
    return next((why for mark, why in INSIDE if head.startswith(mark)), "is not an image")


def is_clutter(name: str) -> bool:
    """Files and folders that systems and editors leave behind, hidden ones above all."""
    return name.startswith(".") or name.casefold() in (*SYSTEM_FILES, *SYSTEM_FOLDERS)


def is_picture(path: Path) -> bool:
    """Whether the name is that of a picture which can be read."""
    return path.suffix.lower() in SUFFIXES and not is_clutter(path.name)


def holds_pictures(folder: Path) -> bool:
    """Whether any picture lies directly in the folder. False where that cannot be seen."""
    try:
        return any(is_picture(path) and path.is_file() for path in folder.iterdir())
    except OSError:
        return False


def pictures_in(folder: str | os.PathLike, subfolders: bool = False) -> list[Path]:
    """The pictures of a folder by suffix, not of its subfolders, sorted by name; maybe none.

    A line in the log for everything like a picture that is left out; none for clutter, and none
    for subfolders with pictures if the caller looks into these.
    Raises ImageError for what is no folder, and for a picture whose name is not UTF-8.
    """
    kept, left_out, deeper = [], {}, []
    try:
        folder = require_folder(folder)
        for path in sorted(folder.iterdir(), key=lambda path: path.name):
            if is_clutter(path.name):
                continue
            if path.is_dir():
                deeper += [path] * holds_pictures(path)
            elif why := _why_not(path):
                left_out.setdefault(why, []).append(path)
            elif is_picture(path):
                require_name(path)
                kept.append(path)
    except InputError as error:
        raise ImageError(str(error)) from None
    for why, paths in left_out.items():
        _tell_left_out(folder, why, paths)
    if deeper and not subfolders:
        tell_once(f"{folder}: not looked into {listed(deeper)}, where there are pictures too")
    return kept


def list_images(folder: str | os.PathLike) -> list[Path]:
    """As `pictures_in`; raises ImageError also when there are none."""
    paths = pictures_in(folder)
    if not paths:
        kinds = ", ".join(suffix[1:] for suffix in SUFFIXES)
        raise ImageError(f"{folder}: no images in this folder (looked for {kinds})")
    return paths


def _why_not(path: Path) -> str | None:
    """Why something that looks like a picture is none that can be taken."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES and suffix not in NOT_READ:
        return None
    if path.is_symlink() and not path.exists():
        return "a link to what is not there"
    if not path.is_file():
        return "not a regular file"
    return NOT_READ.get(suffix)


def _tell_left_out(folder: Path, why: str, paths: list[Path]) -> None:
    for path in paths[:MOST_LINES]:
        tell_once(f"left out: {path}: {why}")
    if len(paths) > MOST_LINES:
        tell_once(f"left out: {folder}: {len(paths) - MOST_LINES} more files: {why}")


def listed(paths: list[Path], most: int = 3) -> str:
    """The first names, and how many more there are."""
    return listing([path.name for path in paths], most)


@lru_cache(maxsize=4096)
def tell_once(line: str) -> None:
    """Warn; a command looks into a folder more than once, and its lines should not come again."""
    log.warning("%s", line)
