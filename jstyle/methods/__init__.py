"""Methods: each takes references and paints a picture after them, without training.

A method is one file with a dataclass of options and a class (see base.py; vocabulary.py has the
options that methods share), and one row in METHODS. Command lines, records, skipping of finished
work, folder runs and the contest's `refine:` are written once, for all of them. Importing a
method's file starts no backbone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from difflib import get_close_matches
from importlib import import_module

from .base import Method

METHODS = {  # name -> the module that holds METHOD, its class
    "styleid": "jstyle.methods.styleid",
    "style-aligned": "jstyle.methods.style_aligned",
    "reference-only": "jstyle.methods.reference_only",
    "masactrl": "jstyle.methods.masactrl",
    "cross-image": "jstyle.methods.cross_image",
    "appearance-encoder": "jstyle.methods.appearance_encoder",
    "plug-and-play": "jstyle.methods.plug_and_play",
}
DEFAULT = "styleid"


def find_method(name: str) -> type[Method]:
    """The class of a method. Raises ValueError that lists the names."""
    if name not in METHODS:
        near = get_close_matches(str(name), METHODS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {name!r}{hint}")
    return import_module(METHODS[name]).METHOD


def from_noise() -> list[str]:
    """The methods that paint a prompt after a reference."""
    return [name for name in METHODS if find_method(name).reference is not None]


def missing_options(name: str, known: Iterable[str] = ()) -> dict[str, str]:
    """Options that other methods have and this one has not -> a line that says so. known: options
    that the command has by itself."""
    own = {field.name for field in fields(find_method(name).Config)} | set(known)
    found: dict[str, list[str]] = {}
    for other in METHODS:
        for field in fields(find_method(other).Config):
            if field.name not in own:
                found.setdefault(field.name, []).append(other)
    return {
        option: f"method {name} has no such option; it is one of {', '.join(others)}"
        for option, others in found.items()
    }
