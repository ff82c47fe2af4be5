"""Starts watchdog.cc in this process: compiled once, a tenth of a second, beside the kernels."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from .toolchain import cache_root

log = logging.getLogger("jstyle")

SOURCE = Path(__file__).with_suffix(".cc")
PARTS, PATH_BYTES, SIGNALS, LINE_BYTES = 64, 4096, 65, 256  # as in the source


class _Part(ctypes.Structure):
    _fields_ = [("ready", ctypes.c_int), ("path", ctypes.c_char * PATH_BYTES)]


_library: ctypes.CDLL | None = None
_parts = None


def start(seconds: float, lines: Mapping[int, str]) -> bool:
    """End the process `seconds` after a signal in `lines`, which are told then, by number; an empty
    line is not.

    Returns False where that cannot be: such a process ends when its computation returns.
    """
    global _library, _parts
    try:
        library = ctypes.CDLL(str(_compiled()))
    except (OSError, subprocess.SubprocessError) as error:
        log.info("without a watchdog over long computations: %s", error)
        return False
    table = ((ctypes.c_char * LINE_BYTES) * SIGNALS).in_dll(library, "watchdog_lines")
    for number, line in lines.items():
        table[number].value = line.encode()[: LINE_BYTES - 2] + b"\n"
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    if library.watchdog_start(read_end, ctypes.c_double(seconds)):
        return False
    _library, _parts = library, (_Part * PARTS).in_dll(library, "watchdog_parts")
    return True


def _compiled() -> Path:
    """The library, compiled if it is not there."""
    source = SOURCE.read_bytes()
    folder = cache_root() / "jstyle"
    path = folder / f"watchdog-{hashlib.sha256(source).hexdigest()[:12]}-{os.uname().machine}.so"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{path.name}.{os.getpid()}"
        command = [os.environ.get("cc_path") or "g++", "-O1", "-shared", "-fPIC", "-pthread"]
        command += ["-x", "c++", str(SOURCE), "-o", str(part)]
        try:
            subprocess.run(command, capture_output=True, check=True, timeout=60)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    return path


def add(path: Path) -> None:
    """A file or folder that is removed then. More than PARTS at once are not."""
    words = os.fsencode(path)
    free = next((slot for slot in _parts if not slot.ready), None)
    if free is not None and len(words) < PATH_BYTES:
        free.path = words
        free.ready = 1


def remove(path: Path) -> None:
    """It is finished or gone."""
    words = os.fsencode(path)
    for slot in _parts:
        if slot.ready and slot.path == words:
            slot.ready = 0


def tell_crash(line: str) -> None:
    """Tell this line, remove what is unfinished and end with 1 where the process would crash."""
    _library.watchdog_tell_crash(line.encode()[: LINE_BYTES - 1])


def listen() -> None:
    """Hush as soon as one of the signals comes, before Python hears of it; to be called again when
    their handlers have been set."""
    _library.watchdog_listen()


def speak_first() -> bool:
    """Whether nobody has told the last line yet; whoever gets True tells it."""
    return bool(_library.watchdog_speak())


def hush() -> int:
    """Silence stderr but for who writes to the descriptor that is returned."""
    return _library.watchdog_hush()


def set_bar(drawn: bool) -> None:
    """Whether the last line has to begin on a new one."""
    ctypes.c_int.in_dll(_library, "watchdog_bar").value = int(drawn)


def start_no_more() -> None:
    """No thread of this process can start another process from now on."""
    _library.watchdog_start_no_more()
