"""Numbers for TensorBoard, written by the process itself.

tensorboardX's SummaryWriter hands them to a thread, which a full disk ends; whoever goes on adding
numbers then waits for ever.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.summary import scalar

from jstyle.sd import files

FLUSH_SECONDS = 10.0


class Events:
    """An events file in `folder`. Raises WriteError if it cannot be written."""

    def __init__(self, folder: Path):
        self.folder = files.writable_folder(folder)
        with files.naming(folder):
            self._file = EventsWriter(str(folder / "events"), f".{os.getpid()}")
        self._flushed = time.monotonic()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """The values of one step by name."""
        with files.naming(self.folder):
            for name, value in values.items():
                event = Event(wall_time=time.time(), step=step, summary=scalar(name, value))
                self._file.write_event(event)
            if time.monotonic() - self._flushed > FLUSH_SECONDS:
                self._file.flush()
                self._flushed = time.monotonic()

    def close(self) -> None:
        """Write what is left. What a full disk does not take is lost; others have said so."""
        with suppress(OSError):
            self._file.close()
