"""Where recorded features are kept: in memory, in a file, or nowhere.

At 512 px, 50 steps and six sites one pair's queries, keys and values are 1.65 GiB in float16 and
3.30 GiB in float32; the process grew by 1.69 GiB when it held the former, by 0.08 GiB with the
file. A file costs reading back, features that are computed again two more images per evaluation.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .features import FeatureBank
from .machine import free_disk_bytes, free_memory_bytes
from .memory.features import ITEM_BYTES, feature_bytes, level_of  # noqa: F401  # was here
from .sd.files import naming
from .sd.startup import jt

SHARE = 2  # features may take one in so many of the free bytes, where nothing else is known
MARGIN, RESERVE = 1.15, 256 << 20  # what a plan may be off, and what is left to everybody else
SWITCH = "(--features disk; recompute needs no room there)"


def choose(
    nbytes: int, folder: str | os.PathLike[str] | None = None, working: int | None = None
) -> tuple[str, str]:
    """("memory", "disk" or "recompute", the reason in words) for features of `nbytes` bytes.

    They are kept in memory where the evaluations, which need `working` bytes by plan, have room
    beside them; without a plan they may take half of what is free. Else half of what is free where
    `folder` is.
    """
    memory, disk = _free_memory(), free_disk_bytes(Path(folder or tempfile.gettempdir()))
    what = f"recorded features, {gib(nbytes)}, are "
    wanted = nbytes * SHARE if working is None else nbytes + MARGIN * working + RESERVE
    if wanted <= memory:
        return "memory", f"{what}kept in memory ({gib(memory)} free)"
    if nbytes * SHARE <= disk:
        return "disk", f"{what}kept on disk ({gib(disk)} free; only {gib(memory)} of memory)"
    free = f"only {gib(memory)} of memory and {gib(disk)} of disk free"
    return "recompute", f"{what}computed again when they are needed ({free})"


def _free_memory() -> int:
    """Bytes free where Vars are: on the GPU what Jittor has not taken itself."""
    if not jt.flags.use_cuda:
        return free_memory_bytes()
    info = jt.get_mem_info()
    return info.total_cuda_ram - info.total_cuda_used


def gib(nbytes: int) -> str:
    return f"{nbytes / 2**30:.2f} GiB"


def _nameless_file(folder: str | os.PathLike[str]):
    """Unbuffered, so that what a full disk has refused is not tried again when it is closed."""
    try:
        return tempfile.TemporaryFile(prefix="jstyle-features-", dir=folder, buffering=0)
    except OSError as error:
        error.filename = None  # which nobody gave
        raise


class DiskBank(FeatureBank):
    """A FeatureBank in a file without a name, which goes with the bank or the process.

    Features of one evaluation stay in memory until `settle`; those read back are copied out of the
    mapped file, whose pages are let go at once. folder: where the file is; None: for temporary
    files. The bytes are those of a bank in memory.
    """

    def __init__(self, dtype: str = "float32", folder: str | os.PathLike[str] | None = None):
        super().__init__(dtype)
        where = tempfile.gettempdir() if folder is None else folder
        self._told = f"{where} {SWITCH}"
        with naming(self._told):
            self._file = _nameless_file(where)
        self._places: dict[tuple[str, str, float], tuple[int, tuple[int, ...]]] = {}
        self._map: mmap.mmap | None = None

    def settle(self) -> None:
        if not self._features:
            return
        with naming(self._told):
            self._file.seek(0, 2)
            for key, value in self._features.items():
                values = np.ascontiguousarray(value.numpy())
                self._places[key] = self._file.tell(), values.shape
                left = values.data.cast("B")
                while left:
                    left = left[self._file.write(left) :]
        self._features.clear()
        self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)

    def _stored(self, key: tuple[str, str, float]) -> jt.Var:
        if key not in self._places:
            return super()._stored(key)
        offset, shape = self._places[key]
        count = int(np.prod(shape))
        values = np.frombuffer(self._map, self.dtype, count, offset).reshape(shape).copy()
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
        return jt.array(values)

    def __iter__(self) -> Iterator[tuple[str, str, float]]:
        yield from self._places
        yield from self._features

    @property
    def nbytes(self) -> int:
        kept = sum(int(np.prod(shape)) for _, shape in self._places.values())
        return super().nbytes + ITEM_BYTES[self.dtype] * kept
