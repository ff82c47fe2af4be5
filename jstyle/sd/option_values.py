"""What stands behind the options, looked at before jsonargparse loads it as YAML, and what
jsonargparse says of it, in plain words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .files import InputError
from .reading import require_unicode, require_yaml

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


def dashed(word: str) -> str:
    """`--size_px=64` -> `--size-px=64`; jsonargparse's own, such as --print_config, stay."""
    if not word.startswith("--") or word.startswith("--print_"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def plain(message: str) -> str:
    """jsonargparse's message without its inner workings."""
    message = re.sub("Exceeds the limit.*", "a number of thousands of digits", message)
    key = re.search(r'Parser key "([^"]+)":', message)
    given = re.search(r"(?:Given value|Got value): (.*)", message)
    if key and given:
        kinds = re.findall(r"Expected (?:an? )?(?:<class '([\w.]+)'>|(typing\.\S+))", message)
        wanted = [KINDS.get(a, a or b) for a, b in kinds if a != "NoneType"] or ["another value"]
        wanted = " or ".join(dict.fromkeys(wanted))
        return f"{dashed('--' + key[1])} must be {wanted}, got {given[1]!r}"
    return re.sub(r'^Parser key "([^"]+)":', lambda m: dashed(f"--{m[1]}:"), message)
