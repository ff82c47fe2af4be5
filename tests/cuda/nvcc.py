"""An nvcc that compiles CUDA C++ for the host:  nvcc.py [nvcc's arguments]

The source is preprocessed with `include/` in front (device functions become host functions, see
cuemu.h), `kernel<<<grid, block>>>(...)` is rewritten into a call that runs every thread in turn,
and g++ makes the library that Jittor asked for. KEEP_EMULATED=1 keeps the rewritten source beside
the output. Used through a script called nvcc, which `make` writes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

INCLUDE = Path(__file__).resolve().parent / "include"
VERSION = "Cuda compilation tools, release 11.8, V11.8.89"
SOURCE = re.compile(r"\.(cc|cu|cpp)$")
# a kernel with one of these needs threads that wait for each other
WAITING = re.compile(r"__syncthreads|__syncwarp|__shfl|cub::|shared_reduce|BlockReduce|WarpReduce")
BEFORE = ("cusparse.h",)  # names a parameter blockDim, which is a macro here
WITH_VALUE = ("-x", "-Xptxas", "-gencode")
DROPPED = (
    *("--cudart", "-ccbin", "--use_fast_math", "-arch", "-code", "--expt", "--extended"),
    *("-maxrregcount", "-lineinfo", "-G", "-allow-unsupported", "-O"),
)


class Arguments(NamedTuple):
    source: str
    output: str
    flags: list[str]  # for g++


def parse(words: list[str]) -> Arguments:
    source = output = ""
    flags, rest = [], iter(words)
    for word in rest:
        if word == "-o":
            output = next(rest)
        elif word in WITH_VALUE:
            next(rest)
        elif word in ("-Xcompiler", "--compiler-options"):
            flags.append(next(rest))
        elif SOURCE.search(word) and not word.startswith("-"):
            source = word
        elif not word.startswith(DROPPED):
            flags.append(word.replace('"', ""))
    return Arguments(source, output, flags)


def callee_start(text: str, end: int) -> int:
    """Where the name of the kernel begins whose launch has its `<<<` after `end`."""
    while text[end - 1].isspace():
        end -= 1
    if text[end - 1] == ">":  # template arguments
        depth = 0
        while True:
            end -= 1
            depth += (text[end] == ">") - (text[end] == "<")
            if not depth:
                break
    while text[end - 1].isalnum() or text[end - 1] in "_:":
        end -= 1
    return end


def rewrite_launches(text: str) -> str:
    """kernel<<<config>>>(...) -> cuemu::launch([&](auto... a) { kernel(a...); }, config)(...)"""
    parts, at = [], 0
    while (begin := text.find("<<<", at)) >= 0:
        name, end = callee_start(text, begin), text.index(">>>", begin)
        call = f"[&](auto... a_) {{ {text[name:begin]}(a_...); }}, {text[begin + 3 : end]}"
        parts += [text[at:name], f"cuemu::launch({call})"]
        at = end + 3
    return "".join([*parts, text[at:]])


def compile_source(args: Arguments) -> int:
    text = Path(args.source).read_text(errors="replace")
    waits = WAITING.search(text) is not None
    early = [word for name in BEFORE if f"<{name}>" in text for word in ("-include", name)]
    first = ["-x", "c++", f"-I{INCLUDE}", *early, "-include", f"{INCLUDE}/cuemu.h"]
    flags = [f for f in args.flags if not f.startswith(("-l", "-L", "-shared"))]
    command = ["g++", "-E", *first, *flags, args.source]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.stderr.write(done.stderr)
        return done.returncode
    rewritten = Path(args.output + ".emulated.ii")
    start = f"\nstatic bool cuemu_start = (cuemu::fibers = {str(waits).lower()});\n"
    rewritten.write_text(rewrite_launches(done.stdout) + start)
    flags = [f for f in args.flags if not f.startswith("-I")]
    words = ["-x", "c++", str(rewritten), "-x", "none", "-O2", "-fno-strict-aliasing"]
    # Jittor's weight gradient reads one element past an array; with it g++ would never leave that
    # loop. nvcc compiles host code without optimisation.
    words.append("-fno-aggressive-loop-optimizations")
    status = subprocess.call(["g++", *words, "-fpermissive", "-w", *flags, "-o", args.output])
    if not status and not os.environ.get("KEEP_EMULATED"):
        rewritten.unlink()
    return status


def main(words: list[str]) -> int:
    if "--version" in words:
        print(VERSION)
        return 0
    args = parse(words)
    if not args.source or not args.output:
        print("nvcc (emulated): a source and -o are needed", file=sys.stderr)
        return 1
    return compile_source(args)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
