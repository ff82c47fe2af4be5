"""Locks that are files. A lock goes with its process, also with a killed one, and is not handed
down to its children; where a file system has none, nothing is held."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from . import ending, files, parts

log = logging.getLogger("jstyle")

TAKEN = (errno.EAGAIN, errno.EACCES)


class Taken(Exception):
    """Another process holds the lock."""


@contextmanager
def holding(path: Path, wait: bool) -> Iterator[None]:
    """Hold the lock of a hidden file, which is made for it and goes with it.

    wait: for a process that holds it; otherwise Taken is raised. Raises WriteError.
    """
    handle = _take(path, wait)
    ending.unfinished(path)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        ending.finished(path)
        os.close(handle)


def _take(path: Path, wait: bool) -> int:
    while True:
        with files.naming(path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _lock(handle, wait, path)
            if parts.is_at(handle, path):
                return handle  # else the one before has just removed it
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock(handle: int, wait: bool, path: Path) -> None:
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in TAKEN:
            raise Taken(str(path)) from None
        log.info("%s: cannot be locked; nothing else may work there", path.parent)
