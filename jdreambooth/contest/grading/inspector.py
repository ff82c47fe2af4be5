"""The process that looks into submissions, so that a hostile one ends nothing but it.

Decoders are programs that read what strangers wrote. They run here with a bound on memory and on
the seconds of each submission; if one ends the process, that is the submission's problem.
"""

from __future__ import annotations

import math
import multiprocessing
import resource
import signal
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from jstyle.score.layout import Contest
from jstyle.sd import ending
from jstyle.sd.files import WriteError

from .inspection import Inspected, inspect

MEMORY = 3 << 30  # bytes of address space, of which Python and its libraries take the first half
SECONDS = 600  # of processor time for one submission; 700 pictures take about 10
PATIENCE = 1.0


class Inspector:
    """inspect() as in inspection.py, in a process of its own, which is started when needed."""

    def __init__(self, contest: Contest, memory: int = MEMORY, seconds: int = SECONDS):
        self.contest, self.memory, self.seconds = contest, memory, seconds
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> Inspector:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def inspect(self, path: Path, work: Path) -> Inspected:
        """Raises what the system says when `work` cannot be written."""
        if self._process is None:
            self._start()
        try:
            self._pipe.send((path, work))
            found = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode
            self._stop()
            why = self._why(code)
            lost = code != -signal.SIGXCPU  # whose reason may be gone the next time
            return Inspected([f"reading it ended the process that did ({why})"], lost=lost)
        if isinstance(found, Exception):
            raise found
        return found

    def _why(self, code: int) -> str:
        if code == -signal.SIGXCPU:
            return f"it took more than {self.seconds} s"
        with suppress(ValueError):
            return f"by {signal.Signals(-code).name}"
        return f"exit code {code}"

    def _start(self) -> None:
        spawned = multiprocessing.get_context("spawn")  # a fork would share Jittor's threads
        self._pipe, theirs = spawned.Pipe()
        about = (theirs, self.contest, self.memory, self.seconds)
        self._process = spawned.Process(target=_work, args=about, daemon=True)
        self._process.start()
        theirs.close()

    def _stop(self) -> None:
        if self._process is not None:
            self._pipe.close()
            self._process.terminate()
            self._process.join()
        self._process = self._pipe = None


def _work(pipe: Connection, contest: Contest, memory: int, seconds: int) -> None:
    """What the process does: (path, work) in, what was found or an error out."""
    ending.install("a process of the grading", PATIENCE)
    ending.end_with_parent()
    _limit(resource.RLIMIT_AS, memory)
    _limit(resource.RLIMIT_CORE, 0)
    code = 0
    try:
        while True:
            path, work = pipe.recv()
            _allow(seconds)
            pipe.send(_inspected(path, contest, work))
    except (EOFError, ConnectionError):
        code = 0  # no more to do, or the parent is gone
    except ending.Terminated as stop:
        code = stop.code
    ending.end(code)


def _allow(seconds: int) -> None:
    """Let this process have so many more seconds of the processor, and be killed after them."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime) + seconds)


def _limit(what: int, value: int) -> None:
    """Set a limit, as far as the one that cannot be raised allows."""
    _, hard = resource.getrlimit(what)
    soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (soft, hard))


def _inspected(path: Path, contest: Contest, work: Path) -> Inspected | Exception:
    try:
        return inspect(path, contest, work)
    except WriteError as error:
        return WriteError(error.errno, error.strerror, error.filename)
    except Exception as error:  # a fault of ours that this submission found
        return Inspected([f"could not be looked into ({type(error).__name__}: {error})"])
