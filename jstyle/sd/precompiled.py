"""A compiler for Jittor that has parsed Jittor's headers beforehand.

Two thirds of the time in which g++ compiles one of Jittor's kernels, and a third of what its core
takes, go into the same headers again and again. `g++` in the folder `compiler` is a stand-in that
precompiles them once per set of options; what it gives has the same instructions. Jittor itself is
left as it is: it is told of the stand-in by the variable cc_path.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

FILES = Path(__file__).with_name("compiler")  # g++, kernel.h, core.h


def stand_in(place: Path) -> Path | None:
    """The stand-in's path below `place`, made if it is not there; None without a GNU compiler.

    Its folder is another for another compiler or Jittor, so that no header is ever stale.
    """
    real = shutil.which("g++")
    if real is None:
        return None
    folder = place / f"compiler-{_digest(Path(real))}"
    if not (folder / "g++").is_file():
        if not _is_gnu(real):
            return None
        staged = place / f"compiler.{os.getpid()}"
        staged.mkdir(parents=True, exist_ok=True)
        for path in FILES.iterdir():
            shutil.copy(path, staged / path.name)
        (staged / "g++").chmod(0o755)
        (staged / "compiler").write_text(real)
        try:
            staged.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(staged, ignore_errors=True)
    return folder / "g++"


def _digest(real: Path) -> str:
    """Of the compiler, of Jittor, and of the stand-in's own files."""
    about = real.resolve().stat()
    digest = hashlib.sha256(f"{real.resolve()} {about.st_size} {about.st_mtime_ns}".encode())
    with suppress(importlib.metadata.PackageNotFoundError):
        jittor = importlib.metadata.distribution("jittor")
        digest.update(f"{jittor.version} {jittor.locate_file('')}".encode())
    for path in sorted(FILES.iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _is_gnu(compiler: str) -> bool:
    done = subprocess.run([compiler, "--version"], capture_output=True, text=True)
    return done.returncode == 0 and "Free Software Foundation" in done.stdout
