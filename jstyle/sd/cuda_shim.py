"""A toolkit in the user's cache with which Jittor 1.3.11 works on CUDA 13 and on cuDNN 9.

Jittor is written for CUDA up to 12 and cuDNN 8, and newer images carry neither. Nothing that is
installed is touched: `build` makes a folder of links to the headers and libraries that are there,
in the toolkit and in the folders where PyTorch's wheels have them, with four headers of its own in
front (`cuda_headers/`) and an nvcc that calls the real one. Start-up finds that folder as it finds
any other toolkit (`cuda.find_cuda`).

What was tried without a GPU is told in `tests/cuda/README.md`; on a GPU it has not run.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from . import cuda

HEADERS = Path(__file__).parent / "cuda_headers"
OWN = ("cudnn.h", "cub/cub.cuh", "cuda_runtime.h", "npp.h")
SAID = "12.9"  # the version that the nvcc tells: the newest that Jittor and `cuda` take
RENAMED = {"ops_infer": "ops", "ops_train": "ops", "cnn_infer": "cnn", "cnn_train": "cnn"}
MULTIARCH = "lib/x86_64-linux-gnu"
NVCC = """#!/bin/sh
# CUDA {version}, under the newest name that Jittor takes; its CUB needs C++17
case "$*" in --version) echo "Cuda compilation tools, release {said}, V{said}.{patch}"; exit;; esac
exec "{nvcc}" "$@" -std=c++17
"""
PROBE = """#include <cuda_runtime.h>
#include <cuda_fp16.h>
#include <cublas_v2.h>
#include <cudnn.h>
#include <cufft.h>
#include <curand.h>
#include <cusparse.h>
#include <npp.h>
#include <cub/cub.cuh>
__global__ void largest(int* out, __half* half) {
    out[0] = cub::Max()(NPP_MAX_32S, out[0]);
    half[0] = __float2half(1.0f);
}
extern "C" long versions() {
    cudaDeviceProp properties;
    properties.computeMode = 0;
    properties.clockRate = 0;
    largest<<<1, 1>>>((int*)0, (__half*)0);
    cublasHandle_t blas; cublasCreate(&blas);
    curandGenerator_t random; curandCreateGenerator(&random, CURAND_RNG_PSEUDO_DEFAULT);
    cusparseHandle_t sparse; cusparseCreate(&sparse);
    cufftHandle fourier; cufftCreate(&fourier);
    return cudnnGetVersion();
}
"""
LINKED = ("cublas", "cudnn", "cufft", "curand", "cusparse")


class ShimError(RuntimeError):
    """Why no such toolkit can be made, in one line."""


def fix() -> tuple[Path, str]:
    """Make one for the first toolkit that allows it; returns its nvcc, and what it stands for.

    Raises ShimError if there is no toolkit, or none from which one can be made.
    """
    reasons = []
    for nvcc in cuda.candidates():
        if not cuda.is_shim(nvcc):
            try:
                return build(nvcc), ".".join(map(str, cuda.version_of(nvcc)))
            except (ShimError, ValueError) as error:
                reasons.append(str(error))
    if not reasons:
        raise ShimError(f"no nvcc was found; {cuda.WHOLE_TOOLKIT}")
    raise ShimError(min(reasons, key=len))  # of the toolkit that lacks least


def build(nvcc: str) -> Path:
    """The folder for one toolkit, made anew, tried, and put in place when it is whole."""
    version = cuda.version_of(nvcc)
    toolkit = cuda.Toolkit(Path(nvcc), version)
    name = hashlib.sha256(str(toolkit.root).encode()).hexdigest()[:8]
    target = cuda.shims() / name  # no "cuda" in it: Jittor warns of libraries' paths with that word
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".new-") as scratch:
        made = Path(scratch) / name
        _link_headers(toolkit, made / "include")
        _link_libraries(toolkit, made / "lib64")
        _write_nvcc(toolkit, made / "bin" / "nvcc")
        (made / cuda.SHIM_MARK).write_text(f"{nvcc}\n")
        _require_everything(made, toolkit)
        _try(made)
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)
    return target / "bin" / "nvcc"


def wheels(major: int) -> Iterator[Path]:
    """Folders with include/ and lib/ of NVIDIA's wheels for this CUDA, in any Python of PATH."""
    bins = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    roots = [Path(sys.prefix), *(folder.resolve().parent for folder in bins)]
    sites = [Path(entry) for entry in sys.path if entry.endswith("-packages")]
    sites += filter(None, map(_site, ("python3", "python")))
    for root in dict.fromkeys(roots):
        pattern = f"{glob.escape(str(root))}/lib/python3*/*-packages"
        sites += map(Path, sorted(glob.glob(pattern)))
    for site in dict.fromkeys(sites):
        for part in sorted(site.glob("nvidia/*")):
            other = re.fullmatch(r"cu(\d+)", part.name)
            if not other or int(other[1]) == major:
                yield part


def _site(name: str) -> Path | None:
    """Where the Python of that name has its packages, which a wrapper or a link would hide."""
    python = shutil.which(name)
    if python is None:
        return None
    command = [python, "-I", "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Path(done.stdout.strip()) if done.returncode == 0 and done.stdout.strip() else None


def _link(source: Path, target: Path) -> None:
    """The first one found stays."""
    if not target.is_symlink():
        target.symlink_to(source.resolve())


def _link_headers(toolkit: cuda.Toolkit, include: Path) -> None:
    include.mkdir(parents=True)
    root = toolkit.root
    folders = [root / "include", root / "targets/x86_64-linux/include"]
    folders += [folder / "cccl" for folder in folders]
    folders += [part / "include" for part in wheels(toolkit.version[0])]
    for folder in filter(Path.is_dir, folders):
        for entry in sorted(folder.iterdir()):
            if entry.name != "cccl":
                _link(entry, include / entry.name)
    for folder in (cuda.SYSTEM / "include", cuda.SYSTEM / "include/x86_64-linux-gnu"):
        for entry in sorted(folder.glob("cudnn*.h")):
            _link(entry, include / entry.name)
    _put_own_headers(include)


def _put_own_headers(include: Path) -> None:
    """Ours in front; the real ones of the same name get another name."""
    if (include / "cub").is_symlink():
        real = (include / "cub").resolve()
        (include / "cub").unlink()
        (include / "cub").mkdir()
        for entry in real.iterdir():
            _link(entry, include / "cub" / entry.name)
    for name in OWN:
        mine = include / name
        if name == "npp.h" and mine.exists():
            continue
        if mine.is_symlink():
            mine.rename(mine.with_name(f"{mine.stem}_real{mine.suffix}"))
        elif name != "npp.h":
            continue  # what is missing is named later
        shutil.copyfile(HEADERS / name, mine)


def _link_libraries(toolkit: cuda.Toolkit, libraries: Path) -> None:
    libraries.mkdir(parents=True)
    root = toolkit.root
    folders = [toolkit.lib, root / "lib64", root / "lib", root / "targets/x86_64-linux/lib"]
    folders += [part / "lib" for part in wheels(toolkit.version[0])]
    for folder in filter(Path.is_dir, folders):
        for entry in sorted([*folder.glob("lib*.so*"), *folder.glob("libcuda*.a")]):
            if entry.is_file():
                _link(entry, libraries / entry.name)
    for folder in (cuda.SYSTEM / MULTIARCH, cuda.SYSTEM / "lib"):
        for entry in sorted(folder.glob("libcudnn*.so*")):
            _link(entry, libraries / entry.name)
    for entry in sorted(libraries.glob("lib*.so.*")):  # wheels have no names for the linker
        _link(entry, libraries / f"{entry.name.partition('.so')[0]}.so")
    for name, real in RENAMED.items():  # the names that Jittor loads before cuDNN itself
        if (libraries / f"libcudnn_{real}.so").exists():
            _link(libraries / f"libcudnn_{real}.so", libraries / f"libcudnn_{name}.so")


def _write_nvcc(toolkit: cuda.Toolkit, nvcc: Path) -> None:
    nvcc.parent.mkdir(parents=True)
    major, minor = toolkit.version
    said = SAID if major > cuda.NEWEST_CUDA else f"{major}.{minor}"
    words = {"version": f"{major}.{minor}", "said": said, "patch": 100 * major + minor}
    nvcc.write_text(NVCC.format(nvcc=toolkit.nvcc.absolute(), **words))
    nvcc.chmod(0o755)


def _require_everything(made: Path, toolkit: cuda.Toolkit) -> None:
    names = [name for name in (*cuda.HEADERS, "cudnn.h") if not (made / "include" / name).exists()]
    wanted = ("cudart", *cuda.LIBRARIES, *cuda.CUDNN_LIBRARIES)
    names += [f"lib{n}.so" for n in wanted if not (made / "lib64" / f"lib{n}.so").exists()]
    if names:
        raise ShimError(
            f"{toolkit.root} and the wheels of the Pythons in PATH (nvidia-cublas, "
            f"nvidia-cudnn-cu{toolkit.version[0]}, ..., as PyTorch brings them) lack "
            f"{', '.join(names)}"
        )


def _try(made: Path) -> None:
    """Compile, link and load a library that names what Jittor uses. Runs nothing on a GPU."""
    source, output = made / "probe.cu", made / "probe.so"
    source.write_text(PROBE)
    words = [made / "bin/nvcc", source, "-o", output, "-shared", "-Xcompiler", "-fPIC", "-w"]
    words += ["-x", "cu", "-std=c++14", f"-I{made / 'include'}", f"-L{made / 'lib64'}"]
    words += ["--cudart=shared", *(f"-l{name}" for name in LINKED)]
    load = [sys.executable, "-c", "import ctypes, sys; ctypes.CDLL(sys.argv[1])", output]
    env = os.environ | {"LD_LIBRARY_PATH": str(made / "lib64")}
    for what, command in (("compile", words), ("load", load)):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=env)
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason told"]
            reason = next((line for line in lines if "error" in line.lower()), lines[-1])
            raise ShimError(f"a first kernel does not {what}: {reason.strip()[:200]}")
    source.unlink()
    output.unlink()
