"""A small file system of its own, for what a full disk does."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: str = "64k") -> Iterator[Path]:
    """Mount a tmpfs of this size at `folder`; the test is skipped where that is not allowed."""
    folder.mkdir()
    words = ("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        done = subprocess.run(words, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"NOT CHECKED: a full disk; no mount command ({error})")
    if done.returncode:
        pytest.skip(f"NOT CHECKED: a full disk; mounting is not allowed ({done.stderr.strip()})")
    try:
        yield folder
    finally:
        subprocess.run(("umount", "-l", str(folder)), check=True)
