"""What stands at a path, as far as the names of files and folders tell."""

from __future__ import annotations

import errno
import os
import re
import stat
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
            raise TargetError(wrong_path(path, error.errno)) from None
        return Path(real)  # not there yet, or for writing to find out
    kind = KINDS.get(stat.S_IFMT(mode))
    if kind is not None:
        raise TargetError(f"{path}: is {kind}, not a file that could be replaced")
    return Path(real)


def wrong_path(path: str | os.PathLike, number: int) -> str:
    """One line for an error number of WRONG_PATHS; names what stands where a folder should."""
    if number != errno.ENOTDIR:
        return f"{path}: {WRONG_PATHS[number]}"
    above = next((p for p in (Path(path), *Path(path).parents) if os.path.exists(p)), Path(path))
    with suppress(OSError):
        kind = KINDS.get(stat.S_IFMT(os.stat(above).st_mode), "a file")
        return f"{path}: {'' if above == Path(path) else f'{above} is '}{kind}, not a folder"
    return f"{path}: {WRONG_PATHS[number]}"
