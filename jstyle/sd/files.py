"""Files that are either complete or absent, and asked what they are before they are opened."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from . import parts, places

WORDS = {
    errno.ENOSPC: "disk full (No space left on device)",
    errno.EDQUOT: "disk quota used up (Disk quota exceeded)",
}


class WriteError(OSError):
    """A file or folder that the system does not let us write; names it in one line."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}" if self.filename else super().__str__()


@contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Name `path` in the system's errors in the block that name no file, or a hidden one.

    Raises WriteError for those.
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        named = error.filename
        if named is not None and str(named) != str(path) and not parts.is_hidden(named):
            raise
        gone = "its folder is not there" if error.errno == errno.ENOENT else None
        raise WriteError(error.errno, gone or _reason(error), str(path)) from None


def _reason(error: OSError) -> str:
    return WORDS.get(error.errno) or error.strerror or str(error) or type(error).__name__


class InputError(ValueError):
    """Something handed in that cannot be opened or read; one line: which, why, what is asked."""


class MissingFile(InputError, FileNotFoundError):
    """There is nothing under that name."""


def require_file(path: str | os.PathLike) -> Path:
    """The path of a regular file, or of a link to one; asked before anything opens it.

    Raises InputError naming it when it is empty, not UTF-8, a folder, a pipe, a device or cannot
    be looked at; MissingFile, which is also a FileNotFoundError, when there is nothing.
    """
    mode = _mode(path)
    if not stat.S_ISREG(mode):
        kind = places.KINDS.get(stat.S_IFMT(mode), "something else")
        raise InputError(f"{path}: {kind}, not a file")
    return Path(path)


def require_folder(path: str | os.PathLike) -> Path:
    """The path of a folder that is there. Raises InputError or MissingFile like require_file."""
    mode = _mode(path, "folder")
    if not stat.S_ISDIR(mode):
        kind = places.KINDS.get(stat.S_IFMT(mode), "a file")
        raise InputError(f"{path}: {kind}, not a folder")
    return Path(path)


def _mode(path: str | os.PathLike, wanted: str = "file") -> int:
    require_name(path)
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFile(f"{path}: no such {wanted}") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{path}: cannot be read ({reason})") from None


def require_name(path: str | os.PathLike) -> None:
    """Raise InputError for a path that is empty, holds a NUL character or is not UTF-8.

    Names of other encodings would get into JSON, PNG and HTML files, which are UTF-8.
    """
    text = os.fspath(path)
    if not text:
        raise InputError("an empty path, which would mean the current folder")
    if "\0" in text:
        raise InputError(f"{text!r}: a path cannot hold a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{text!r}: the name is not UTF-8; rename it") from None


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Yield an empty hidden file beside `path`; it becomes `path` when the block succeeds.

    On any error, Ctrl-C included, the hidden file is removed and `path` is left as it was. A link
    is followed; a character device or an open descriptor gets the bytes when the block succeeds.
    Raises TargetError for anything else that is no file, WriteError when the folder is missing,
    cannot be written or is full.
    """
    path = Path(path)
    if places.is_stream(path):
        with tempfile.TemporaryDirectory(prefix="jstyle-") as folder:
            part = Path(folder) / f"part{path.suffix}"
            yield part
            _send(part, path)
        return
    place = places.file_place(path)
    with naming(path), parts.unfinished(place) as part:
        yield part
        with open(part, "rb") as file:
            os.fsync(file.fileno())  # a full disk may speak up only here, before the rename
        os.replace(part, place)


def _send(part: Path, path: Path) -> None:
    """Write the file into a device or an open descriptor."""
    number = places.descriptor(path)
    sys.stdout.flush()
    with naming(path):
        with open(path if number is None else os.dup(number), "wb") as stream:
            with open(part, "rb") as file:
                shutil.copyfileobj(file, stream)


def write_json(path: str | os.PathLike, obj: Any) -> None:
    """Write `obj` as indented UTF-8 JSON, atomically. Raises TypeError before touching the disk.

    What is no text in UTF-8, as parts of file names can be, is escaped and reads back the same.
    """
    text = json_text(obj)
    with atomic_write(path) as part:
        write_text(part, text)


def json_text(obj: Any) -> str:
    return json.dumps(obj, indent=2, ensure_ascii=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 with the ends of lines as they are; what is no text in UTF-8 is escaped."""
    path.write_bytes(text.encode("utf-8", "backslashreplace"))


def writable_folder(path: str | os.PathLike) -> Path:
    """Create the folder if need be and try a write.

    Raises TargetError if it or a part of its path is something else, WriteError if it cannot be
    made or written; both in one line that names it.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with parts.unfinished(folder / "probe") as probe:
            probe.write_bytes(b"1")
    except (FileExistsError, NotADirectoryError):
        raise places.TargetError(places.wrong_path(folder, errno.ENOTDIR)) from None
    except OSError as error:
        if error.errno in places.WRONG_PATHS:
            raise places.TargetError(places.wrong_path(folder, error.errno)) from None
        raise WriteError(f"{folder}: cannot write here ({_reason(error).lower()})") from None
    return folder


@contextmanager
def output_folder(path: str | os.PathLike) -> Iterator[Path]:
    """`writable_folder` for the time of the work: if it is made here, it and the folders below are
    removed again where the work has left them empty."""
    folder = Path(path)
    made = [p for p in (folder, *folder.parents) if not os.path.exists(p)]
    try:
        yield writable_folder(folder)
    finally:
        if made:
            for below, _, _ in os.walk(folder, topdown=False):
                with suppress(OSError):  # not empty
                    os.rmdir(below)
        with suppress(OSError):
            for above in made[1:]:
                above.rmdir()
