"""Where results may be written, asked before the work begins.

A file is written under a name that is free, that of an empty file, or that of an earlier result,
which `is_ours` knows by what is in it. Links are followed. Character devices and the descriptors
of the process, such as /dev/null and /dev/stdout, are written through. Everything else (a folder,
a pipe, a socket, a disk, somebody's own file) is refused.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from . import reading
from .places import LONGEST_NAME, TargetError, file_place, is_stream

CHUNK = b"tEXtjstyle\0"  # in the PNG files that this project writes
GENERATOR = '<meta name="generator" content="jstyle">'  # in its HTML files
LORA_KEY = "jstyle_lora"  # in the headers of its LoRA files
MODEL_KEY = "jstyle.model"  # in the metadata of a model in one file
ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # of every entry in its zip files: the earliest that there is
JSON_MARKS = (  # keys, all of which one of its JSON files has
    {"jstyle", "command"},  # the record of a picture
    {"missing", "why", "images"},  # jstyle score
    {"passed", "first_jump", "injected_fault", "stages"},  # jstyle parity
    {"format", "version", "stages"},  # its recordings
    {"recipe", "pictures"},  # jdreambooth generate
    {"instance_dir", "learning_rate", "save_at"},  # the configuration of a run
    {"root", "config_folder", "values", "fingerprint"},  # of jdreambooth contest run
)
TABLES = (  # how the first lines of its tables begin: of compare, and of contest grade
    b"content,style,method,",
    b"rank,submission,state,",
    b"submission,kind,line",
)
MOST_READ = 1 << 28  # bytes of a file that is looked into


def require_free(
    paths: Iterable[str | os.PathLike],
    overwrite: bool = False,
    inputs: Iterable[str | os.PathLike] = (),
) -> None:
    """Raise TargetError for the first path where no result may be written.

    overwrite: other people's files may be replaced as well, but no inputs.
    """
    read = {_identity(path) for path in inputs} - {None}
    for path in paths:
        if is_stream(path):
            continue
        place = file_place(path)
        if _identity(place) in read:
            raise TargetError(f"{path}: is also an input; give another name")
        if not overwrite and os.path.exists(place) and not is_ours(place):
            raise TargetError(
                f"{path}: is there already and no result of this program; give another name, or "
                "--overwrite to replace it"
            )


def _identity(path: str | os.PathLike) -> tuple[int, int] | None:
    with suppress(OSError):
        found = os.stat(path)
        return found.st_dev, found.st_ino
    return None


def cut_name(stem: str, suffix: str) -> str:
    """stem + suffix; a stem with which this, or a .json beside it, would be too long for a file
    system is cut and gets a hash of the whole."""
    most, data = LONGEST_NAME - max(len(suffix), len(".json")), os.fsencode(stem)
    if len(data) > most:
        mark = hashlib.sha256(data).hexdigest()[:8]
        stem = f"{data[: most - 9].decode(errors='ignore')}_{mark}"
    return stem + suffix


def stylized_name(content: Path, style: Path) -> str:
    """What the result of stylising one picture file by another is called."""
    return cut_name(f"{content.stem}_stylized_{style.stem}", ".png")


def is_ours(path: Path) -> bool:
    """True if replacing the file loses nothing but an earlier result: it is one, or is empty."""
    try:
        size = path.stat().st_size
        suffix = path.suffix.lower()
        read = MOST_READ if suffix != ".safetensors" else size  # of those only the header is
        return size == 0 or size <= read and _CHECKS[suffix](path)
    except (KeyError, OSError, ValueError, RecursionError, struct.error, zipfile.BadZipFile):
        return False


def _is_our_png(path: Path) -> bool:
    """By its text chunk, which stands before the pixels, or by the record beside it."""
    with open(path, "rb") as file:
        head = file.read(1 << 20).split(b"IDAT", 1)[0]
    record = path.with_suffix(".json")
    return CHUNK in head or record.is_file() and _is_our_json(record)


def _is_our_json(path: Path) -> bool:
    found = reading.parse_json(reading.read_text(path, MOST_READ), path)
    return isinstance(found, dict) and any(mark <= found.keys() for mark in JSON_MARKS)


def _is_our_lines(path: Path) -> bool:
    """The captions that `jdreambooth draw` writes."""
    return all({"file", "caption", "object", "seed"} <= line.keys() for line in _objects(path))


def _objects(path: Path) -> list[dict]:
    """One for each line of a file."""
    found = [reading.parse_json(line, path) for line in reading.read_lines(path, MOST_READ)]
    if not all(isinstance(one, dict) for one in found):
        raise ValueError(f"{path}: not an object in every line")
    return found


def drawn(captions: Path) -> set[str]:
    """The names of the pictures that `jdreambooth draw` has made beside this file."""
    return {line["file"] for line in _objects(captions)} if is_ours(captions) else set()


def _is_our_safetensors(path: Path) -> bool:
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = reading.parse_json(reading.decode(file.read(min(length, MOST_READ)), path), path)
    return not {LORA_KEY, MODEL_KEY}.isdisjoint(header.get("__metadata__", {}))


def _is_our_zip(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return all(
            entry.date_time == ZIP_DATE and entry.compress_type == zipfile.ZIP_STORED
            for entry in archive.infolist()
        )


def _is_our_table(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.readline(1 << 12).startswith(TABLES)


def _is_our_page(path: Path) -> bool:
    with open(path, "rb") as file:
        return GENERATOR.encode() in file.read(1 << 12)


_CHECKS = {
    ".png": _is_our_png,
    ".json": _is_our_json,
    ".jsonl": _is_our_lines,
    ".safetensors": _is_our_safetensors,
    ".zip": _is_our_zip,
    ".html": _is_our_page,
    ".csv": _is_our_table,
}
