"""What a command does differently in the processes that mpirun starts. Needs no Jittor."""

from __future__ import annotations

import io
import os
import sys
import time
from contextlib import redirect_stderr, redirect_stdout

from jstyle.console.program import Program
from jstyle.sd import ending
from jstyle.sd.toolchain import started_by_mpirun

HEAD_START = 3.0  # seconds in which the first process can name an error that all of them found


ALLOWED = ("train", "-h", "--help", "--version")


def speak_in_turn(program: Program, argv: list[str] | None = None) -> int:
    """Run a command and return its exit code; under mpirun, the first process alone prints.

    Another one that fails keeps its words until mpirun, which ends all processes when one fails,
    would have ended it because of the first one's error. One that fails under mpirun does not
    return, but ends at once: MPI's orderly end would wait for the others.
    """
    if not started_by_mpirun():
        return program.main(argv)
    rank, words = int(os.environ["OMPI_COMM_WORLD_RANK"]), io.StringIO()
    if rank == 0:
        code = _run(program, argv)
    else:
        with redirect_stdout(words), redirect_stderr(words):
            code = _run(program, argv)
    if code == 0:
        return code
    if ending.asked() is not None:
        ending.end(code)
    if rank > 0:
        time.sleep(HEAD_START)
        last = words.getvalue().strip().splitlines()[-1:]
        print(f"process {rank}:", *last, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run(program: Program, argv: list[str] | None) -> int:
    command = next(iter(sys.argv[1:] if argv is None else argv), "--help")
    if int(os.environ["OMPI_COMM_WORLD_SIZE"]) == 1 or command in ALLOWED:
        return program.main(argv)
    text = f"works in one process; mpirun can start several for {program.name} train alone"
    print(f"{program.name} {command}: error: {text}", file=sys.stderr)
    return 2
