"""Folders that are either complete or absent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import ending, parts
from .files import WriteError, naming, output_folder, writable_folder


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Yield a hidden folder beside `path`, which becomes `path` when the block succeeds.

    On any error the hidden folder is removed, and what `path` was stays. Raises WriteError.
    """
    path = Path(path)
    with _hidden(path, path) as part:
        yield part
        _sync_folder(part)
        with ending.whole():
            remove_folder(path)
            os.rename(part, path)
        _sync_folder(path.parent)


@contextmanager
def filled_folder(path: str | Path, last: str = "") -> Iterator[Path]:
    """Yield a hidden folder in `path`, whose files go to the same places in `path` when the block
    succeeds, the one called `last` after all others; other files there stay.

    On any error nothing of it is left. Raises TargetError or WriteError.
    """
    with output_folder(path) as folder, _hidden(folder / "part", folder) as part:
        yield part
        names = [p.relative_to(part) for p in sorted(part.rglob("*")) if not p.is_dir()]
        with ending.whole():
            for name in sorted(names, key=lambda name: str(name) == last):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(part / name, folder / name)


@contextmanager
def _hidden(beside: Path, path: Path) -> Iterator[Path]:
    """A hidden folder, for which errors name `path`."""
    writable_folder(beside.parent)
    with parts.unfinished(beside, is_folder=True) as part, naming(path):
        try:
            yield part
        except WriteError as error:
            inside = str(error.filename or "").removeprefix(f"{part}{os.sep}")
            if inside != (error.filename or ""):
                error.filename = str(path / inside)
            raise


def remove_folder(path: Path) -> None:
    """Remove a folder so that no half of it is ever seen under its name."""
    if path.exists():
        with parts.unfinished(path, is_folder=True) as gone:
            os.rename(path, gone / "gone")


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
