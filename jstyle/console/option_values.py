"""What stands behind the options: looked at before jsonargparse loads it as YAML and after it, and
what jsonargparse says of it, in plain words."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..sd.files import InputError
from ..sd.reading import require_unicode, require_yaml

KINDS = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "text"}


def require_harmless(words: Sequence[str]) -> None:
    """Raise InputError for a word that no file could hold, or that unfolds as YAML without end."""
    option = ""
    for word in words:
        if word.startswith("--"):
            option, _, value = word.partition("=")
        else:
            value = word
        try:
            require_unicode(value, option or "the words")
        except InputError as error:
            raise InputError(f"{error}: {value!r}") from None
        if "&" in value and "*" in value:  # else an alias has nothing to repeat
            require_yaml(value, option or "the words")


def with_lists(given: dict, actions: Iterable[argparse.Action]) -> dict:
    """The options of a file, in which one text may stand for a list of one.

    Raises InputError for a key that a file cannot hold, or something else than texts in a list.
    """
    if "config" in given:
        raise InputError("config cannot be given in the file itself")
    several = {action.dest for action in actions if action.nargs == "+"} & given.keys()
    lists = {name: _as_list(given[name]) for name in several}
    for name, values in lists.items():
        if not values or not all(isinstance(value, str) for value in values):
            option = dashed(f"--{name}")
            raise InputError(f"{option} must be text or a list of texts, got {given[name]!r}")
    return {**given, **lists}


def _as_list(value: Any) -> list:
    return value if isinstance(value, list) else [value]


def require_kinds(args: Mapping[str, Any], actions: Iterable[argparse.Action]) -> None:
    """Raise InputError for a value out of a file that jsonargparse does not look at: null for what
    is always something, a flag that is neither true nor false, a text that is none."""
    for action in actions:
        if action.dest not in args:
            continue
        value, option = args[action.dest], dashed(f"--{action.dest}")
        if value is None:
            if action.required or action.default is not None:
                raise InputError(f"{option} must not be null; leave it out for the default")
        elif action.nargs == 0 and action.const is True:
            _require(isinstance(value, bool), option, "true or false", value)
        elif isinstance(action, argparse._AppendAction):
            _require(all(map(_is_text, _as_list(value))), option, "text or a list of texts", value)
        elif isinstance(action, argparse._StoreAction) and action.type is None:
            _require(_is_text(value), option, "text", value)


def _is_text(value: Any) -> bool:
    """Numbers are what the names of some files look like."""
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def _require(holds: bool, option: str, told: str, value: Any) -> None:
    if not holds:
        raise InputError(f"{option} must be {told}, got {value!r}")


def dashed(word: str) -> str:
    """`--size_px=64` -> `--size-px=64`; jsonargparse's own, such as --print_config, stay."""
    if not word.startswith("--") or word.startswith("--print_"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def plain(message: str) -> str:
    """jsonargparse's message without its inner workings."""
    message = re.sub("Exceeds the limit.*", "a number of thousands of digits", message)
    key = re.search(r'Parser key "([^"]+)"(?: element \d+)?:', message)
    given = re.search(r"(?:Given value|Got value): (.*)", message)
    if key and given:
        kinds = re.findall(r"Expected (?:an? )?(?:<class '([\w.]+)'>|(typing\.\S+))", message)
        wanted = [KINDS.get(a, a or b) for a, b in kinds if a != "NoneType"] or ["another value"]
        wanted = " or ".join(dict.fromkeys(wanted))
        return f"{dashed('--' + key[1])} must be {wanted}, got {given[1]!r}"
    return re.sub(r'^Parser key "([^"]+)":', lambda m: dashed(f"--{m[1]}:"), message)
