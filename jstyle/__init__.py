"""Style injection in diffusion (StyleID, arXiv:2312.09008) on Jittor.

    from jstyle import JStyleID, StableDiffusion, StyleConfig

The names are looked up on first use, so that importing the package loads and changes nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import StyleConfig
    from .pipeline import JStyleID
    from .sd.pipeline import StableDiffusion

__version__ = "0.1.0"
__all__ = ["JStyleID", "StableDiffusion", "StyleConfig", "__version__"]

_HOME = {
    "JStyleID": ".pipeline",
    "StableDiffusion": ".sd.pipeline",
    "StyleConfig": ".config",
}


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
