"""Features of pictures, kept on the disk under the picture's content.

    FOLDER/METRIC-0123456789abcdef/CONTENT.npy

The number behind the metric's name stands for everything else the features depend on: this
version of the package, the metric's variant and its weight files. A picture that was moved or
renamed is found again, one that was changed is not.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from .. import __version__
from ..sd.files import atomic_write
from .pictures import read_rgb

SAMPLES, SAMPLE_BYTES = 64, 1 << 14  # of a weights file: files up to 1 MiB are read whole
BATCH = 8  # pictures in one evaluation of a network


def default_folder() -> Path:
    """Where features lie without --cache: the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "jstyle" / "features"


def content_of(path: Path) -> str:
    """A name for the file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:40]


def identity(*parts: object) -> str:
    """A short name for the values, which must fit into JSON, and this version of the package."""
    text = json.dumps([__version__, *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint(path: Path) -> list:
    """What tells one set of weights from another, without reading all of them: names, sizes, and
    bytes from places all over each file. Times are not asked, which copies and clocks change."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return [[p.name, p.stat().st_size, _sampled(p)] for p in files]


def _sampled(path: Path) -> str:
    digest, size = hashlib.sha256(), path.stat().st_size
    with open(path, "rb") as file:
        for i in range(SAMPLES):
            file.seek(max(0, size - SAMPLE_BYTES) * i // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]


class FeatureCache:
    """Arrays by metric and content; `folder` None keeps nothing."""

    def __init__(self, folder: str | os.PathLike | None):
        self.folder = None if folder is None else Path(folder)
        self._contents: dict[Path, str] = {}

    def content(self, path: Path) -> str:
        """As content_of; each path is read once."""
        if path not in self._contents:
            self._contents[path] = content_of(path)
        return self._contents[path]

    def get(self, metric: str, content: str) -> np.ndarray | None:
        """None if it is not there, or not whole."""
        if self.folder is None:
            return None
        try:
            return np.load(self._path(metric, content), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None

    def put(self, metric: str, content: str, values: np.ndarray) -> None:
        if self.folder is None:
            return
        path = self._path(metric, content)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as part:
            np.save(part, values, allow_pickle=False)

    def _path(self, metric: str, content: str) -> Path:
        return self.folder / metric / f"{content}.npy"


def features_of(
    paths: Sequence[Path],
    compute: Callable[[np.ndarray], np.ndarray],
    cache: FeatureCache,
    metric: str,
    done: Callable[[int], object] = lambda count: None,
) -> np.ndarray:
    """float32 (len(paths), ...): cached, or computed from uint8 (B, H, W, 3) and put there.

    At most BATCH pictures are in memory, and pictures of one batch have one size.
    done: told how many more pictures are finished.
    """
    found: dict[Path, np.ndarray] = {}
    missing = []
    for path in dict.fromkeys(paths):
        values = cache.get(metric, cache.content(path))
        if values is None:
            missing.append(path)
        else:
            found[path] = values
    done(len(found))
    for group in _batches(missing):
        values = np.asarray(compute(np.stack([pixels for _, pixels in group])), np.float32)
        for (path, _), row in zip(group, values, strict=True):
            found[path] = row
            cache.put(metric, cache.content(path), row)
        done(len(group))
    return np.stack([found[path] for path in paths])


def _batches(paths: Iterable[Path]) -> Iterable[list[tuple[Path, np.ndarray]]]:
    """Read up to BATCH pictures of one size at a time."""
    group: list[tuple[Path, np.ndarray]] = []
    for path in paths:
        pixels = read_rgb(path)
        if group and (len(group) == BATCH or group[0][1].shape != pixels.shape):
            yield group
            group = []
        group.append((path, pixels))
    if group:
        yield group
