"""Make the emulated CUDA device:  python -m tests.cuda.make [--again] [--wheels FOLDER]

Headers of CUDA 11.8 and cuDNN 8.9 come from NVIDIA's wheels on PyPI (1.7 GB are downloaded and
thrown away, 60 MB stay); the libraries are built from `device/`; then Jittor is started once, which
compiles its core for the device (six minutes on two cores). Nothing outside of the folder that
`laboratory.folder()` names is written. Needs pip, g++, nm and unpacked room for the largest wheel.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

from tests.cuda import laboratory
from tests.cuda.laboratory import ROOT

HERE = Path(__file__).resolve().parent
WHEELS = (
    "nvidia-cuda-runtime-cu11==11.8.89",
    "nvidia-cuda-nvcc-cu11==11.8.89",
    "nvidia-cuda-cccl-cu11==11.8.89.post1",
    "nvidia-cublas-cu11==11.11.3.6",
    "nvidia-curand-cu11==10.3.0.86",
    "nvidia-cufft-cu11==10.9.0.58",
    "nvidia-cusparse-cu11==11.7.5.86",
    "nvidia-npp-cu11==11.8.0.86",
    "nvidia-cudnn-cu11==8.9.6.50",
)
WHEELS_13 = (
    "nvidia-cuda-runtime==13.0.*",
    "nvidia-cuda-crt==13.0.*",
    "nvidia-cuda-cccl==13.0.*",
    "nvidia-cublas==13.1.*",
    "nvidia-curand==10.4.*",
    "nvidia-cufft==12.0.*",
    "nvidia-cusparse==12.6.*",
    "nvidia-cudnn-cu13>=9,<10",
)
DEVICE = "libemulated.so"
LIBRARIES = (  # links to it
    (
        *("libcuda.so", "libcuda.so.1", "libcudart.so", "libcublas.so", "libcublasLt.so"),
        *("libcurand.so", "libcufft.so", "libcusparse.so", "libcudnn.so", "libcudnn.so.8"),
        "libcutt.so",
        *(
            f"libcudnn_{part}.so{version}"
            for part in ("ops_infer", "ops_train", "cnn_infer", "cnn_train")
            for version in ("", ".8")
        ),
    )
)
NVCC = """#!/bin/sh
exec {python} {stand_in} "$@"
"""
FIRST = """
import os
from jstyle.sd import toolchain
os.environ |= {"cache_name": toolchain.CUDA_CACHE, "log_silent": "1"}
import jittor_utils
del os.environ["log_silent"]  # or Jittor's fatal errors would be silent too
cores = os.cpu_count() or 1
jittor_utils.get_total_mem = lambda: cores * 3 * 2**30  # one compiler is started for every 3 GiB
from jstyle.sd.startup import jt
jt.flags.use_cuda = 1
assert (jt.ones(3) * 2).sum().item() == 6
"""


class SetupError(RuntimeError):
    """One line: what did not work, and where to look."""


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def call(*words: str | Path, what: str) -> str:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise SetupError(f"{what} failed: {' | '.join(lines[-3:])}")
    return done.stdout


def symbols(library: Path, *flags: str) -> set[str]:
    """The functions that a library or an object defines."""
    rows = map(str.split, call("nm", *flags, library, what="nm").splitlines())
    return {row[-1].split("@")[0] for row in rows if len(row) == 3 and row[1] in "TWi"}


def fetch_headers(toolkit: Path, given: Path | None, wheels: Sequence[str] = WHEELS) -> set[str]:
    """Headers into toolkit/include; returns the names of the functions of the real libraries."""
    names: set[str] = set()
    for wheel in wheels:
        say(f"fetch {wheel}")
        with tempfile.TemporaryDirectory(dir=toolkit.parent) as scratch:
            where = given or Path(scratch)
            if given is None:
                command = ("-m", "pip", "download", "-q", "--no-cache-dir", "--no-deps")
                call(sys.executable, *command, "-d", scratch, wheel, what=f"pip download {wheel}")
            stem = re.split("[=<>]", wheel)[0].replace("-", "_")
            files = sorted(where.glob(f"{stem}-*.whl"))
            if not files:
                raise SetupError(f"no {stem}-*.whl in {where}")
            names |= take_apart(files[-1], toolkit, Path(scratch))
    return names


def take_apart(wheel: Path, toolkit: Path, scratch: Path) -> set[str]:
    names: set[str] = set()
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            _, _, header = entry.filename.partition("/include/")
            if header and not header.endswith((".py", "/")):
                target = toolkit / "include" / header
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(entry))
            elif "/lib/" in entry.filename and ".so" in entry.filename:
                library = Path(archive.extract(entry, scratch))
                names |= symbols(library, "-D")
                library.unlink()
    return {n for n in names if n.startswith(("cu", "__cuda"))}


def build_device(toolkit: Path, names: Sequence[str] = LIBRARIES) -> None:
    """The one library that stands for all of NVIDIA's, and links to it under their names."""
    say("build the device's library")
    include = f"-I{toolkit / 'include'}"
    objects = []
    build = toolkit / "objects"
    build.mkdir(exist_ok=True)
    for source in sorted((HERE / "device").glob("*.cpp")):
        objects.append(build / f"{source.stem}.o")
        flags = ("-std=c++17", "-O3", "-march=native", "-ffast-math", "-fPIC", "-w", include)
        call("g++", *flags, "-c", source, "-o", objects[-1], what=source.name)
    have = set().union(*map(symbols, objects))
    wanted = set((toolkit / "functions.txt").read_text().split()) - have
    fallback = build / "fallback.c"
    lines = ["int device_lacks(const char*);"]
    lines += [f'int {n}() {{ return device_lacks("{n}"); }}' for n in sorted(wanted)]
    fallback.write_text("\n".join(lines))
    call("gcc", "-w", "-O1", "-fPIC", "-c", fallback, "-o", build / "fallback.o", what="fallback")
    libraries = toolkit / "lib64"
    libraries.mkdir(exist_ok=True)
    target = libraries / DEVICE
    soname = f"-Wl,-soname,{DEVICE}"
    call(*("g++", "-shared", "-o", target, soname, *objects, build / "fallback.o"), what="linking")
    for name in names:
        (libraries / name).unlink(missing_ok=True)
        (libraries / name).symlink_to(DEVICE)


def write_nvcc(toolkit: Path) -> None:
    nvcc = toolkit / "bin" / "nvcc"
    nvcc.parent.mkdir(exist_ok=True)
    nvcc.write_text(NVCC.format(python=sys.executable, stand_in=HERE / "nvcc.py"))
    nvcc.chmod(0o755)


def forget_kernels(folder: Path) -> None:
    """Remove the compiled kernels where the stand-in for nvcc has changed since."""
    digest = hashlib.sha256()
    for source in [HERE / "nvcc.py", *sorted((HERE / "include").rglob("*.*"))]:
        digest.update(source.read_bytes())
    kept = folder / "stand-in.sha256"
    if not kept.is_file() or kept.read_text() != digest.hexdigest():
        for path in (folder / "home").glob(".cache/jittor/jt*/**/cu*/jit"):
            say("the stand-in for nvcc has changed: kernels are compiled again")
            shutil.rmtree(path)
    kept.write_text(digest.hexdigest())


def start_jittor() -> None:
    """Compile Jittor's core; it ends once, when it has renewed what it had loaded."""
    say("start Jittor on the device; where its core is not compiled yet, that takes minutes")
    for _ in range(3):
        command = [sys.executable, "-c", FIRST]
        done = subprocess.run(command, cwd=ROOT, env=laboratory.environment(), text=True)
        if done.returncode == 0:
            return
    raise SetupError("Jittor does not start on the emulated device; its own words are above")


def make(wheels: Path | None, again: bool) -> None:
    folder = laboratory.folder()
    toolkit = folder / "toolkit"
    (folder / laboratory.STARTED).unlink(missing_ok=True)
    if again:
        shutil.rmtree(folder, ignore_errors=True)
    (toolkit / "include").mkdir(parents=True, exist_ok=True)
    (folder / "home").mkdir(exist_ok=True)
    functions = toolkit / "functions.txt"
    if not functions.is_file():
        functions.write_text("\n".join(sorted(fetch_headers(toolkit, wheels))))
    build_device(toolkit)
    write_nvcc(toolkit)
    forget_kernels(folder)
    start_jittor()
    (folder / laboratory.STARTED).touch()
    say(f"the emulated CUDA device is in {folder}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=laboratory.COMMAND, description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--again", action="store_true", help="from nothing, Jittor's cache too")
    parser.add_argument("--wheels", type=Path, help="a folder that holds the wheels already")
    args = parser.parse_args(argv)
    try:
        make(args.wheels, args.again)
    except (SetupError, OSError) as error:
        print(f"tests.cuda.make: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
