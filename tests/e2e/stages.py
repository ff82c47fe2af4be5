"""What a running command is at, from outside: told by its Python stack, which SIGUSR1 asks for (see
probe/sitecustomize.py), and by the processes below it."""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

PROBE = Path(__file__).with_name("probe")
STACKS = "JSTYLE_SIGNALS_STACKS"
WAIT = 0.3  # seconds, at most, until a stack is there
INNERMOST = 12
COMPILERS = ("cc1plus", "g++", "as", "ld", "collect2")
STAGES = (  # the first one with a line in the stack
    ("ending", r"ending\.py.* in (end|_flush|end_descendants)"),
    ("compiling", r"jit_utils|jittor_utils/.* in (run_cmds|compile)|in _compiled"),
    ("importing", r"startup\.py.* in <module>|jittor/__init__"),
    ("writing", r"files\.py.* in (atomic_write|write_\w+|save\w*)|in (save\w*|write\w*|publish)$"),
    ("loading", r"in (from_pretrained|load\w*|read_tensors|from_folder)$"),
    ("training", r"train\.py.* in (step|_step|train\w*|_train\w*)|optimizer\.py"),
    ("sampling", r"sampling\.py|samplers/|denoiser\.py|inversion\.py|pick\.py|samples\.py"),
    ("waiting", r"engines\.py.* in run_in_processes|connection\.py.* in wait"),
    ("importing", r"frozen importlib"),
)


def stage_of(pid: int, stacks: Path) -> tuple[str, list[str]]:
    """One word, or two for a command whose work is done by processes of its own; and the innermost
    functions that run there."""
    if not _listens(pid):
        return "starting", []
    family = [pid, *(child for child in children(pid) if _listens(child))]
    told = {number: _told(number, stacks / str(number)) for number in family}
    told = {number: lines for number, lines in told.items() if lines}
    words = {"compiling" if _compiles(pid) else _word(lines) for pid, lines in told.items()}
    if len(words) > 1:
        words.discard("waiting")
    where = [line.rpartition("/")[2] for lines in told.values() for line in lines[:INNERMOST]]
    return "+".join(sorted(words)) or "starting", where


def _told(pid: int, path: Path) -> list[str]:
    """`File "...", line 1 in function` for each of the functions, the innermost first."""
    if not path.exists():  # a forked worker
        return []
    with suppress(OSError):
        os.kill(pid, signal.SIGUSR1)
    deadline = time.monotonic() + WAIT
    while not (text := path.read_text()).endswith("\n") and time.monotonic() < deadline:
        time.sleep(0.005)
    return [line.strip() for line in text.splitlines() if line.startswith("  ")]


def _word(lines: list[str]) -> str:
    for word, pattern in STAGES:
        if any(re.search(pattern, line) for line in lines):
            return word
    return "other"


def _listens(pid: int) -> bool:
    """Whether SIGUSR1 has a handler there; it would end the process otherwise."""
    with suppress(OSError, AttributeError):
        status = Path(f"/proc/{pid}/status").read_text()
        caught = int(re.search(r"SigCgt:\s*([0-9a-f]+)", status)[1], 16)
        return bool(caught >> (signal.SIGUSR1 - 1) & 1)
    return False


def children(pid: int) -> list[int]:
    """The processes that it has started and that are there."""
    with suppress(OSError):
        tasks = Path(f"/proc/{pid}/task").glob("*/children")
        return [int(number) for path in tasks for number in path.read_text().split()]
    return []


def _compiles(pid: int) -> bool:
    """Whether a compiler runs below it."""
    for child in children(pid):
        with suppress(OSError):
            if Path(f"/proc/{child}/comm").read_text().strip() in COMPILERS or _compiles(child):
                return True
    return False
