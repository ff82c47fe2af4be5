"""Procedural drawings with captions: subjects times styles, for training and for fine-tuning.

NumPy and Pillow only. Every picture is a pure function of its arguments.
"""

from __future__ import annotations

from .render import (
    COMMON_OBJECTS,
    FAMILIES,
    HELD_OUT_STYLES,
    OBJECTS,
    STYLES,
    caption,
    draw,
    recolour,
    scene,
)

__all__ = [
    "COMMON_OBJECTS",
    "FAMILIES",
    "HELD_OUT_STYLES",
    "OBJECTS",
    "STYLES",
    "caption",
    "draw",
    "recolour",
    "scene",
]
