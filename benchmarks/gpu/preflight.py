"""What a machine has for the check and what it lacks. Looks only; starts no Jittor."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks import machine
from jstyle.machine import free_disk_bytes, free_memory_bytes
from jstyle.sd import toolchain
from jstyle.sd.cuda import Cuda, find_cuda, find_driver

FULL_DISK, FULL_MEMORY = 4e9, 12e9  # bytes for a model of SD 2.1's size: on disk, for the process
QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
TORCH = """
import json, sys
import diffusers, peft, torch, transformers
found = {"python": sys.version.split()[0], "torch": torch.__version__, "cuda": torch.version.cuda}
found |= {"diffusers": diffusers.__version__, "device": "cpu"}
found |= {"device": "cuda"} if torch.cuda.is_available() else {}
print(json.dumps(found))
"""


class Torch(NamedTuple):
    """The Python that has PyTorch and what the reference needs; empty strings where none has."""

    python: str = ""
    device: str = ""  # where PyTorch computes
    versions: dict = {}
    reason: str = ""  # why there is none


class Preflight(NamedTuple):
    cuda: Cuda
    torch: Torch
    gpu: str
    facts: dict
    missing: list[str]  # what is lacking, each with its mend where one is known

    def record(self) -> dict:
        found = self._asdict()
        return found | {"cuda": self.cuda._asdict(), "torch": self.torch._asdict()}


def look(torch_python: str | None) -> Preflight:
    cuda, torch = find_cuda(), find_torch(torch_python)
    facts = machine.facts() | {
        "free_memory_gib": round(free_memory_bytes() / 2**30, 1),
        "free_disk_gib": round(free_disk_bytes(Path.home()) / 2**30, 1),
        "driver": find_driver()._asdict(),
    }
    return Preflight(cuda, torch, gpu_name(), facts, list(missing(cuda, torch)))


def missing(cuda: Cuda, torch: Torch):
    """One line for everything that is not there."""
    if not cuda.usable:
        yield f"CUDA: {cuda.reason}" + (f"; mend: {cuda.mend}" if cuda.mend else "")
    if toolchain.compiler_problem():
        yield f"compiler: {toolchain.compiler_problem()}"
    if toolchain.find_onednn(toolchain.cache_root()).kind == "missing":
        yield "oneDNN, so the CPU side takes long; mend: pip install jittor-offline==0.0.7"
    if not torch.python:
        yield f"PyTorch, so nothing is compared with it: {torch.reason}"
    elif torch.device != "cuda":
        yield "a PyTorch for CUDA, so its speed is not compared"
    if free_disk_bytes(Path.home()) < FULL_DISK:
        yield "4 GB of disk for a model of full size"
    if free_memory_bytes() < FULL_MEMORY:
        yield "12 GB of memory for a model of full size"


def gpu_name() -> str:
    """Name, memory and driver as nvidia-smi tells them; empty without it."""
    if not shutil.which(QUERY[0]):
        return ""
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def find_torch(given: str | None) -> Torch:
    """The first Python that can be the reference: the given one only, or this one, or PATH's."""
    others = (shutil.which(name) for name in ("python3", "python"))
    pythons = [given] if given else [sys.executable, *filter(None, others)]
    reason = "no Python was found"
    for python in dict.fromkeys(pythons):
        env = os.environ | environment(python)
        command = [python, "-c", TORCH]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=env)
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = f"{python}: {error}"
            continue
        if done.returncode == 0:
            found = json.loads(done.stdout.strip().splitlines()[-1])
            return Torch(python, found.pop("device"), found)
        last = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        reason = f"{python}: {last[-1][:200]}"
    return Torch(reason=reason)


def environment(python: str) -> dict[str, str]:
    """Variables of a reference's process. Another Python than this one gets, of what `unpack` laid
    out, neither packages nor libraries, which are not made for it, but those for PyTorch."""
    paths = [str(machine.ROOT), os.environ.get("PYTHONPATH", "")]
    if os.path.realpath(python) == os.path.realpath(sys.executable):
        return {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    paths[1] = os.environ.get("JSTYLE_REFERENCE", "")
    libraries = os.environ.get("LD_LIBRARY_PATH", "")
    libraries = os.environ.get("JSTYLE_LIBRARY_PATH_BEFORE", libraries)
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "LD_LIBRARY_PATH": libraries}


def told(found: Preflight) -> list[str]:
    """Lines for the screen."""
    cuda, torch = found.cuda, found.torch
    versions = ", ".join(f"{name} {v}" for name, v in torch.versions.items())
    lines = [
        f"GPU: {found.gpu or f'{cuda.devices} of unknown name'}",
        f"CUDA: {cuda.version} ({cuda.nvcc})" if cuda.usable else "CUDA: not usable",
        f"PyTorch: {f'{versions} ({torch.python})' if torch.python else 'none'}",
    ]
    return lines + [f"missing: {line}" for line in found.missing]
