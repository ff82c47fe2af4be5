"""Where results may be written, asked before the work begins.

A file is written under a name that is free, that of an empty file, or that of an earlier result,
which `is_ours` knows by what is in it. Links are followed. Character devices and the descriptors
of the process, such as /dev/null and /dev/stdout, are written through. Everything else (a folder,
a pipe, a socket, a disk, somebody's own file) is refused.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import struct
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

LONGEST_NAME = 255  # bytes of a file's name
STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}
DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")
KINDS = {  # what stands where a file should; opening a pipe waits, a device may never end
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a disk",
    stat.S_IFCHR: "a device",
}
WRONG_PATHS = {
    errno.ENOTDIR: "what should be its folder is a file",
    errno.ENAMETOOLONG: f"the name is too long, file systems take {LONGEST_NAME} bytes",
    errno.ELOOP: "is a link that leads to itself",
}
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


class TargetError(ValueError):
    """A place where nothing may be written; one line that names it."""


def descriptor(path: str | os.PathLike) -> int | None:
    """The number of the open descriptor that the name stands for, such as 1 for /dev/stdout."""
    text = os.fspath(path)
    if text in STREAMS:
        return STREAMS[text]
    named = DESCRIPTOR.fullmatch(text)
    return int(named[1]) if named else None


def is_stream(path: str | os.PathLike) -> bool:
    """True for what is written through: an open descriptor, or a character device."""
    if descriptor(path) is not None:
        return True
    try:
        return stat.S_ISCHR(os.stat(path).st_mode)
    except OSError:
        return False


def file_place(path: str | os.PathLike) -> Path:
    """The end of the links from `path`, where a file may be written. Raises TargetError."""
    real = os.path.realpath(path)
    try:
        mode = os.stat(real).st_mode
    except OSError as error:
        if error.errno in WRONG_PATHS:
            raise TargetError(f"{path}: {WRONG_PATHS[error.errno]}") from None
        return Path(real)  # not there yet, or for writing to find out
    kind = KINDS.get(stat.S_IFMT(mode))
    if kind is not None:
        raise TargetError(f"{path}: is {kind}, not a file that could be replaced")
    return Path(real)


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
    found = json.loads(path.read_bytes())
    return isinstance(found, dict) and any(mark <= found.keys() for mark in JSON_MARKS)


def _is_our_lines(path: Path) -> bool:
    """The captions that `jdreambooth draw` writes."""
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    return all({"file", "caption", "object", "seed"} <= line.keys() for line in lines)


def _is_our_safetensors(path: Path) -> bool:
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(min(length, MOST_READ)))
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
