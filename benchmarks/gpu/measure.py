"""Run checks: each turn of each side in a process of its own, with a limit of time.

What fails or takes too long costs its own result only; everything is kept as soon as it is there.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from time import monotonic

import numpy as np

from benchmarks import rows, run

from . import memory, preflight
from .plan import Check, Side

START = """
import json
from jstyle.sd.startup import import_seconds, jt
jt.flags.use_cuda = 1
value = (jt.ones((64, 64)) @ jt.ones((64, 64))).sum().item()
print(json.dumps({"seconds": import_seconds, "value": value}))
"""
WORKER = "benchmarks.worker"


class Limits:
    """deadline: when everything ends (`monotonic`); turn: seconds for one process."""

    def __init__(self, seconds: float, turn: float):
        self.deadline, self.turn = monotonic() + seconds, turn

    def left(self) -> float:
        return max(0.0, min(self.turn, self.deadline - monotonic()))

    def over(self) -> bool:
        return monotonic() >= self.deadline


def start(limits: Limits) -> dict:
    """Start Jittor on CUDA, which compiles its core, and let it compute. Raises TurnError."""
    for again in (True, False):  # a core that was renewed ends the first start
        try:
            seconds = max(1.0, limits.deadline - monotonic())
            found = run.in_process(["-c", START], 2, seconds)
            break
        except run.TurnError as error:
            if "run the command again" not in str(error) or not again:
                raise
    if found["value"] != 64.0**3:
        raise run.TurnError(f"a product of ones on CUDA is {found['value']}, not {64**3}")
    return found


def check(one: Check, torch: preflight.Torch, limits: Limits) -> dict:
    """Times, memory and results of every side: a record with "state" ok, FAILED or late."""
    found: dict = {"check": one.name, "part": one.part, "work": one.work, "sides": {}}
    found |= {"failed": {}, "agreement": {}, "plan": {}}
    results: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(one.rounds):
            for side in one.sides:
                if side.name in found["failed"]:
                    continue
                if limits.over():
                    return found | {"state": "FAILED" if found["failed"] else "late"}
                try:
                    _turn(one, side, torch, limits, found, results, Path(folder))
                except run.TurnError as error:
                    found["failed"][side.name] = str(error)
    return found | {"state": "ok" if _agrees(one, found, results) else "FAILED"}


def _turn(one: Check, side: Side, torch, limits: Limits, found: dict, results: dict, folder: Path):
    path = folder / "result.npy"
    words = {"side": side.who, "work": one.work, "repeats": one.repeats}
    words |= {"setting": asdict(side.setting), "result": str(path)}
    python = torch.python if side.who == "torch" else ""
    env = preflight.environment(python) if python else {}
    turn = run.in_process(["-m", WORKER, json.dumps(words)], 2, limits.left(), python, env)
    results.setdefault(side.name, np.load(path))
    found["sides"].setdefault(side.name, []).append(turn)
    expected = memory.expected_mib(one.work, side.setting) if side.who == "ours" else None
    if expected is not None:
        found["plan"][side.name] = expected


def _agrees(one: Check, found: dict, results: dict) -> bool:
    """Compare every side with the first; write how far each is."""
    first = one.sides[0].name
    if first not in results:
        return False
    agrees = not found["failed"]
    for side in one.sides[1:]:
        if side.name in results:
            error = rows.relative_l2(results[first], results[side.name])
            found["agreement"][side.name] = error
            agrees &= side.limit is None or error <= side.limit
    return agrees


def run_all(checks: list[Check], torch, limits: Limits, keep: Callable[[dict], None]) -> None:
    """Each in turn; `keep` gets every record as soon as it is there."""
    for one in checks:
        late = {"check": one.name, "part": one.part, "work": one.work, "state": "late"}
        keep(late if limits.over() else check(one, torch, limits))


def seconds(turns: list[dict]) -> float:
    """Median of all runs but the first of each process."""
    return median(t for turn in turns for t in turn["times"])
