"""Methods: each takes references and paints a picture after them, without training.

A method is one file with a dataclass of options and a class (see base.py), and one row in METHODS.
Command lines, records, skipping of finished work, folder runs and the contest's `refine:` are
written once, for all of them. Importing a method's file starts no backbone.
"""

from __future__ import annotations

from importlib import import_module

from .base import Method

METHODS = {  # name -> the module that holds METHOD, its class
    "styleid": "jstyle.methods.styleid",
}
DEFAULT = "styleid"


def find_method(name: str) -> type[Method]:
    """The class of a method. Raises ValueError that lists the names."""
    if name not in METHODS:
        raise ValueError(f"method must be {' or '.join(METHODS)}, got {name!r}")
    return import_module(METHODS[name]).METHOD
