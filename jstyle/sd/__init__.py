"""Stable Diffusion 1.x and 2.x on Jittor. Knows nothing of the rest of the package.

The names are looked up on first use, so that importing the package loads and changes nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .pipeline import StableDiffusion
    from .schedule import Schedule

__all__ = ["Schedule", "StableDiffusion"]

_HOME = {"Schedule": ".schedule", "StableDiffusion": ".pipeline"}


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
