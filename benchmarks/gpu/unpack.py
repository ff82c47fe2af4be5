"""Unpack what `pack` wrote:  python3 unpack.py FOLDER [--python auto|carried|own]

Needs any Python from 3.8 on and nothing else. Every part is checked by its SHA-256 first. FOLDER
gets the project, the packages and, where this Python is not of the version that they are made for
or has no headers, the Python that came along; and `run`, which starts that Python with everything
in place:  FOLDER/run -m benchmarks.cuda_check --out results
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import io
import json
import lzma
import os
import sys
import sysconfig
import tarfile
from pathlib import Path

RUN = """#!/bin/sh
# Python with what was carried here; JSTYLE_* is for the machine's own PyTorch
here=$(cd "$(dirname "$0")" && pwd)
export JSTYLE_REFERENCE="$here/reference" JSTYLE_LIBRARY_PATH_BEFORE="$LD_LIBRARY_PATH"
export PYTHONPATH="$here/project:$here/packages${{PYTHONPATH:+:$PYTHONPATH}}"
{libraries}cd "$here/project"
exec "{python}" "$@"
"""
LIBRARIES = """LD_LIBRARY_PATH="$here/python/lib:$here/python/lib/extra"
LD_LIBRARY_PATH="$LD_LIBRARY_PATH${JSTYLE_LIBRARY_PATH_BEFORE:+:$JSTYLE_LIBRARY_PATH_BEFORE}"
export LD_LIBRARY_PATH
"""


class UnpackError(RuntimeError):
    """One line: why nothing, or not all, is unpacked."""


class Joined(io.RawIOBase):
    """Parts, read as one file."""

    def __init__(self, paths):
        self.paths, self.file = list(paths), None

    def readable(self):
        return True

    def readinto(self, buffer):
        while True:
            if self.file is None:
                if not self.paths:
                    return 0
                self.file = self.paths.pop(0).open("rb")
            count = self.file.readinto(buffer)
            if count:
                return count
            self.file.close()
            self.file = None


def require_parts(source, bundle):
    """Raise UnpackError unless every part is there and whole."""
    missing, wrong = [], []
    for part in (part for parts in bundle["parts"].values() for part in parts):
        path = source / part["file"]
        if not path.is_file():
            missing.append(path.name)
        elif hashlib.sha256(path.read_bytes()).hexdigest() != part["sha256"]:
            wrong.append(path.name)
    if missing or wrong:
        told = ["not there: " + ", ".join(missing)] * bool(missing)
        told += ["damaged: " + ", ".join(wrong)] * bool(wrong)
        raise UnpackError(f"{source} holds not all parts; {'; '.join(told)}")


def own_python_problem(version):
    """Why the Python that runs this cannot be used, or an empty string."""
    mine = f"{sys.version_info.major}.{sys.version_info.minor}"
    if mine != version:
        return f"this Python is {mine}, the packages are for {version}"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        return "this Python has no headers"
    return ""


def extract(source, parts, folder):
    joined = io.BufferedReader(Joined(source / part["file"] for part in parts))
    with lzma.open(joined) as packed, tarfile.open(fileobj=packed, mode="r|") as archive:
        for entry in archive:
            target = (folder / entry.name).resolve()
            if not entry.isfile() or folder.resolve() not in target.parents:
                raise UnpackError(f"{entry.name} is no plain file in its archive")
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.extractfile(entry) as data, target.open("wb") as file:
                while True:
                    block = data.read(1 << 20)
                    if not block:
                        break
                    file.write(block)
            target.chmod(entry.mode | 0o600)


def drop_known_libraries(folder):
    """The system's own libraries are used where it has them; a carried one might be older."""
    for path in sorted(folder.glob("*.so*")):
        try:
            ctypes.CDLL(path.name)
        except OSError:
            continue
        path.unlink()


def unpack(source, folder, choice):
    """Returns the command to start with."""
    bundle = json.loads((source / "bundle.json").read_text())
    require_parts(source, bundle)
    if folder.exists() and any(folder.iterdir()):
        raise UnpackError(f"{folder} holds files already")
    problem = own_python_problem(bundle["python"])
    carried = choice == "carried" or (choice == "auto" and bool(problem))
    if carried and "python" not in bundle["parts"]:
        raise UnpackError(f"{problem or 'the carried Python is asked for'}, and none was packed")
    if problem and not carried:
        raise UnpackError(problem)
    for name, parts in bundle["parts"].items():
        if name != "python" or carried:
            extract(source, parts, folder / name)
    python = sys.executable
    if carried:
        drop_known_libraries(folder / "python" / "lib" / "extra")
        python = "$here/python/bin/python" + bundle["python"]
        print(f"the Python that came along is used: {problem or 'as asked for'}")
    run = folder / "run"
    run.write_text(RUN.format(python=python, libraries=LIBRARIES if carried else ""))
    run.chmod(0o755)
    return run


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path, help="a new or empty folder")
    parser.add_argument("--parts", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("--python", choices=("auto", "carried", "own"), default="auto")
    args = parser.parse_args(argv)
    try:
        run = unpack(args.parts, args.folder, args.python)
    except (UnpackError, OSError, ValueError, KeyError, lzma.LZMAError, tarfile.TarError) as error:
        sys.stderr.write(f"unpack.py: error: {error}\n")
        return 1
    print(f"now: {os.path.relpath(run)} -m benchmarks.cuda_check --out results")
    return 0


if __name__ == "__main__":
    sys.exit(main())
