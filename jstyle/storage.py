"""Where recorded features are kept: in memory, in a file, or nowhere.

At 512 px, 50 steps and six sites one pair's queries, keys and values are 1.65 GiB in float16 and
3.30 GiB in float32; the process grew by 1.69 GiB when it held the former, by 0.08 GiB with the
file. A file costs reading back, features that are computed again two more images per evaluation.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from .features import FeatureBank
from .machine import free_disk_bytes, free_memory_bytes
from .sd.config import UNetConfig
from .sd.files import naming
from .sd.startup import jt

SHARE = 2  # features may take one in so many of the free bytes
SWITCH = "(--features disk; recompute needs no room there)"
ITEM_BYTES = {"float32": 4, "float16": 2}


def feature_bytes(
    config: UNetConfig,
    sites: Sequence[str],
    parts: str,
    timesteps: int,
    latent_size: tuple[int, int],
    dtype: str,
) -> int:
    """Bytes of what one image's inversion records, exactly.

    sites: full names of self-attentions; parts: letters of "qkv"; timesteps: how many are recorded;
    latent_size: (height, width) of its latent.
    """
    channels, numbers = config.block_out_channels, 0
    for site in sites:
        level = level_of(site, len(channels))
        numbers += channels[level] * (latent_size[0] >> level) * (latent_size[1] >> level)
    return numbers * len(parts) * timesteps * ITEM_BYTES[dtype]


def level_of(name: str, levels: int) -> int:
    """How often H and W have been halved where a module of the UNet stands, by its name."""
    place, index = name.split(".")[:2]
    if place == "mid_block":
        return levels - 1
    return levels - 1 - int(index) if place == "up_blocks" else int(index)


def choose(nbytes: int, folder: str | os.PathLike[str] | None = None) -> tuple[str, str]:
    """("memory", "disk" or "recompute", the reason in words) for features of `nbytes` bytes.

    Half of the free memory may be taken, else half of what is free where `folder` is.
    """
    memory, disk = _free_memory(), free_disk_bytes(Path(folder or tempfile.gettempdir()))
    what = f"recorded features, {gib(nbytes)}, are "
    if nbytes * SHARE <= memory:
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
