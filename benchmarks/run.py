"""Measure this package against diffusers on PyTorch: the same works, weights and inputs.

    python -m benchmarks.full_size --out work/full
    python -m benchmarks.run --size full --device cpu --model work/full --out benchmarks/results
    python -m benchmarks.table benchmarks/results/full-cpu

Both sides work in turns, each time in a process of its own. Every row is written when it is
finished, and rows that exist are left alone (--again measures them anew), so a run can be
interrupted and continued, or be split with --only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from benchmarks import machine, rows
from benchmarks.works import GROUPS, WORKS, Setting, operations, units
from jstyle.sd import hub
from jstyle.sd.files import writable_folder

SIDES = ("ours", "torch")
SIZES = {"full": Setting("", 512), "tiny": Setting(str(hub.TINY), 128)}
TIMEOUT = 3600.0


class TurnError(RuntimeError):
    """A process that failed; the message ends with what it said last."""


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        setting = make_setting(args)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    chosen = [name for name, work in WORKS.items() if work.group in ("matrix", *args.only)]
    folder = writable_folder(args.out / f"{args.size}-{args.device}")
    for name in chosen:
        path = folder / f"{name}.json"
        if path.exists() and not args.again:
            print(f"{name}: {path} is there already")
            continue
        row = measure_row(name, args, setting)
        row.save(path)
        print(f"{name}: {told(row)}")
    return 0


def make_setting(args: argparse.Namespace) -> Setting:
    """Of --size, --device and --model. Raises ValueError if there is no model."""
    setting = replace(SIZES[args.size], device=args.device)
    if args.model:
        setting = replace(setting, model=args.model)
    if not setting.model:
        raise ValueError(
            "--size full needs --model FOLDER (python -m benchmarks.full_size --out FOLDER)"
        )
    return setting


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--model", help="folder of the model (full), or another small one (tiny)")
    parser.add_argument(
        "--only", type=_groups, default=GROUPS, help=f"some of {','.join(GROUPS)}, with commas"
    )
    parser.add_argument("--sides", type=_sides, default=SIDES, help="ours,torch or one of them")
    parser.add_argument("--rounds", type=int, default=3, help="turns that each side has")
    parser.add_argument("--repeats", type=int, default=3, help="runs per turn after the first")
    parser.add_argument("--threads", type=int, default=2, help="OMP_NUM_THREADS")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--again", action="store_true", help="also rows that are there already")
    return parser


def _choice(allowed):
    def parse(text: str) -> tuple[str, ...]:
        words = tuple(filter(None, text.split(",")))
        wrong = [word for word in words if word not in allowed]
        if wrong or not words:
            raise argparse.ArgumentTypeError(f"{text!r}: allowed are {', '.join(allowed)}")
        return words

    return parse


_groups, _sides = _choice(GROUPS), _choice(SIDES)


def measure_row(name: str, args: argparse.Namespace, setting: Setting) -> rows.Row:
    """All turns of one work. Raises TurnError if a process fails."""
    row = rows.Row(name, args.size, args.device, operations(name, setting), units(name, setting))
    row.facts = machine.facts() | {
        "threads": args.threads,
        "setting": asdict(setting) | {"model": Path(setting.model).name},
        "command": " ".join(["python -m benchmarks.run", *sys.argv[1:]]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    with tempfile.TemporaryDirectory() as folder:
        results = {side: Path(folder) / f"{side}.npy" for side in args.sides}
        for number in range(args.rounds):
            for side in args.sides:
                words = {"side": side, "work": name, "repeats": args.repeats}
                words |= {"setting": asdict(setting), "result": str(results[side])}
                row.turns.append(rows.Turn(side, number, **take_turn(words, args.threads)))
        if set(args.sides) == set(SIDES):
            arrays = {side: np.load(path) for side, path in results.items()}
            row.agreement = rows.relative_l2(arrays["ours"], arrays["torch"])
    return row


def take_turn(words: dict, threads: int, timeout: float = TIMEOUT) -> dict:
    """Run the worker in a process of its own and return what it measured."""
    return in_process(["-m", "benchmarks.worker", json.dumps(words)], threads, timeout)


def in_process(
    words: list[str],
    threads: int,
    timeout: float = TIMEOUT,
    python: str = "",
    more: dict[str, str] | None = None,
    parse: bool = True,
):
    """The JSON that `python words` prints last (parse), with `more` variables.

    Raises TurnError if it fails or takes longer; what it started ends with it.
    """
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    env["PYTHONPATH"] = os.pathsep.join([str(machine.ROOT), os.environ.get("PYTHONPATH", "")])
    command = [python or sys.executable, *words]
    named = words[1] if words[0] == "-m" else "python -c"
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env | (more or {}),
        start_new_session=True,
    )
    try:
        out, error = process.communicate(timeout=timeout)
    except BaseException as stop:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(stop, subprocess.TimeoutExpired):
            raise TurnError(f"{named}: not finished after {timeout:.0f} s") from None
        raise
    if process.returncode:
        last = "\n".join(error.strip().splitlines()[-12:])
        raise TurnError(f"{named} failed ({process.returncode}):\n{last}")
    return json.loads(out.strip().splitlines()[-1]) if parse else None


def told(row: rows.Row) -> str:
    """One line about a finished row."""
    parts = [
        f"{side} {row.seconds(side):.3g} s (first {row.first_seconds(side):.3g}, "
        f"peak {row.peak_mib(side):.0f} MiB)"
        for side in row.sides()
    ]
    figures = row.summary()
    if "ratio" in figures:
        ratio = figures["ratio"]
        parts.append(f"ratio {ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})")
        parts.append(f"agreement {row.agreement:.1e}")
    return ", ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
