"""How the process of a command ends, whatever ends it. Imports nothing heavy.

A request to end (SIGINT, SIGTERM, SIGHUP) raises `Terminated` in the main thread, so that `with`
and `finally` do their work; a second one changes nothing. What they cannot do (the exception was
swallowed, or they wait for something) is cut off after `PATIENCE`; a signal in the middle of a
long computation, which Python hears of only when it returns, is the watchdog's (watchdog.py).

The process leaves by `os._exit`, after its unfinished files and its descendants are gone: the
handlers that Jittor and multiprocessing leave for the interpreter's end wait for processes that
may be dead. A library that is used in somebody else's process installs nothing of this.
"""

from __future__ import annotations

import importlib
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 1.7  # seconds to unwind in; a worker process has less, so that it ends before its parent
GRACE = 0.3  # seconds that descendants have to remove what is theirs
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h

_asked: int | None = None  # the first signal that came
_held = 0  # depth of blocks that are not to be torn apart
_patience = PATIENCE
_installed_in: int | None = None  # process number
_unfinished: set[Path] = set()
_bar_drawn = False
_watchdog = None  # the module, once it watches
_name: str | None = "the command"
_told = False


class Terminated(BaseException):
    """A signal asked the process to end; `code` is its exit code."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number, self.code = number, 128 + number

    def __str__(self) -> str:
        return words(self.number)


def words(number: int) -> str:
    """What the user is told."""
    how = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    return f"{how}; finished results stay"


def asked() -> int | None:
    """The number of the signal that asked this process to end, or None."""
    return _asked


def stop_if_asked() -> None:
    """Raise Terminated again, where whatever came of the first one has been caught."""
    if _asked is not None:
        raise Terminated(_asked)


def run_program(name: str, module: str, function: str = "main") -> NoReturn:
    """Be the process of a command: call module.function() -> exit code, then end."""
    install(name)
    try:
        end(_code_of(name, module, function))
    except Terminated as stop:  # it came while something else was being handled
        end(stop.code)


def _code_of(name: str, module: str, function: str) -> int:
    try:
        code = getattr(importlib.import_module(module), function)()
    except (Terminated, KeyboardInterrupt) as stop:
        number = getattr(stop, "number", signal.SIGINT)
        _tell_of(number)
        code = 128 + number
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        if isinstance(stop.code, str):
            tell(stop.code)
    except Exception:  # what became of ours on its way through C++, or a fault of the program
        code = 1
        if asked() is None:
            traceback.print_exc()
    if code == 0 and _asked is None and "OMPI_COMM_WORLD_SIZE" in os.environ:
        sys.exit(0)  # MPI's orderly end, in which all of its processes take part
    return code


def install(name: str | None, patience: float = PATIENCE) -> None:
    """Take the signals over in this process. A signal that is ignored (nohup) stays ignored.

    name: of the command, in its last line. None for a process whose parent tells that it ended.
    """
    global _installed_in, _patience, _name
    _patience, _name, _installed_in = patience, name, os.getpid()
    _prctl(PR_SET_CHILD_SUBREAPER, 1)  # compilers whose parent dies become ours, to be ended
    signal.signal(signal.SIGALRM, _out_of_patience)
    take_signals()
    os.register_at_fork(after_in_child=_leave_signals_to_parent)


def take_signals() -> None:
    """Set the handlers, again if a library has put its own in their place."""
    if _installed_in == os.getpid():
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _on_signal)
        if _watchdog is not None:
            _watchdog.listen()


@contextmanager
def signals_wait() -> Iterator[None]:
    """They come when the block, which must be short, is through. Processes that are started in it
    begin that way, until `let_signals_come`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_signals_come() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def end_with_parent() -> None:
    """The kernel kills this process if its parent is killed."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def watch() -> None:
    """Start the watchdog; before anything computes for long. Only in a command's process."""
    global _watchdog
    if _installed_in != os.getpid() or _watchdog is not None:
        return
    from . import watchdog

    texts = {int(number): _last_line(number) for number in SIGNALS}
    if watchdog.start(_patience + 2 * GRACE, texts):
        _watchdog = watchdog
        watchdog.listen()
        watchdog.set_bar(_bar_drawn)
        for path in _unfinished:
            watchdog.add(path)


def tell_crash() -> None:
    """Let a crash be one line and an end; once Jittor is loaded, which sets handlers of its own."""
    if _watchdog is None:
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    told = "Jittor crashed (segmentation fault); finished results stay, run the command again"
    if limit != resource.RLIM_INFINITY:
        told = f"out of memory; this process may take {limit >> 20} MiB (ulimit -v)"
    _watchdog.tell_crash(f"{_name or 'a process of the command'}: error: {told}\n")


def _on_signal(number, frame) -> None:
    global _asked
    if _asked is None:
        _asked = number
        signal.setitimer(signal.ITIMER_REAL, _patience)
        if not _held:
            raise Terminated(number)


def _out_of_patience(number, frame) -> None:
    if _asked is not None:
        end(128 + _asked)


def _leave_signals_to_parent() -> None:
    """In forked processes, Jittor's compiling workers: Ctrl-C is the parent's, which ends them by
    SIGTERM; one that would unwind then could wait for ever for the parent's locks. They and their
    compilers leave the parent's group, since each would tell of a signal to it."""
    with suppress(OSError):
        os.setpgid(0, 0)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def whole() -> Iterator[None]:
    """A signal waits until the block, which must be short, is through."""
    global _held
    _held += 1
    try:
        yield
    finally:
        _held -= 1
    if not _held and _installed_in == os.getpid():
        stop_if_asked()


def unfinished(path: Path) -> None:
    """Have this file or folder removed if the process ends before it is `finished`."""
    _unfinished.add(path.absolute())
    if _watchdog is not None:
        _watchdog.add(path.absolute())


def finished(path: Path) -> None:
    """It has another name by now, or is gone."""
    _unfinished.discard(path.absolute())
    if _watchdog is not None:
        _watchdog.remove(path.absolute())


def _last_line(number: int) -> str:
    return "" if _name is None else f"{_name}: error: {words(number)}"


def _tell_of(number: int) -> None:
    if not _told and _name is not None:
        tell(_last_line(number))


def tell(line: str) -> None:
    """The process's last line on stderr; those after it are dropped."""
    global _told
    _told = True
    if _watchdog is None or _watchdog.speak_first():
        with suppress(OSError, ValueError):
            if _watchdog is None or _asked is None or sys.stderr.fileno() != 2:
                print(line, file=sys.stderr, flush=True)
            else:
                line = "\n" * _bar_drawn + line + "\n"
                os.write(_watchdog.hush(), line.encode(errors="backslashreplace"))


def set_bar(drawn: bool) -> None:
    """Whether stderr's last line is a bar's; once a signal has come, it stays what it was."""
    global _bar_drawn
    if drawn != _bar_drawn and _asked is None:
        _bar_drawn = drawn
        if _watchdog is not None:
            _watchdog.set_bar(drawn)


def end(code: int) -> NoReturn:
    """Leave this process at once: nothing unfinished, no descendant and no waiting stays behind.

    If a signal has asked for it, also now, the exit code and the last line are the signal's.
    """
    global _held
    _held += 1  # a signal that comes now tears nothing apart
    with suppress(ValueError):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # Jittor's ends the process
    for path in tuple(_unfinished):
        with suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    code = _flush(code)
    if _watchdog is not None:
        _watchdog.hush()  # threads that cannot start another compiler would tell of that
        _watchdog.start_no_more()
    end_descendants()
    number = _asked
    if number is not None:
        _tell_of(number)
        code = 128 + number
    os._exit(code)


def _flush(code: int) -> int:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:  # nobody reads on
            pass
        except (OSError, ValueError, AttributeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            with suppress(OSError, ValueError, AttributeError):
                print(f"{_name}: error: output: {reason}", file=sys.stderr, flush=True)
            code = code or 1
    return code


def end_descendants(grace: float = GRACE) -> None:
    """End all processes below this one: SIGTERM, and SIGKILL for those left after `grace` s."""
    deadline, told = time.monotonic() + grace, set()
    while _reap():
        late = time.monotonic() > deadline
        for pid in _descendants():
            if late or pid not in told:
                told.add(pid)
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        if time.monotonic() > deadline + grace:
            return  # of another user, or beyond reach of signals
        time.sleep(0.005)


def _reap() -> bool:
    """Whether there are children that have not ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        return True
    except OSError:  # there are none
        return False


def _descendants() -> list[int]:
    """Living processes below this one, from /proc."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdigit():
            with suppress(OSError, ValueError):  # gone meanwhile
                line = Path("/proc", name, "stat").read_bytes()
                state, parent = line.rpartition(b")")[2].split()[:2]
                if state != b"Z":
                    children.setdefault(int(parent), []).append(int(name))
    found = list(children.get(os.getpid(), ()))
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(option, int(value), 0, 0, 0)
