"""Files that are either complete or absent, and asked what they are before they are opened."""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

KINDS = {  # what stands where a file should; opening a pipe waits, a device may never end
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


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
        kind = KINDS.get(stat.S_IFMT(mode), "something else")
        raise InputError(f"{path}: {kind}, not a file")
    return Path(path)


def require_folder(path: str | os.PathLike) -> Path:
    """The path of a folder that is there. Raises InputError or MissingFile like require_file."""
    mode = _mode(path, "folder")
    if not stat.S_ISDIR(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "a file")
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
    """Yield a hidden temporary path beside `path`; it becomes `path` when the block succeeds.

    On any error, Ctrl-C included, the temporary file is removed and `path` is left as it was.
    Raises OSError when the folder is missing, cannot be written or is full.
    """
    path = Path(path)
    part = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")  # savers look at the suffix
    try:
        yield part
        with open(part, "rb") as file:
            os.fsync(file.fileno())  # a full disk may speak up only here, before the rename
        os.replace(part, path)
    finally:
        with suppress(FileNotFoundError):  # gone already after the rename
            part.unlink()


def write_json(path: str | os.PathLike, obj: Any) -> None:
    """Write `obj` as indented UTF-8 JSON, atomically. Raises TypeError before touching the disk."""
    text = json.dumps(obj, indent=2, ensure_ascii=False) + "\n"
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


def writable_folder(path: str | os.PathLike) -> Path:
    """Create the folder if need be and try a write. Raises OSError with one line that names it."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{secrets.token_hex(6)}.probe"
        try:
            probe.write_bytes(b"1")
        finally:
            with suppress(FileNotFoundError):
                probe.unlink()
    except FileExistsError:
        raise NotADirectoryError(f"{folder}: not a folder") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise type(error)(f"{folder}: cannot write here ({reason})") from None
    return folder
