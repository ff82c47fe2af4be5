"""Files that are either complete or absent."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from . import ending


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a hidden temporary path beside `path`; it becomes `path` when the block succeeds.

    On any error, Ctrl-C included, the temporary file is removed and `path` is left as it was.
    Raises OSError when the folder is missing, cannot be written or is full.
    """
    path = Path(path)
    part = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")  # savers look at the suffix
    ending.unfinished(part)
    try:
        yield part
        with open(part, "rb") as file:
            os.fsync(file.fileno())  # a full disk may speak up only here, before the rename
        os.replace(part, path)
    finally:
        with suppress(FileNotFoundError):  # gone already after the rename
            part.unlink()
        ending.finished(part)


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
