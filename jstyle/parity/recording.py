"""Writing and reading the values of one side; the format is told in the package's docstring.

Values go to the disk as they come: neither side ever holds more than the tensor at hand.
"""

from __future__ import annotations

import hashlib
import json
import resource
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open

from ..sd.files import InputError, atomic_write, require_file, write_json
from .task import FORMAT, VERSION, ParityError, Task, read_json, read_task

HEADER_BYTES = 1 << 20  # reserved, since the header stands before the data and is known after it


class Recorder:
    """A sink for values: `with sink.stage(name): sink.put(entry, array)`, in any number."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        (self.folder / "index.json").unlink(missing_ok=True)
        self.stages: dict[str, dict] = {}
        self._stream: _Stream | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started, path = perf_counter(), self.folder / f"{name}.safetensors"
        with atomic_write(path) as part, open(part, "wb") as file:
            self._stream = _Stream(file)
            yield
            self._stream.close()
        seconds = round(perf_counter() - started, 3)
        entries = self._stream.entries
        self.stages[name] = {"file": path.name, "seconds": seconds, "entries": entries}

    def put(self, name: str, values: np.ndarray) -> None:
        self._stream.put(name, values)

    def finish(self, **facts: object) -> None:
        """Write index.json, with which the recording is complete."""
        index = {"format": FORMAT, "version": VERSION, **facts, "peak_mib": peak_mib()}
        write_json(self.folder / "index.json", {**index, "stages": self.stages})


class _Stream:
    """One safetensors file that is written while its contents become known."""

    def __init__(self, file: BinaryIO):
        self.file, self.entries, self.header, self.end = file, [], {}, 0
        self.known: dict[tuple, str] = {}
        file.write(b" " * HEADER_BYTES)

    def put(self, name: str, values: np.ndarray) -> None:
        values = np.ascontiguousarray(values, np.float32)
        bytes_ = values.data.cast("B")
        key = values.shape, hashlib.blake2b(bytes_, digest_size=16).digest()
        stored = self.known.setdefault(key, name)
        self.entries.append([name, stored])
        if stored != name:
            return
        start, self.end = self.end, self.end + values.nbytes
        offsets = [start, self.end]
        self.header[name] = {"dtype": "F32", "shape": values.shape, "data_offsets": offsets}
        self.file.write(bytes_)

    def close(self) -> None:
        text = json.dumps(self.header, separators=(",", ":")).encode()
        room = HEADER_BYTES - 8
        if len(text) > room:
            raise ParityError(f"{len(self.entries)} entries are more than a stage can hold")
        self.file.seek(0)
        self.file.write(struct.pack("<Q", room) + text)


class Recording:
    """A finished recording. Raises ParityError if the folder does not hold one."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.index = read_json(self.folder / "index.json")
        self.task: Task
        self.task, self.inputs = read_task(self.folder)
        stages = self.index.get("stages")
        lost = [s for s in self.task.stages if s not in (stages if _is_index(stages) else ())]
        if lost:
            raise ParityError(f"{self.folder}: the stage {lost[0]} was not recorded")

    @property
    def facts(self) -> dict:
        """Who made it, on what."""
        return {key: value for key, value in self.index.items() if key != "stages"}

    def seconds(self, stage: str) -> float:
        return self.index["stages"][stage]["seconds"]

    def entries(self, stage: str) -> dict[str, str]:
        """Name -> name under which the file holds the values, in the order of computing."""
        return dict(self.index["stages"][stage]["entries"])

    @contextmanager
    def open(self, stage: str) -> Iterator:
        """Yield get_tensor(name in the file) -> array. Raises ParityError for a damaged file."""
        path = self.folder / self.index["stages"][stage]["file"]
        try:
            file = safe_open(require_file(path), "np")
        except (InputError, OSError, SafetensorError) as error:
            raise ParityError(f"{path}: cannot be read ({error})") from None
        with file:
            yield file.get_tensor


def _is_index(stages: object) -> bool:
    """Every stage has a file in the recording's own folder, seconds, and pairs of names."""
    return isinstance(stages, dict) and all(
        isinstance(stage, dict)
        and isinstance(stage.get("file"), str)
        and Path(stage["file"]).name == stage["file"]
        and isinstance(stage.get("seconds"), (int, float))
        and isinstance(stage.get("entries"), list)
        and all(isinstance(pair, list) and len(pair) == 2 for pair in stage["entries"])
        for stage in stages.values()
    )


def peak_mib() -> int:
    """The most memory this process has had, resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
