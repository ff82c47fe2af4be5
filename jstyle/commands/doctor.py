"""`jstyle doctor`: can the main job run here, what would be slow or fail, and how to mend it.

Looks first and starts Jittor last, in a process of its own, so that it also works, and says why,
where Jittor does not start.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from .. import __version__
from ..machine import free_disk_bytes, free_memory_bytes
from ..sd import cuda_shim, hub, toolchain
from ..sd.cuda import find_cuda, is_shim
from ..sd.toolchain import cache_root, is_compiled

OK, SLOW, FAIL = "ok", "slow", "FAIL"
RUNTIME = ("jittor", "numpy", "pillow", "safetensors", "transformers", "huggingface_hub")
REFERENCE = ("torch", "diffusers", "peft")  # only for comparing; never needed
VARIABLES = (  # read by Jittor at import
    *("nvcc_path", "cc_path", "python_config_path", "cache_name", "JITTOR_HOME", "use_mkl"),
    *("FIX_TORCH_ERROR", "log_silent", "use_parallel_op_compiler", "DISABLE_MULTIPROCESSING"),
    "OMP_NUM_THREADS",
)
CACHE_BYTES = 400e6  # what the core, oneDNN and the kernels of the commands take
WORK_BYTES = 3e9  # g++ and a stylisation with the shipped model, generously
START_SECONDS = 120
PROBE = """
import json, time
from jstyle.sd.startup import jt, import_seconds
from jstyle.sd import runtime
before = time.perf_counter()
with runtime.use("auto"):
    total = float((jt.ones((64, 64)) @ jt.ones((64, 64))).sum().item())
    device = runtime.device()
assert total == 64**3, total
seconds = time.perf_counter() - before
print(json.dumps({"device": device, "import": import_seconds, "first": seconds}))
"""


@dataclass(frozen=True)
class Check:
    """One line of the screen. state: "ok", "slow" (works, but) or "FAIL"; mend: what to do."""

    name: str
    state: str
    found: str
    mend: str = ""


def examine() -> list[Check]:
    """All checks, in the order in which they are shown. Nothing is raised for a bad machine."""
    checks = [
        _python(),
        _packages(),
        _reference(),
        _compiler(),
        _cuda(),
        _onednn(),
        _cache(),
        _memory(),
        _disk(),
        _model(),
        *_variables(),
    ]
    broken = [check.name for check in checks if check.state == FAIL and check.name != "model"]
    return [*checks, _jittor(broken)]


def fix_cuda() -> None:
    """Make a toolkit for Jittor from CUDA 13 or cuDNN 9 and say where it is, on stderr.

    Raises ValueError if nvcc_path names one already, cuda_shim.ShimError if none can be made.
    """
    given, known = os.environ.get("nvcc_path"), find_cuda()
    if known.usable and not is_shim(known.nvcc):
        print(f"CUDA {known.version} ({known.nvcc}) is usable as it is", file=sys.stderr)
        return
    if given and is_shim(given):
        raise ValueError(f"nvcc_path is {given}, which is such a toolkit already; unset nvcc_path")
    nvcc, version = cuda_shim.fix()
    print(f"CUDA {version} is usable for Jittor through {nvcc.parent.parent}", file=sys.stderr)
    if given is not None:
        print(f"nvcc_path={given} hides it; unset nvcc_path", file=sys.stderr)


def can_run(checks: list[Check]) -> bool:
    return all(check.state != FAIL for check in checks)


def as_json(checks: list[Check]) -> str:
    found = {"can_run": can_run(checks), "checks": [asdict(check) for check in checks]}
    return json.dumps(found, indent=2)


def as_text(checks: list[Check]) -> str:
    """One screen: a line per check, the mend under it where there is one, the verdict last."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.state:<5} {check.name:<{width}}  {check.found}")
        if check.mend:
            lines.append(f"{'':<5} {'':<{width}}  -> {check.mend}")
    verdict = "ready: `jstyle demo` can run here"
    if not can_run(checks):
        verdict = "not ready: mend what is marked FAIL"
    return "\n".join([*lines, verdict])


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _python() -> Check:
    found = f"{platform.python_version()} in {sys.prefix}, {platform.system()} {platform.machine()}"
    return Check("python", OK, found)


def _packages() -> Check:
    versions = {name: _version(name) for name in RUNTIME}
    found = ", ".join(f"{name} {version or 'missing'}" for name, version in versions.items())
    found = f"jstyle {__version__}, {found}"
    missing = [name for name, version in versions.items() if not version]
    if missing:
        return Check("packages", FAIL, found, f"pip install {' '.join(missing)}")
    if int(versions["numpy"].split(".")[0]) >= 2:
        return Check("packages", FAIL, found, "Jittor needs NumPy 1: pip install 'numpy<2'")
    return Check("packages", OK, found)


def _reference() -> Check:
    versions = {name: _version(name) for name in REFERENCE}
    present = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return Check("reference", OK, f"{present or 'none'} (only for comparing, never needed)")


def _compiler() -> Check:
    problem = toolchain.compiler_problem()
    if problem:
        what, _, mend = problem.partition("; mend: ")
        return Check("compiler", FAIL, what, mend)
    compiler = os.environ.get("cc_path") or "g++"
    try:
        banner = _output(compiler, "--version").splitlines()[0]
        _compile_something(compiler)
    except (OSError, IndexError, subprocess.SubprocessError) as error:
        lines = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        reason = next((line for line in lines if "error" in line), lines[0] if lines else "")
        return Check(
            "compiler",
            FAIL,
            f"{compiler} cannot compile with Python's headers and OpenMP: {reason[:160]}",
            "apt install g++ python3-dev",
        )
    return Check("compiler", OK, f"{banner}; Python headers and OpenMP found")


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def _compile_something(compiler: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.cc"
        source.write_text("#include <Python.h>\n#include <omp.h>\nint n() { return 1; }\n")
        headers = sysconfig.get_paths()["include"]
        options = ["-fopenmp", "-shared", "-fPIC", "-I", headers, "-o", str(source) + ".so"]
        _output(compiler, *options, str(source))


def _cuda() -> Check:
    cuda = find_cuda()
    if cuda.usable:
        through = ", links to a newer one" if is_shim(cuda.nvcc) else ""
        return Check("cuda", OK, f"CUDA {cuda.version} ({cuda.nvcc}{through}), used")
    found = f"not used: {cuda.reason}; everything runs on the CPU"
    if cuda.nvcc:
        found = f"{cuda.nvcc} is {found}"
    return Check("cuda", SLOW if cuda.devices else OK, found, cuda.mend)


def _onednn() -> Check:
    mend = "pip install jittor-offline==0.0.7"
    if os.environ.get("use_mkl", "1") != "1":
        return Check("oneDNN", SLOW, "switched off by use_mkl: up to 50 times slower", "unset it")
    found = toolchain.find_onednn(cache_root())
    if found.kind == "missing":
        return Check("oneDNN", SLOW, "missing: 5 to 50 times slower on the CPU", mend)
    texts = {
        "unpacked": f"unpacked in {cache_root() / 'mkl'}",
        "jittor-offline": "from jittor-offline, unpacked at the first start",
        "system": f"{found.library} of this system",
    }
    return Check("oneDNN", OK, texts[found.kind])


def _cache() -> Check:
    root = cache_root()
    for folder in {root, Path.home() / ".cache" / "jittor"}:
        parent = folder
        while not parent.exists():
            parent = parent.parent
        if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
            return Check(
                "cache", FAIL, f"{folder} cannot be written", "set HOME to a folder that can be"
            )
    if not is_compiled():
        return Check(
            "cache", OK, f"{root} is empty: the first start compiles for two to five minutes"
        )
    size = 0
    for path in root.rglob("*"):
        with suppress(OSError):  # a compiling process removes its temporary files
            size += path.lstat().st_size
    return Check("cache", OK, f"{root}, {size / 1e6:.0f} MB of compiled kernels")


def _memory() -> Check:
    free = free_memory_bytes()
    found = f"{free / 1e9:.1f} GB free, {os.cpu_count()} CPU cores"
    if free < WORK_BYTES:
        mend = "close other programs; compiling and stylising may be killed for lack of memory"
        return Check("memory", SLOW, found, mend)
    return Check("memory", OK, found)


def _disk() -> Check:
    free = free_disk_bytes(cache_root())
    found = f"{free / 1e9:.1f} GB free for the cache"
    if free < CACHE_BYTES and not is_compiled():
        return Check("disk", FAIL, found, f"{CACHE_BYTES / 1e9:.1f} GB are needed; free some space")
    return Check("disk", OK, found)


def _model() -> Check:
    try:
        hub.require_complete(hub.TINY)
    except ValueError as error:
        return Check("model", FAIL, str(error), "install jstyle again, with its package data")
    size = sum(path.stat().st_size for path in hub.TINY.rglob("*") if path.is_file())
    return Check("model", OK, f"tiny in {hub.TINY}, {size / 1e6:.1f} MB")


def _variables() -> Iterator[Check]:
    """Variables that change what Jittor does, where the user has set any."""
    given = [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ]
    if given:
        yield Check("variables", OK, ", ".join(given))


def _jittor(broken: list[str]) -> Check:
    """Start Jittor in a new process and multiply two matrices, if it was compiled before."""
    if broken:
        return Check("jittor", FAIL, f"not tried: mend {', '.join(broken)} first")
    if not is_compiled():
        return Check("jittor", OK, "not compiled yet, so not tried; the first command does it")
    try:
        out = _run_probe()
    except subprocess.TimeoutExpired:
        found = f"no answer within {START_SECONDS} s; perhaps it was compiling its core again"
        return Check("jittor", SLOW, found, "run any command once, then ask again")
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or [f"exit status {error.returncode}"]
        mend = f"rm -r {cache_root()} makes it compile afresh"
        return Check("jittor", FAIL, f"does not start: {lines[-1][:200]}", mend)
    seconds = out["import"] + out["first"]
    return Check("jittor", OK, f"starts and computes on the {out['device']} in {seconds:.1f} s")


def _run_probe() -> dict:
    command = [shutil.which(sys.executable) or sys.executable, "-c", PROBE]
    package_parent = str(Path(__file__).resolve().parents[2])
    paths = [package_parent, os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=START_SECONDS, check=True, env=env
    )
    return json.loads(done.stdout.strip().splitlines()[-1])
