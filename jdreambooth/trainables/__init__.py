"""Trainables: what is trained of a model. One file each, one row in TRAINABLES.

The training loop, resume, pick, generate, merge, export and the contest's worker know only the
interface in base.py. Importing a trainable's file starts no backbone, so a command line can name
the choices.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import Trainable

TRAINABLES = {  # name -> the module that holds TRAINABLE, its class, and what --help says
    "lora": ("jdreambooth.trainables.lora", "a LoRA"),
    "full": ("jdreambooth.trainables.subset", "the UNet"),
    "kv": ("jdreambooth.trainables.subset", "keys and values of its cross-attention"),
    "up": ("jdreambooth.trainables.subset", "its up blocks"),
    "down": ("jdreambooth.trainables.subset", "its down blocks"),
}
WITH_TEXT_ENCODER = ("lora", "full")  # what --train-text-encoder can be combined with


def find_trainable(name: str) -> type[Trainable]:
    """The class of a trainable. Raises ValueError that lists the names."""
    if name not in TRAINABLES:
        raise ValueError(f"train must be one of {', '.join(TRAINABLES)}, got {name!r}")
    return import_module(TRAINABLES[name][0]).TRAINABLE
