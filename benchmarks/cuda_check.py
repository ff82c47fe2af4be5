"""Everything about a GPU in one run of less than ten minutes: start-up, parity, speed.

    python -m benchmarks.cuda_check [--model work/full] --out benchmarks/results

Start-up: Jittor compiles its CUDA core and runs one operation. Parity: each work on the shipped
small model on CUDA against the same on the CPU, and against PyTorch where it is installed (on CUDA
where PyTorch can, on the CPU otherwise). Speed: the works on CUDA against PyTorch on CUDA; with
--model at full size too, and the UNet in half precision. What the time does not suffice for is
reported as not measured. Exit code 0 when all that was measured agrees, 1 when something does not
or there is no CUDA.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import numpy as np

from benchmarks import machine, rows, run
from benchmarks.works import Setting
from jstyle.sd.cuda import find_cuda
from jstyle.sd.files import writable_folder, write_json

SECONDS = 570.0
AGREEMENT = {"float32": 2e-3, "float16": 2e-2}  # relative L2; TensorFloat-32 and fast math included
WORKS = ("matrix", "text", "unet", "unet_batch2", "vae", "style", "style_nth", "lora")
START = """
import json
from jstyle.sd.startup import import_seconds, jt
jt.flags.use_cuda = 1
value = (jt.ones((64, 64)) @ jt.ones((64, 64))).sum().item()
print(json.dumps({"seconds": import_seconds, "value": value}))
"""
TORCH_HAS_CUDA = "import diffusers, torch; print(int(torch.cuda.is_available()))"


class Check(NamedTuple):
    """One work at one setting, and the settings of the sides to compare with."""

    name: str
    work: str
    setting: Setting
    against: tuple[tuple[str, Setting], ...]


@dataclass
class Findings:
    """What was measured, in order. failed: names of checks that did not agree or did not run."""

    checks: list[dict] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    not_measured: list[str] = field(default_factory=list)


def plan(small: Setting, full: Setting | None, torch_device: str) -> Iterator[Check]:
    """The checks, what matters most first. torch_device: empty where PyTorch is missing."""
    against = [("ours", replace(small, device="cpu"))]
    if torch_device:
        against.append(("torch", replace(small, device=torch_device)))
    for work in WORKS:
        yield Check(f"small {work}", work, small, tuple(against))
    for model, size in ((small, "small"), (full, "full")):
        if model is not None:
            half = replace(model, dtype="float16")
            yield Check(f"{size} unet float16", "unet", half, (("ours", model),))
    if full is not None:
        reference = (("torch", full),) if torch_device == "cuda" else ()
        for work in ("unet", "vae", "style", "lora"):
            yield Check(f"full {work}", work, full, reference)


def run_check(check: Check, folder: Path, deadline: float) -> dict:
    """Times of every side and how far ours on CUDA is from the others.

    A side to compare with that fails is noted under "failed", and the others count all the same;
    the check does not agree then. Raises TurnError if ours on CUDA fails, or the time is over.
    """
    sides = {"ours cuda": ("ours", check.setting)}
    sides |= {f"{side} {s.device} {s.dtype}": (side, s) for side, s in check.against}
    found, results = {"check": check.name, "sides": {}, "agreement": {}, "failed": {}}, {}
    for name, (side, setting) in sides.items():
        path = folder / "result.npy"
        words = {"side": side, "work": check.work, "repeats": 5, "setting": asdict(setting)}
        left = max(1.0, deadline - monotonic())
        try:
            turn = run.take_turn(words | {"result": str(path)}, 2, left)
        except run.TurnError as error:
            if not results or monotonic() >= deadline:
                raise
            found["failed"][name] = str(error)
            continue
        results[name] = np.load(path)
        found["sides"][name] = turn | {"median": float(np.median(turn["times"]))}
    mine = results.pop("ours cuda")
    found["agreement"] = {name: rows.relative_l2(mine, other) for name, other in results.items()}
    limit = AGREEMENT[check.setting.dtype]
    found["agrees"] = not found["failed"] and all(e <= limit for e in found["agreement"].values())
    return found


def run_all(checks: list[Check], deadline: float) -> Findings:
    done = Findings()
    with tempfile.TemporaryDirectory() as folder:
        for check in checks:
            if monotonic() >= deadline:
                done.not_measured.append(check.name)
                continue
            try:
                found = run_check(check, Path(folder), deadline)
            except run.TurnError as error:
                late = monotonic() >= deadline
                (done.not_measured if late else done.failed).append(check.name)
                print(f"{check.name}: {'not measured, ' if late else ''}{error}")
                continue
            done.checks.append(found)
            if not found["agrees"]:
                done.failed.append(check.name)
            print(told(found), flush=True)
    return done


def told(found: dict) -> str:
    times = ", ".join(f"{name} {1e3 * s['median']:.1f} ms" for name, s in found["sides"].items())
    errors = ", ".join(f"{error:.1e} to {name}" for name, error in found["agreement"].items())
    failed = "".join(f"; {name} failed: {why}" for name, why in found["failed"].items())
    return f"{found['check']}: {times}; {errors or 'nothing to compare with'}{failed}"


def _python(code: str, timeout: float) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout
    )
    if done.returncode:
        raise run.TurnError("\n".join(done.stderr.strip().splitlines()[-3:]))
    return done.stdout.strip().splitlines()[-1]


def _torch_device() -> str:
    """Where PyTorch is to be compared with; empty where it does not start."""
    try:
        return "cuda" if _python(TORCH_HAS_CUDA, 120.0) == "1" else "cpu"
    except (run.TurnError, subprocess.TimeoutExpired) as error:
        print(f"not compared with PyTorch: {str(error).splitlines()[-1]}")
        return ""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cuda_check", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", help="folder of a model at full size")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for everything")
    args = parser.parse_args(argv)
    deadline = monotonic() + args.seconds
    cuda = find_cuda()
    if not cuda.usable:
        print(f"CUDA cannot be used here: {cuda.reason}")
        return 1
    try:
        started = json.loads(_python(START, args.seconds))
    except (run.TurnError, subprocess.TimeoutExpired) as error:
        print(f"Jittor does not start on CUDA {cuda.version}: {error}")
        return 1
    print(f"CUDA {cuda.version}: Jittor started in {started['seconds']:.0f} s")
    small = replace(run.SIZES["tiny"], device="cuda")
    full = replace(run.SIZES["full"], device="cuda", model=args.model) if args.model else None
    done = run_all(list(plan(small, full, _torch_device())), deadline)
    folder = writable_folder(args.out / "cuda-check")
    record = asdict(done) | {"start": started, "cuda": cuda._asdict(), "facts": machine.facts()}
    write_json(folder / "cuda_check.json", record)
    for kind, names in (("FAILED", done.failed), ("not measured", done.not_measured)):
        if names:
            print(f"{kind}: {', '.join(names)}")
    return 1 if done.failed else 0


if __name__ == "__main__":
    sys.exit(main())
