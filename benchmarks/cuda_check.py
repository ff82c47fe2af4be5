"""Everything about a GPU in one command: what is there, start-up, agreement, memory, speed.

    python -m benchmarks.cuda_check --out benchmarks/results [--full]

For a machine with a GPU and nothing else (`benchmarks.gpu.pack` carries what it lacks). Where its
CUDA is too new for Jittor, a toolkit of links is made first (`jstyle doctor --fix-cuda`). Then
Jittor compiles its core; each work on the shipped small model is compared with the CPU, and with
PyTorch where a Python with torch, diffusers and peft is found, on CUDA where PyTorch can; half
precision against float32; at last the speed and the memory of the works in turns with PyTorch in
float32, bfloat16 and float16. --full does that at SD 2.1's own size, with random weights. Every
turn is a process with a limit of time, so that a failure costs only itself; gpu.json and gpu.md are
written after each. What the time does not suffice for is late. Exit code 0 when all that was
measured agrees, 1 when something does not or there is no CUDA.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks import machine, run
from benchmarks.gpu import measure, preflight
from benchmarks.gpu.plan import PARTS, SMALL_WORKS, Check, plan
from benchmarks.gpu.report import Report
from benchmarks.works import Setting
from jstyle.sd.files import writable_folder

SECONDS, TURN_SECONDS = 570.0, 240.0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cuda_check", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--full", action="store_true", help="speed at SD 2.1's size too")
    parser.add_argument("--model", help="folder of a model at full size, in place of --full's own")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for everything")
    parser.add_argument("--turn-seconds", type=float, default=TURN_SECONDS, help="for one process")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side for the speed")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--works", nargs="+", choices=SMALL_WORKS, default=SMALL_WORKS)
    parser.add_argument("--small-px", type=int, default=128, help="pictures of the small model")
    parser.add_argument(
        "--torch-python", help="the Python that has PyTorch (else it is looked for)"
    )
    parser.add_argument("--look", action="store_true", help="say what is there, and end")
    return parser


def fix_cuda(found: preflight.Preflight) -> bool:
    """Make CUDA usable where a toolkit of links can; whether something was changed."""
    if found.cuda.usable or "--fix-cuda" not in found.cuda.mend:
        return False
    command = [sys.executable, "-m", "jstyle", "doctor", "--fix-cuda"]
    done = subprocess.run(command, cwd=machine.ROOT, capture_output=True, text=True)
    print(done.stderr.strip() or done.stdout.strip())
    return "is usable for Jittor through" in done.stderr


def full_model(args: argparse.Namespace, limits: measure.Limits) -> str:
    """The folder of the model at full size, written where none is given; "" without --full."""
    if args.model or not args.full:
        return args.model or ""
    folder = args.out / "sd21-random"
    if not (folder / "model_index.json").is_file():
        print(f"writing a model of SD 2.1's size into {folder}", flush=True)
        words = ["-m", "benchmarks.full_size", "--out", str(folder)]
        run.in_process(words, 4, limits.left(), parse=False)
    return str(folder)


def chosen(args: argparse.Namespace, torch_device: str, model: str) -> list[Check]:
    small = replace(run.SIZES["tiny"], device="cuda", size_px=args.small_px)
    full: Setting | None = None
    if model:
        full = replace(run.SIZES["full"], device="cuda", model=model)
    checks = plan(small, full, torch_device, args.rounds)
    return [one for one in checks if one.part in args.parts and one.work in args.works]


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    limits = measure.Limits(args.seconds, args.turn_seconds)
    found = preflight.look(args.torch_python)
    if not args.look and fix_cuda(found):
        found = preflight.look(args.torch_python)
    print("\n".join(preflight.told(found)), flush=True)
    if args.look or not found.cuda.usable:
        return 0 if found.cuda.usable else 1
    words = sys.argv[1:] if argv is None else argv
    command = " ".join(["python -m benchmarks.cuda_check", *words])
    report = Report(writable_folder(args.out / "cuda-check"), found, command)
    try:
        started = measure.start(limits)
        model = full_model(args, limits)
    except run.TurnError as error:
        report.start(None, str(error))
        print(f"Jittor does not start on CUDA {found.cuda.version}: {error}")
        return 1
    report.start(started["seconds"])
    print(f"Jittor started in {started['seconds']:.0f} s", flush=True)
    measure.run_all(chosen(args, found.torch.device, model), found.torch, limits, report.add)
    for state in ("FAILED", "late"):
        if report.named(state):
            print(f"{state}: {'; '.join(report.named(state))}")
    print(f"the table is in {report.folder / 'gpu.md'}")
    return 1 if report.named("FAILED") else 0


if __name__ == "__main__":
    sys.exit(main())
