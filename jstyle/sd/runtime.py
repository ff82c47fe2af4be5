"""Device, synchronisation and versions. Nothing here happens unless it is called."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator
from importlib import metadata

from . import cuda
from .startup import jt


def resolved(device: str) -> str:
    """ "cpu" or "cuda"; for "auto" the better that is there."""
    if device == "auto":
        return "cuda" if jt.has_cuda else "cpu"
    return device


@contextlib.contextmanager
def use(device: str) -> Iterator[str]:
    """Run on "cpu", "cuda" or the better that is there ("auto") inside the block; yields which.
    Afterwards the previous device is back.

    Raises ValueError for another name, or for "cuda" where Jittor was built without it.
    """
    device = resolved(device)
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu, cuda or auto, got {device!r}")
    if device == "cuda" and not jt.has_cuda:
        raise ValueError(f"device cuda is not available here: {_why_no_cuda()}; use cpu")
    before = jt.flags.use_cuda
    jt.flags.use_cuda = int(device == "cuda")
    try:
        yield device
    finally:
        jt.flags.use_cuda = before


def _why_no_cuda() -> str:
    found = cuda.find_cuda()
    if found.usable:
        return "Jittor was started without it, by nvcc_path in the environment"
    return f"{found.reason} (see `jstyle doctor`)"


def device() -> str:
    """The device in force: "cpu" or "cuda"."""
    return "cuda" if jt.flags.use_cuda else "cpu"


def versions() -> dict[str, str]:
    """What a result depends on, for the record written beside it."""
    names = ("jittor", "jittor-offline", "numpy", "pillow", "safetensors", "transformers")
    found = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
