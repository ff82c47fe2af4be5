"""What this machine offers to Jittor: compiler, oneDNN. Looks only; imports nothing heavy.

Facts used here, for Jittor 1.3.11: it needs g++ and the Python headers at run time; its CPU
operators use the oneDNN 2.x C++ API. cuda.py looks at CUDA.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from . import cuda

# Jittor would take the git branch around site-packages, and compile all again what another compiler
# (precompiled.py) left there. CUDA has a cache of its own, because Jittor
# would load the CPU's core, found first, and stop, and renew what both share at every change.
CPU_CACHE, CUDA_CACHE = "jstyle", "jstyle-cuda"
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
SYSTEM_BINS = ("/usr/bin", "/usr/local/bin")
NEEDED = 1 << 20  # bytes that a compiler's output takes, at least
ONEDNN_FOLDER = "dnnl_lnx_2.2.0_cpu_gomp"  # the name Jittor looks for on x86-64 Linux


class OneDNN(NamedTuple):
    kind: str  # "unpacked", "jittor-offline", "system" or "missing"
    include: str = ""
    library: str = ""


def cache_root() -> Path:
    """Folder under which Jittor keeps everything it compiles."""
    return jittor_home() / ".cache" / "jittor"


def jittor_home() -> Path:
    """JITTOR_HOME; without it what Jittor itself remembers of an earlier one, or the home."""
    given = os.environ.get("JITTOR_HOME") or remembered_home()
    return Path(given).absolute() if given else Path.home()


def remembered_home() -> str | None:
    """What a JITTOR_HOME of some program made Jittor write down, for all later runs of the user."""
    try:
        found = json.loads((Path.home() / ".cache" / "jittor" / "config.json").read_text())
        return found.get("JITTOR_HOME")
    except (OSError, ValueError, AttributeError):
        return None


def usable_cores() -> int:
    """On how many cores this process may run."""
    known = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def is_compiled() -> bool:
    """False until Jittor's core has been compiled for this installation.

    The cache's path ends in four digits of the hash of where Jittor is installed, the cache's name,
    and with CUDA its version and the GPU's architecture, so that a new virtual environment or
    toolkit compiles afresh.
    """
    jittor = importlib.util.find_spec("jittor_utils")
    if jittor is None:
        return False
    place = hashlib.md5(jittor.origin.encode()).hexdigest()[:4]
    folder = _cuda_folder()
    name = os.environ.get("cache_name", CUDA_CACHE if folder else CPU_CACHE)
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    cores = cache_root().glob(f"jt*/*/*/*/*/{place}/{name}{folder}/jittor_core{suffix}")
    return next(cores, None) is not None


def uses_cuda() -> bool:
    """True where Jittor starts, or has started, with CUDA."""
    return bool(_cuda_folder())


def _cuda_folder() -> str:
    """The part of the cache's path that depends on CUDA, as a pattern; empty for the CPU."""
    given = os.environ.get("nvcc_path")
    if given == "":
        return ""
    found = cuda.find_cuda()
    return f"/cu{found.version}.*" if given or found.usable else ""


def compiler_problem() -> str:
    """One line that says what is missing to compile, or an empty string."""
    if not shutil.which(os.environ.get("cc_path") or "g++"):
        return "g++ was not found, and Jittor compiles its kernels; mend: apt install g++"
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.is_file():
        return f"{header} was not found; mend: apt install {PYTHON}-dev"
    if not python_config():
        return (
            f"{PYTHON}-config was not found in {sys.base_prefix}/bin; mend: install the "
            "development files of this Python, or set python_config_path to its path"
        )
    return ""


def why_not_compiled() -> str:
    """The likely cause of a compiler's failure, in words."""
    temporary = Path(os.environ.get("TMPDIR") or "/tmp")
    for folder, what in ((temporary, "TMPDIR"), (cache_root(), "its cache")):
        with suppress(OSError):
            if shutil.disk_usage(folder).free < NEEDED:
                return f"{folder} ({what}): disk full (No space left on device)"
    return compiler_problem() or "see what the compiler has said, and `jstyle doctor`"


def python_config() -> str:
    """The script that tells Jittor where Python's headers are, or an empty string.

    In a virtual environment Jittor looks for it beside the environment's python and in the system's
    folders, not beside the interpreter that the environment was made from (pyenv, uv, conda).
    """
    given = os.environ.get("python_config_path")
    if given and os.path.isfile(given):
        return given
    bins = (f"{sys.base_prefix}/bin", os.path.dirname(sys.executable), *SYSTEM_BINS)
    paths = (os.path.join(folder, f"{PYTHON}-config") for folder in bins)
    return next(filter(os.path.isfile, paths), "")


def started_by_mpirun() -> bool:
    """Whether Open MPI started this process; only then does Jittor use its MPI."""
    return "OMPI_COMM_WORLD_SIZE" in os.environ


def mpi_problem() -> str:
    """One line that says why Jittor's MPI cannot start under mpirun, or an empty string."""
    if os.environ.get("use_mpi", "1") != "1":
        return "mpirun started this process, but use_mpi=0 is in the environment; unset it"
    if not shutil.which(os.environ.get("mpicc_path") or "mpicc"):
        return (
            "mpirun started this process, but mpicc was not found, with which Jittor compiles its "
            "MPI; mend: apt install libopenmpi-dev"
        )
    return ""


def find_onednn(cache_root: Path) -> OneDNN:
    """Where Jittor will get oneDNN 2.x from."""
    if any((cache_root / "mkl").glob("dnnl*/lib/libmkldnn.so")):
        return OneDNN("unpacked")
    if importlib.util.find_spec("jittor_offline") is not None:
        return OneDNN("jittor-offline")
    for include, library_folder in _onednn_places():
        library = next(
            (p for n in ("libdnnl.so", "libdnnl.so.2") if (p := library_folder / n).is_file()), None
        )
        if library and (include / "dnnl.hpp").is_file() and _onednn_major(include) == 2:
            return OneDNN("system", str(include), str(library))
    return OneDNN("missing")


def _onednn_places():
    roots = [os.environ.get("DNNL_ROOT"), sys.prefix]
    yield from ((Path(r) / "include", Path(r) / "lib") for r in roots if r)
    triplet = sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu"
    for folder in (f"/usr/lib/{triplet}", "/usr/lib64", "/usr/lib"):
        yield Path("/usr/include"), Path(folder)


def _onednn_major(include: Path) -> int:
    for name in ("oneapi/dnnl/dnnl_version.h", "dnnl_version.h"):
        path = include / name
        if path.is_file():
            found = re.search(
                r"define\s+DNNL_VERSION_MAJOR\s+(\d+)", path.read_text(errors="ignore")
            )
            if found:
                return int(found.group(1))
    return 0


def link_onednn(found: OneDNN, cache_root: Path) -> None:
    """Lay a system oneDNN out as Jittor expects it, so that nothing is downloaded."""
    base = cache_root / "mkl"
    staged = base / f"tmp.{os.getpid()}"
    (staged / "lib").mkdir(parents=True)
    (staged / "include").mkdir()
    for name in {"libmkldnn.so", Path(found.library).name}:
        (staged / "lib" / name).symlink_to(found.library)
    headers = [*Path(found.include).glob("dnnl*.h*"), Path(found.include) / "oneapi"]
    for header in headers:
        if header.exists():
            (staged / "include" / header.name).symlink_to(header)
    try:
        staged.rename(base / ONEDNN_FOLDER)
    except OSError:  # another process was faster
        shutil.rmtree(staged, ignore_errors=True)
