"""One turn: a process that does one work of one side, and prints what it measured as JSON.

    python -m benchmarks.worker '{"side": "ours", "work": "unet", "repeats": 3, ...}'

`run.py` starts it; the answer is the last line of stdout. The clock starts when everything is
loaded. Peak memory is the kernel's VmHWM of the whole process; on a GPU
also what its allocator held at most.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.works import WORKS, Setting


def memory_mib(field: str) -> float:
    """VmHWM (peak) or VmRSS (now) of this process."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


def measure(step, repeats: int) -> tuple[list[float], np.ndarray]:
    """Seconds of repeats + 1 runs, and the first run's result."""
    seconds, result = [], None
    for _ in range(repeats + 1):
        before = perf_counter()
        value = step()
        seconds.append(perf_counter() - before)
        result = value if result is None else result
    return seconds, result


@contextlib.contextmanager
def side_module(side: str, device: str):
    """The module with the works of "ours" or "torch", ready on the device."""
    if side == "torch":
        from benchmarks.works import reference

        yield reference
    else:
        from benchmarks.works import ours
        from jstyle.sd import runtime

        with runtime.use(device):
            yield ours


def main(words: dict) -> dict:
    work, side = words["work"], words["side"]
    with side_module(side, words["setting"]["device"]) as works:
        step = getattr(works, work)(Setting(**words["setting"]))
        ready = memory_mib("VmRSS")
        seconds, result = measure(step, 0 if WORKS[work].once else words["repeats"])
        held = works.device_mib()
    np.save(words["result"], result)
    times = seconds if WORKS[work].once else seconds[1:]
    peak = memory_mib("VmHWM")
    found = {"first": seconds[0], "times": times, "peak_mib": peak, "ready_mib": ready}
    if words["setting"]["device"] == "cuda":
        found["device_mib"] = held
    return found


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
