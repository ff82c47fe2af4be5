"""What a command leaves behind, however it ended: words, processes, files and their bytes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from safetensors import safe_open

MARKER = "JSTYLE_SIGNALS_TRIAL"
BARS = r"\d+%\||^Compiling Operators\(|^(jstyle|jdream\w+): (?!error: )"
OURS = re.compile(r"File \".*/jstyle/sd/.*\", line")  # in a stack: the command had begun
HEARS = 0.5  # seconds after a signal in which a command may still come to its own end
TIMES = {"seconds", "time", "started", "finished", "step_seconds"}  # differ from run to run
TIMES |= {"measured"}  # how long a stage took, for how much of it


@dataclass
class Found:
    """What came of a trial; the lists name faults."""

    seconds: float = 0.0
    code: int = 0
    stage: str = ""  # what the process was at when the signal came
    where: list[str] = field(default_factory=list)  # the functions that ran then
    finished: bool = False  # before the signal came, or as it came
    at_once: bool = False  # by the system, or by Python, which had not begun with the command
    went_on: bool = False  # it was run again, to its end
    late: list[str] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    @property
    def faults(self) -> dict[str, list[str]]:
        kinds = ("late", "codes", "words", "leftovers", "damaged", "other")
        return {kind: getattr(self, kind) for kind in kinds if getattr(self, kind)}


def examine(wanted: int, found: Found, folder: Path) -> None:
    """Look at what a command left behind when it had ended; wanted: its exit code."""
    for pid, told in below(f"{MARKER}={folder}"):
        found.leftovers.append(f"process {pid}: {told}")
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    text = (folder / "stderr").read_bytes().decode(errors="replace")
    lines = shown(text)
    if found.stage == "starting" and "Traceback" in text and not OURS.search(text):
        found.at_once, lines = True, []
        found.code = wanted if found.code == 1 else found.code
    found.finished = found.code == 0
    if found.finished and found.seconds > HEARS:
        found.codes.append(f"0, {found.seconds:.2f} s after the signal")
    if found.code not in (0, wanted):
        found.codes.append(f"{found.code}, wanted {wanted}")
    ours = [line for line in lines if ": error: " in line and "finished results stay" in line]
    if (
        any("Traceback" in line for line in lines)
        or len(lines) > 1
        or len(ours) + found.at_once != (found.code != 0)
    ):
        found.words.append(" | ".join(lines) or "nothing was told")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if name.parts[0] == "cache":
            continue
        if path.name.startswith(".jstyle-") or (name.parts[0] == "tmp" and len(name.parts) == 2):
            found.leftovers.append(f"{name}")
        elif path.is_file() and (fault := damage(path)):
            found.damaged.append(f"{name}: {fault}")


def shown(text: str) -> list[str]:
    """The lines on stderr that are neither bars nor what a first start is told."""
    lines = [line.split("\r")[-1].strip() for line in text.splitlines()]
    return [line for line in lines if line and not re.search(BARS, line)]


def below(marker: str) -> Iterator[tuple[int, str]]:
    """(number, command) of the processes that have the marker in their environment."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if marker.encode() in path.read_bytes().split(b"\0"):
                told = (path.parent / "cmdline").read_bytes().replace(b"\0", b" ")
                if told:
                    yield int(path.parent.name), told.decode(errors="replace")[:200]
        except OSError:  # gone meanwhile
            continue


def damage(path: Path) -> str | None:
    """Why a file is not whole, or None."""
    try:
        if path.suffix == ".png":
            Image.open(path).load()
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".jsonl":
            [json.loads(line) for line in path.read_text().splitlines()]
        elif path.suffix == ".safetensors":
            with safe_open(path, "np") as tensors:
                [tensors.get_tensor(name) for name in tensors.keys()]  # noqa: SIM118
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def contents(folder: Path) -> dict[str, str]:
    """Relative path -> digest of the results' bytes, without what is told of times."""
    found = {}
    for path in sorted((folder / "out").rglob("*")) if (folder / "out").is_dir() else ():
        if path.is_file() and "tfevents" not in path.name:
            digest = hashlib.sha256(without_times(path)).hexdigest()
            found[str(path.relative_to(folder))] = digest
    return found


def without_times(path: Path) -> bytes:
    if path.suffix == ".json":
        return json.dumps(_timeless(json.loads(path.read_text()))).encode()
    if path.suffix == ".jsonl":
        lines = map(json.loads, path.read_text().splitlines())
        return json.dumps([_timeless(line) for line in lines]).encode()
    return path.read_bytes()


def _timeless(value):
    if isinstance(value, dict):
        return {name: _timeless(one) for name, one in value.items() if name not in TIMES}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    lines = [f"missing {name}" for name in expected if name not in found]
    lines += [f"unexpected {name}" for name in found if name not in expected]
    both = set(expected) & set(found)
    return lines + [f"other bytes in {n}" for n in sorted(both) if expected[n] != found[n]]
