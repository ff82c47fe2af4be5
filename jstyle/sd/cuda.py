"""Whether Jittor can use CUDA here, requirement by requirement. Looks only; imports nothing heavy.

Facts used here, for Jittor 1.3.11 (its compiler.py, compile_extern.py and misc/cuda_limits.h): it
compiles kernels with nvcc while it runs, for architectures up to sm_90 and without PTX; it looks
for libraries beside nvcc in ../lib64 and in the system's folders; it stops, or fails at the first
kernel, where one of HEADERS or LIBRARIES is missing; its convolutions are written for cuDNN 8, and
CUDA 13 does not compile it. `cuda_shim` makes a toolkit of links that gets around the last two.
"""

from __future__ import annotations

import ctypes
import glob
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

NEWEST_CUDA = 12
CUDNN = 8
HEADERS = (
    *("cuda_runtime.h", "cuda_fp16.h", "cublas.h", "curand.h", "cufft.h", "cusparse.h", "npp.h"),
    "cub/cub.cuh",
)
LIBRARIES = ("cublas", "curand", "cufft", "cusparse")  # cudart is looked for in lib64 alone
CUDNN_LIBRARIES = ("cudnn", "cudnn_ops_infer", "cudnn_ops_train", "cudnn_cnn_infer")
CUDNN_LIBRARIES += ("cudnn_cnn_train",)
SYSTEM = Path("/usr")
TOOLKITS = "/usr/local/cuda*/bin/nvcc"
WHOLE_TOOLKIT = (
    "install the whole toolkit of CUDA 12, not only its compiler (any /usr/local/cuda-12* is "
    "found), or run python -m jittor_utils.install_cuda"
)
FIX = "`jstyle doctor --fix-cuda` makes a toolkit of links in the cache that Jittor takes"
SHIM_MARK = "jstyle-toolkit"  # a file in such a folder; holds the real nvcc's path
GET_CUDNN = "unpack NVIDIA's archive of cuDNN 8 for this CUDA into {root}, or apt install "
GET_CUDNN += "libcudnn8-dev"


class Cuda(NamedTuple):
    nvcc: str  # "" when there is none
    version: str
    usable: bool
    reason: str  # why not, in one line
    mend: str = ""
    devices: int = 0  # that the driver shows


class Driver(NamedTuple):
    devices: int
    version: int = 0  # of the newest CUDA that it runs, 12040 for 12.4
    capabilities: tuple[int, ...] = ()  # of each device, 90 for 9.0


class Toolkit(NamedTuple):
    nvcc: Path
    version: tuple[int, int]

    @property
    def root(self) -> Path:
        return self.nvcc.resolve().parent.parent

    @property
    def shim(self) -> bool:
        return is_shim(str(self.nvcc))

    @property
    def lib(self) -> Path:
        """Where Jittor takes libcudart.so from."""
        debian = self.nvcc == SYSTEM / "bin/nvcc"
        return SYSTEM / "lib/x86_64-linux-gnu" if debian else self.root / "lib64"

    def header(self, name: str) -> Path | None:
        """The header where both Jittor's search and the compiler find it."""
        places = (self.root / "include", SYSTEM / "include")
        return next((p / name for p in places if (p / name).is_file()), None)

    def library(self, name: str) -> bool:
        beside = (self.root / "bin", self.lib, self.root / "targets/x86_64-linux/lib")
        system = (SYSTEM / "lib/x86_64-linux-gnu", SYSTEM / "lib")
        return any((place / f"lib{name}.so").is_file() for place in (*beside, *system))


def find_cuda() -> Cuda:
    """The first toolkit that Jittor can use with the driver that is there, or why none is.

    Looked at are nvcc in PATH, those under /usr/local, and the one that Jittor installs itself;
    only the one that nvcc_path names, where the user has set that.
    """
    driver = find_driver()
    paths = list(candidates())
    if not paths:
        mend = WHOLE_TOOLKIT if driver.devices else ""
        return Cuda("", "", False, "no nvcc was found", mend, driver.devices)
    found = [_examine(nvcc, driver) for nvcc in paths]
    return next((cuda for cuda in found if cuda.usable), found[0])


def home() -> Path:
    return Path(os.environ.get("JITTOR_HOME") or Path.home())


def shims() -> Path:
    """Where `cuda_shim` puts what it makes."""
    return home() / ".cache" / "jstyle" / "toolkits"


def is_shim(nvcc: str) -> bool:
    return (Path(nvcc).resolve().parent.parent / SHIM_MARK).is_file()


def candidates() -> Iterator[str]:
    """Paths of nvcc, without repetition."""
    if os.environ.get("nvcc_path"):
        yield os.environ["nvcc_path"]
        return
    jittors = f"{glob.escape(str(home()))}/.cache/jittor/jtcuda/*/bin/nvcc"
    paths = [shutil.which("nvcc"), "/usr/local/cuda/bin/nvcc"]
    paths += sorted(glob.glob(TOOLKITS), reverse=True) + sorted(glob.glob(jittors), reverse=True)
    paths += sorted(map(str, shims().glob("*/bin/nvcc")))
    seen = set()
    for path in filter(None, paths):
        real = os.path.realpath(path)
        if os.path.isfile(real) and real not in seen:
            seen.add(real)
            yield path


def version_of(nvcc: str) -> tuple[int, int]:
    """What nvcc says of itself. Raises ValueError if it does not run or names none."""
    try:
        text = subprocess.run(
            [nvcc, "--version"], capture_output=True, text=True, timeout=20
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ValueError(f"{nvcc} does not run: {error}") from None
    found = re.search(r"release (\d+)\.(\d+)", text)
    if not found:
        raise ValueError(f"{nvcc} --version names no version")
    return int(found[1]), int(found[2])


def _examine(nvcc: str, driver: Driver) -> Cuda:
    try:
        version = version_of(nvcc)
    except ValueError as error:
        return Cuda(nvcc, "", False, str(error), WHOLE_TOOLKIT, driver.devices)
    name = ".".join(map(str, version))
    if not driver.devices:
        return Cuda(nvcc, name, False, "no CUDA driver with a device")
    problems = list(_problems(Toolkit(Path(nvcc), version), driver))
    reason = "; ".join(what for what, _ in problems)
    mend = "; ".join(dict.fromkeys(mend for _, mend in problems if mend))
    return Cuda(nvcc, name, not problems, reason, mend, driver.devices)


def _problems(toolkit: Toolkit, driver: Driver) -> Iterator[tuple[str, str]]:
    """(what is missing or does not fit, what to do) of each requirement that is not met."""
    major, minor = toolkit.version
    if major > NEWEST_CUDA:
        yield (
            f"CUDA {major}.{minor} (Jittor supports up to {NEWEST_CUDA})",
            f"{FIX}; or install CUDA {NEWEST_CUDA} beside it, where "
            f"/usr/local/cuda-{NEWEST_CUDA}* is found, or run python -m jittor_utils.install_cuda",
        )
        return  # of such a toolkit nothing else matters
    if driver.version and driver.version // 1000 < major:
        runs = f"{driver.version // 1000}.{driver.version % 1000 // 10}"
        yield (
            f"the driver runs CUDA up to {runs}, the toolkit is {major}.{minor}",
            f"update NVIDIA's driver, or install CUDA {driver.version // 1000}",
        )
    yield from _architecture_problems(toolkit, driver)
    yield from _compiler_problems(toolkit)
    yield from _missing_files(toolkit)
    yield from _cudnn_problems(toolkit)


def newest_architecture(version: tuple[int, int]) -> int:
    """What Jittor compiles for at most with this CUDA, 90 for sm_90."""
    steps = (((11, 8), 90), ((11, 1), 86), ((11, 0), 80))
    return next((arch for since, arch in steps if version >= since), 75)


def _architecture_problems(toolkit: Toolkit, driver: Driver) -> Iterator[tuple[str, str]]:
    """A kernel runs on devices of its own generation only, from its own number on."""
    newest = newest_architecture(toolkit.version)
    for capability in sorted(set(driver.capabilities)):
        if min(capability, newest) // 10 != capability // 10:
            fitting = capability <= newest_architecture((NEWEST_CUDA, 0))
            yield (
                f"the GPU is an sm_{capability}, and Jittor compiles for sm_{newest} at most with "
                f"CUDA {'.'.join(map(str, toolkit.version))}",
                "install CUDA 11.8 or 12" if fitting else "none is known; the CPU works",
            )


def _compiler_problems(toolkit: Toolkit) -> Iterator[tuple[str, str]]:
    """nvcc's own check of g++, which would end the first kernel."""
    flags = os.environ.get("NVCC_APPEND_FLAGS", "") + os.environ.get("NVCC_PREPEND_FLAGS", "")
    compiler = os.environ.get("cc_path") or "g++"
    header = toolkit.header("crt/host_config.h")
    if header is None or "-allow-unsupported-compiler" in flags or not shutil.which(compiler):
        return
    limit = re.search(r"#if __GNUC__ > (\d+)", header.read_text(errors="ignore"))
    done = subprocess.run([compiler, "-dumpversion"], capture_output=True, text=True)
    have = re.match(r"\d+", done.stdout)
    if limit and have and int(have[0]) > int(limit[1]):
        yield (
            f"{compiler} {have[0]} is newer than this nvcc takes (up to {limit[1]})",
            f"apt install g++-{limit[1]} and set cc_path=g++-{limit[1]}",
        )


def _missing_files(toolkit: Toolkit) -> Iterator[tuple[str, str]]:
    missing = [name for name in HEADERS if not toolkit.header(name)]
    if not (toolkit.lib / "libcudart.so").is_file():
        missing.append("libcudart.so")
    missing += [f"lib{name}.so" for name in LIBRARIES if not toolkit.library(name)]
    if missing:
        yield f"the toolkit in {toolkit.root} lacks {', '.join(missing)}", WHOLE_TOOLKIT


def _cudnn_problems(toolkit: Toolkit) -> Iterator[tuple[str, str]]:
    mend = GET_CUDNN.format(root=toolkit.root)
    header = toolkit.header("cudnn.h")
    if header is None:
        yield f"cuDNN {CUDNN}'s cudnn.h was not found", mend
        return
    version = header.with_name("cudnn_version.h")
    text = (version if version.is_file() else header).read_text(errors="ignore")
    major = re.search(r"define\s+CUDNN_MAJOR\s+(\d+)", text)
    if major is None or (int(major[1]) != CUDNN and not toolkit.shim):
        if major and int(major[1]) > CUDNN:
            mend = f"{FIX}; or {mend}"
        found = f"cuDNN {major[1]}" if major else "cuDNN of unknown version"
        yield f"{found} in {header.parent} (Jittor needs cuDNN {CUDNN})", mend
        return
    missing = [f"lib{name}.so" for name in CUDNN_LIBRARIES if not toolkit.library(name)]
    if missing:
        yield f"cuDNN {CUDNN} lacks {', '.join(missing)}", mend


def find_driver() -> Driver:
    """What NVIDIA's driver tells of itself; no device where there is no driver."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Driver(0)
    count, version = ctypes.c_int(0), ctypes.c_int(0)
    if library.cuInit(0) != 0 or library.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return Driver(0)
    library.cuDriverGetVersion(ctypes.byref(version))
    capabilities = tuple(map(lambda i: _capability(library, i), range(count.value)))
    return Driver(count.value, version.value, capabilities)


def _capability(library: ctypes.CDLL, index: int) -> int:
    device, parts = ctypes.c_int(0), []
    library.cuDeviceGet(ctypes.byref(device), index)
    for attribute in (75, 76):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
        value = ctypes.c_int(0)
        library.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        parts.append(value.value)
    return 10 * parts[0] + parts[1]
