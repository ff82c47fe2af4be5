"""Pack what a machine with a GPU and nothing else lacks, for it has no network:

    python -m benchmarks.gpu.pack --out work/parts

Writes parts of at most 60 MiB and beside them unpack.py and bundle.json. Carry all files over, in
as many turns as it takes, and there: `python3 unpack.py FOLDER`, which says what to call next.

Packed are: this project; the packages that it needs to run, Jittor and jittor-offline among them,
from the Python that runs this; diffusers and peft, for the PyTorch that the machine may have; and
that Python itself, because the packages are made for its version. It must have a folder of its own
(pyenv, uv, conda, not the system's /usr), and headers; --without-python leaves it out.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import importlib.metadata
import io
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.machine import ROOT

MOST = 60 * 2**20  # bytes of a part
PROJECT = ("jstyle", "jdreambooth", "benchmarks", "setup.py", "LICENSE", "README.md")
REFERENCE = ("diffusers", "peft", "importlib_metadata", "zipp")  # pure Python; the rest is there
SKIPPED = (  # of packages and of Python: what nothing here imports
    *("*/__pycache__/*", "*.pyc", "*/tests/*", "*/test/*", "*/idlelib/*", "*/tkinter/*"),
    *("*/ensurepip/*", "*/site-packages/*", "*/config-3*/*", "*/lib2to3/*", "*.a", "*.pdb"),
    *("jittor_offline/*idx?-ubyte.gz", "jittor_offline/*aarch64*", "jittor_offline/nccl.tgz"),
)
SYSTEM = re.compile(r"lib(c|m|dl|pthread|rt|util|resolv|nsl|gcc_s|stdc\+\+)\.so|ld-linux")
PRESET = 1  # of xz: half a minute for 400 MB; 4 takes four times as long for a tenth less


class PackError(RuntimeError):
    """One line: why nothing is packed."""


class Parts:
    """A file object that writes NAME.000, NAME.001, ..., none larger than MOST."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.name, self.files = folder, name, []
        self.part: io.BufferedWriter | None = None
        self.room = 0

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            if not self.room:
                self._next()
            assert self.part is not None
            written = self.part.write(view[: self.room])
            self.room -= written
            view = view[written:]
        return len(data)

    def _next(self) -> None:
        self.close()
        path = self.folder / f"{self.name}.{len(self.files):03}"
        self.files.append(path)
        self.part, self.room = path.open("wb"), MOST

    def close(self) -> None:
        if self.part is not None:
            self.part.close()


def needed(name: str, known: dict[str, importlib.metadata.Distribution]) -> None:
    """Add a distribution and what it asks for here to `known`, by name in small letters."""
    from packaging.requirements import Requirement

    asked = Requirement(name)
    key = re.sub(r"[-_.]+", "-", asked.name).lower()
    if key in known:
        return
    try:
        found = importlib.metadata.distribution(asked.name)
    except importlib.metadata.PackageNotFoundError:
        raise PackError(f"{asked.name} is not installed in {sys.prefix}, so not packed") from None
    known[key] = found
    for line in found.requires or ():
        more = Requirement(line)
        extras = asked.extras or {""}
        if more.marker is None or any(more.marker.evaluate({"extra": e}) for e in extras):
            needed(str(more), known)


def runtime() -> list[str]:
    """The requirements in setup.py."""
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    found = re.search(r"^RUNTIME = \[\n(.*?)^\]", text, re.S | re.M)
    if not found:
        raise PackError("setup.py holds no list called RUNTIME")
    return re.findall(r'^\s*"([^"]+)"', found[1], re.M)


def of_packages(requirements: list[str], deep: bool = True) -> Iterator[tuple[Path, str]]:
    """(file, name in the archive) of installed packages; deep: with what they ask for."""
    known: dict[str, importlib.metadata.Distribution] = {}
    for requirement in requirements:
        if deep:
            needed(requirement, known)
        else:
            known[requirement] = importlib.metadata.distribution(requirement)
    for found in known.values():
        for entry in found.files or ():
            path = Path(str(found.locate_file(entry)))
            if ".." not in entry.parts and path.is_file():
                yield path, str(entry)


def of_project() -> Iterator[tuple[Path, str]]:
    for name in PROJECT:
        top = ROOT / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            inside = path.relative_to(ROOT)
            if path.is_file() and inside.parts[:2] != ("benchmarks", "results"):
                yield path, str(inside)


def of_python(prefix: Path) -> Iterator[tuple[Path, str]]:
    """The interpreter, its library and headers, and the libraries that it needs of the system."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    binary = prefix / "bin" / version
    if prefix == Path("/usr") or not (prefix / "include" / version / "Python.h").is_file():
        raise PackError(
            f"the Python in {prefix} has no folder of its own, or no headers: run this with one of "
            "pyenv, uv or conda, or give --without-python"
        )
    for top in (binary, prefix / "bin" / f"{version}-config", prefix / "include" / version):
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file():
                yield path, str(path.relative_to(prefix))
    libraries = sorted((prefix / "lib").glob("libpython*.so*"))
    modules = sorted((prefix / "lib" / version).rglob("*"))
    for path in filter(Path.is_file, [*libraries, *modules]):
        yield path, str(path.relative_to(prefix))
    for path in foreign([binary, *(m for m in modules if m.suffix == ".so")], prefix):
        yield path, f"lib/extra/{path.name}"


def foreign(binaries: list[Path], prefix: Path) -> list[Path]:
    """Shared libraries that these need, without glibc's and those in the prefix."""
    done = subprocess.run(["ldd", *binaries], capture_output=True, text=True)
    found = {line.split()[2] for line in done.stdout.splitlines() if "=> /" in line}
    paths = [Path(name) for name in found if not Path(name).resolve().is_relative_to(prefix)]
    return sorted(path for path in paths if not SYSTEM.match(path.name))


def write(folder: Path, name: str, files: Iterator[tuple[Path, str]]) -> list[Path]:
    """An archive in parts; the same input gives the same bytes."""
    parts = Parts(folder, f"{name}.tar.xz")
    with lzma.LZMAFile(parts, "wb", preset=PRESET) as packed:  # type: ignore[arg-type]
        with tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            for path, inside in sorted(set(files), key=lambda pair: pair[1]):
                if not any(fnmatch.fnmatch(inside, pattern) for pattern in SKIPPED):
                    entry = archive.gettarinfo(os.path.realpath(path), inside)
                    entry.mtime, entry.uid, entry.gid = 0, 0, 0
                    entry.uname = entry.gname = ""
                    with path.open("rb") as file:
                        archive.addfile(entry, file)
    parts.close()
    return parts.files


def pack(folder: Path, with_python: bool) -> dict:
    """Write everything; returns what bundle.json holds."""
    if folder.exists() and any(folder.iterdir()):
        raise PackError(f"{folder} holds files already")
    components = {"project": of_project(), "packages": of_packages(runtime())}
    installed = {d.metadata["Name"].lower() for d in importlib.metadata.distributions()}
    if {"diffusers", "peft"} <= installed:
        components["reference"] = of_packages(list(REFERENCE), deep=False)
    if with_python:
        components["python"] = of_python(Path(sys.base_prefix))
    folder.mkdir(parents=True, exist_ok=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    bundle: dict = {"python": version, "glibc": os.confstr("CS_GNU_LIBC_VERSION"), "parts": {}}
    for name, files in components.items():
        begin = time.monotonic()
        written = write(folder, name, files)
        bundle["parts"][name] = [
            {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            for path in written
        ]
        size = sum(path.stat().st_size for path in written) / 2**20
        told = f"{size:.1f} MiB in {len(written)} parts, {time.monotonic() - begin:.0f} s"
        print(f"{name}: {told}", flush=True)
    (folder / "bundle.json").write_text(json.dumps(bundle, indent=2) + "\n")
    shutil.copy(Path(__file__).with_name("unpack.py"), folder / "unpack.py")
    return bundle


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.pack", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, required=True, help="a new or empty folder")
    parser.add_argument("--without-python", action="store_true")
    args = parser.parse_args(argv)
    try:
        pack(args.out, not args.without_python)
    except (PackError, OSError) as error:
        print(f"benchmarks.gpu.pack: error: {error}", file=sys.stderr)
        return 1
    print(f"carry {args.out} over, and there: python3 unpack.py FOLDER")
    return 0


if __name__ == "__main__":
    sys.exit(main())
