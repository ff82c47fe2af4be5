"""Where the emulated CUDA device lies and how a program runs on it. Imports no Jittor.

The device is this machine's CPU: `device/*.cpp` stand for NVIDIA's driver, runtime, cuBLAS, cuDNN
and cuRAND, and `nvcc.py` for the compiler. What passes here has been computed by Jittor's CUDA
backend, but by no GPU: races, alignment, asynchrony, refusals of cuDNN, accumulation in half
precision and speed are not seen.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = "JSTYLE_EMULATED_CUDA"  # the folder, where not the user's cache
COMMAND = "python -m tests.cuda.make"
# what a process decides when it starts Jittor, and hands down: another device's here
DECIDED = ("JITTOR_HOME", "nvcc_path", "cache_name", "use_mkl", "cc_path", "python_config_path")
STARTED = "started"  # the file that the end of a set-up leaves


def folder() -> Path:
    """Everything that is made for the device: headers, libraries, and a HOME with Jittor's cache.

    Its name holds no "cuda": Jittor warns of library paths with that word.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get(VARIABLE) or cache / "jstyle-emulated-device").absolute()


def missing() -> str:
    """Why nothing can run on the emulated device, with the mend, or an empty string."""
    if (folder() / STARTED).is_file():
        return ""
    return f"no emulated CUDA device in {folder()}; mend: {COMMAND} (or set {VARIABLE})"


def environment(**more: str) -> dict[str, str]:
    """Variables of a process on the device: a HOME of its own, poisoned memory, few compilers.

    What the device hands out is filled with NaN. Jittor's pools hand it out again as it is; without
    them (use_sfrl_allocator=0) Jittor itself computes wrongly.
    """
    toolkit, home = folder() / "toolkit", folder() / "home"
    kept = {k: v for k, v in os.environ.items() if k not in DECIDED}
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return kept | {
        "HOME": str(home),
        "PATH": f"{toolkit / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "LD_LIBRARY_PATH": str(toolkit / "lib64"),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_WAIT_POLICY": "passive",
        "NVCC_APPEND_FLAGS": "-allow-unsupported-compiler",
        "cutt_include_path": str(ROOT / "tests" / "cuda" / "device"),
        "cutt_lib_path": str(toolkit / "lib64"),
        "use_parallel_op_compiler": str(os.cpu_count() or 1),
        "STUB_POISON": "1",
        "STUB_SM": "90",
        **more,
    }


def run(*words: str, timeout: float = 1800.0, **variables: str) -> subprocess.CompletedProcess:
    """`python WORDS` on the device."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
