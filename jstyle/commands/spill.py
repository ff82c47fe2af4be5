"""Keeping what was recorded of many images: in memory while that lasts, then in temporary files.

At 512 px, 50 steps and six sites the keys and values of one style take 2.4 GB in float32.
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..inversion import Inversion
from ..sd.startup import jt
from .machine import free_memory_bytes

log = logging.getLogger("jstyle")


class FileBank:
    """The features of a FeatureBank, written to one file and read back when they are needed."""

    def __init__(self, bank, path: Path):
        self._places: dict[tuple[str, str, int], tuple[int, tuple[int, ...]]] = {}
        self._dtype = np.dtype(bank.dtype)
        with path.open("wb") as file:
            for key in bank:
                values = bank[key].numpy().astype(self._dtype)
                self._places[key] = file.tell(), values.shape
                values.tofile(file)
        self._bytes = np.memmap(path, np.uint8, mode="r")

    def __getitem__(self, key: tuple[str, str, int]) -> jt.Var:
        offset, shape = self._places[key]
        size = int(np.prod(shape)) * self._dtype.itemsize
        values = self._bytes[offset : offset + size].view(self._dtype).reshape(shape)
        return jt.array(np.array(values, np.float32))  # Jittor takes no memmap


class InversionStore:
    """Holds `expected` inversions of about the same size; use as a context manager.

    budget_bytes: what they may take in memory together; default half of what is free when the
    first one arrives. If they will not fit, all go to a temporary folder, removed at the end.
    """

    def __init__(self, expected: int, budget_bytes: int | None = None):
        self.expected, self.budget_bytes = expected, budget_bytes
        self._kept: dict[object, Inversion] = {}
        self._folder: tempfile.TemporaryDirectory | None = None

    def __enter__(self) -> InversionStore:
        return self

    def __exit__(self, *error):
        self._kept.clear()
        if self._folder is not None:
            self._folder.cleanup()

    def __contains__(self, name) -> bool:
        return name in self._kept

    def __getitem__(self, name) -> Inversion:
        return self._kept[name]

    @property
    def in_files(self) -> bool:
        return self._folder is not None

    def keep(self, name, inversion: Inversion) -> None:
        if not self._kept:
            self._choose_place(inversion.features.nbytes)
        if self._folder is not None:
            path = Path(self._folder.name) / f"{len(self._kept)}.bin"
            inversion = replace(inversion, features=FileBank(inversion.features, path))
        self._kept[name] = inversion

    def _choose_place(self, nbytes: int) -> None:
        budget = free_memory_bytes() // 2 if self.budget_bytes is None else self.budget_bytes
        if self.expected > 1 and nbytes * self.expected > budget:
            self._folder = tempfile.TemporaryDirectory(prefix="jstyle-features-")
            log.info(
                "recorded features of %d images take %.1f GB, more than half of the free memory; "
                "they are kept in %s",
                self.expected,
                nbytes * self.expected / 1e9,
                self._folder.name,
            )
