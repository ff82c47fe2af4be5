"""Files and folders that are not finished yet, under hidden names beside what they will become.

A process holds a lock on each of its own, `.jstyle-0123456789abcdef.part.png`. The lock goes with
the process, also with a killed one, so what can be locked belongs to nobody and may be removed;
neither clocks nor process numbers are asked. Where a file system has no locks nothing is removed.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from . import ending

PART = re.compile(r"\.jstyle-[0-9a-f]{16}\.part(\.\w+)?")
SUFFIX = re.compile(r"\.\w{1,16}")  # savers look at it; longer ones might make the name too long
_swept: set[str] = set()


@contextmanager
def unfinished(target: Path, is_folder: bool = False) -> Iterator[Path]:
    """Yield an empty hidden file, or folder, beside `target`; whatever has its name afterwards is
    removed. Raises OSError if it cannot be made.

    The first one in a folder sweeps it.
    """
    where = os.path.abspath(target.parent)
    if where not in _swept:
        _swept.add(where)
        sweep(target.parent)
    suffix = target.suffix if not is_folder and SUFFIX.fullmatch(target.suffix) else ""
    path = target.with_name(f".jstyle-{secrets.token_hex(8)}.part{suffix}")
    ending.unfinished(path)
    handle = _make(path, is_folder)
    try:
        yield path
    finally:
        remove(path)
        os.close(handle)
        ending.finished(path)


def _make(path: Path, is_folder: bool) -> int:
    """Make it and lock it. A sweeper may have been faster than the lock; then once more."""
    while True:
        if is_folder:
            path.mkdir()
            handle = os.open(path, os.O_RDONLY)
        else:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if is_at(handle, path):
            return handle
        os.close(handle)


def is_at(handle: int, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def is_hidden(path: str | os.PathLike) -> bool:
    """True for an unfinished file or folder, and for what is in one."""
    return any(PART.fullmatch(name) for name in Path(os.fsdecode(path)).parts)


def remove(path: Path) -> None:
    """Remove a file or a folder, as far as that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def sweep(folder: Path, deep: bool = False) -> None:
    """Remove what processes that are gone had not finished; deep: in all folders below as well."""
    found = folder.rglob(".jstyle-*") if deep else folder.glob(".jstyle-*")
    with suppress(OSError):
        for path in sorted(found):
            if PART.fullmatch(path.name):
                _remove_unless_locked(path)


def _remove_unless_locked(path: Path) -> None:
    with suppress(OSError):
        mode = os.O_RDONLY if path.is_dir() else os.O_RDWR
        handle = os.open(path, mode | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(path)
        finally:
            os.close(handle)
