"""Device, synchronisation and versions. Nothing here happens unless it is called."""

from __future__ import annotations

import contextlib
import platform
from importlib import metadata

from . import cuda
from .startup import jt


@contextlib.contextmanager
def use(device: str):
    """Run on "cpu" or "cuda" inside the block; afterwards the previous device is back.

    Raises ValueError for another name, or for "cuda" where Jittor was built without it.
    """
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda, got {device!r}")
    if device == "cuda" and not jt.has_cuda:
        raise ValueError(f"device cuda is not available here: {_why_no_cuda()}; use cpu")
    before = jt.flags.use_cuda
    jt.flags.use_cuda = int(device == "cuda")
    try:
        yield
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
