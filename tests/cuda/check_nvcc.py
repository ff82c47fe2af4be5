"""Compile the device side of every CUDA source that runs on the emulated device have made, with a
real nvcc:  python -m tests.cuda.check_nvcc --nvcc PATH | --deb FILE [--arch 70 80 90]

--deb: Debian's package nvidia-cuda-toolkit (component non-free; `apt-get download` fetches it),
which is unpacked beside the device and not installed. Each source is compiled to a cubin (front
end, cicc and ptxas; no host side), 2 to 10 s each. The counts and the names of those that failed
are printed, and each result is a line of --log, so that an interrupted check goes on.
--every N takes each Nth source only, a sample.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.cuda import laboratory

PROFILE = """TOP = $(_HERE_)/..
NVVMIR_LIBRARY_DIR = $(TOP)/nvvm/libdevice
PATH += $(_HERE_):
INCLUDES += "-I$(TOP)/include" $(_SPACE_)
"""
HELPERS = ("cudafe++", "fatbinary", "nvlink", "ptxas")
DROPPED = ("-l", "-L", "-shared", "-arch", "-code", "--cudart", "-ccbin")
OF_HOST = ("-Xlinker", "-o")


def unpack(deb: Path, folder: Path) -> Path:
    """nvcc and what it calls, out of Debian's package; returns nvcc."""
    nvcc = folder / "bin" / "nvcc"
    if nvcc.is_file():
        return nvcc
    unpacked = folder / "unpacked"
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["dpkg-deb", "-x", deb, unpacked], check=True)
    toolkit = unpacked / "usr/lib/nvidia-cuda-toolkit"
    (folder / "nvvm" / "libdevice").mkdir(parents=True)
    shutil.copytree(toolkit / "bin/crt", folder / "bin/crt")
    for name in ("nvcc", "cicc"):  # and not Debian's g++ beside them, which wants an older one
        shutil.copy(toolkit / "bin" / name, folder / "bin" / name)
    for name in HELPERS:
        shutil.copy(unpacked / "usr/bin" / name, folder / "bin" / name)
    shutil.copy(toolkit / "libdevice/libdevice.10.bc", folder / "nvvm/libdevice")
    (folder / "bin" / "nvcc.profile").write_text(PROFILE)
    shutil.rmtree(unpacked)
    return nvcc


def commands(include: Path) -> dict[str, list[str]]:
    """The words that Jittor gave nvcc for each kernel, without those for linking, by its name.

    include: the headers of the compiler's own toolkit, in place of the device's where they exist.
    """
    found = {}
    emulated = str(laboratory.folder() / "toolkit" / "include")
    own = str(include) if (include / "cuda_runtime.h").is_file() else emulated
    pattern = ".cache/jittor/jt*/**/cu*/jit/*.key"
    for key in sorted((laboratory.folder() / "home").glob(pattern)):
        line = key.read_text(errors="replace").splitlines()[0]
        words = shlex.split(line)
        if words[0].endswith("/nvcc"):
            found[key.name.removesuffix("_op.so.key")] = device_side(
                [word.replace(emulated, own) for word in words[1:]]
            )
    return found


def device_side(words: list[str]) -> list[str]:
    kept, rest = [], iter(words)
    for word in rest:
        if word in OF_HOST:
            next(rest)
        elif word in ("-Xcompiler", "-x"):
            kept += [word, next(rest)]
        elif not word.startswith(DROPPED) and (word.endswith(".cc") or word[0] == "-"):
            kept.append(word)
    return kept


def check(nvcc: Path, log: Path, job: tuple[str, list[str], int]) -> bool:
    name, words, arch = job
    command = [
        nvcc,
        *words,
        "-w",
        "-allow-unsupported-compiler",
        "-cubin",
        f"-arch=sm_{arch}",
        "-o",
        os.devnull,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    reason = [
        line
        for line in (done.stderr + done.stdout).splitlines()
        if "error" in line or "fatal" in line
    ][:2]
    told = "ok" if done.returncode == 0 else "FAILED"
    with log.open("a") as file:
        file.write(f"{told} {arch} {name} {' | '.join(reason)}".rstrip() + "\n")
    return done.returncode == 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cuda.check_nvcc", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--nvcc", type=Path, help="of CUDA 11.8, or what `jstyle doctor --fix-cuda` makes"
    )
    parser.add_argument("--deb", type=Path, help="Debian's package, instead")
    parser.add_argument("--arch", type=int, nargs="+", default=[90, 80, 70])
    parser.add_argument("--log", type=Path, default=laboratory.folder() / "nvcc.log")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="then stop")
    parser.add_argument("--every", type=int, default=1, help="take every Nth source")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="compilers at once")
    args = parser.parse_args(argv)
    if laboratory.missing() or not (args.nvcc or args.deb):
        parser.error(laboratory.missing() or "--nvcc or --deb is needed")
    nvcc = args.nvcc or unpack(args.deb, laboratory.folder() / "nvcc")
    known = args.log.read_text().splitlines() if args.log.is_file() else []
    done = {tuple(line.split()[1:3]) for line in known}
    known_commands = commands(nvcc.parent.parent / "include")
    chosen = list(known_commands.items())[:: args.every]
    jobs = [(n, words, a) for a in args.arch for n, words in chosen]
    jobs = [job for job in jobs if (str(job[2]), job[0]) not in done]
    deadline = time.monotonic() + args.seconds
    run = partial(check, nvcc, args.log)
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda job: time.monotonic() < deadline and run(job), jobs))
    lines = args.log.read_text().splitlines()
    for arch in args.arch:
        mine = [line for line in lines if line.split()[1] == str(arch)]
        failed = [line for line in mine if not line.startswith("ok")]
        print(f"sm_{arch}: {len(mine)} of {len(known_commands)} compiled, {len(failed)} failed")
        print("\n".join(failed), end="\n" if failed else "")
    return 1 if any(line.startswith("FAILED") for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
