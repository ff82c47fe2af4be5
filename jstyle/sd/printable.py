"""Words of others, on a terminal: names of files and tensors, prompts, values of options."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

LONGEST_WORD = 240  # characters of a value; longer ones lose their middle
LONGEST_LINE = 4000
TURNS = "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # the direction
_QUOTED = re.compile(rf"'(?:[^'\\]|\\.){{{LONGEST_WORD},}}'|\"(?:[^\"\\]|\\.){{{LONGEST_WORD},}}\"")
_UNBROKEN = re.compile(rf"\S{{{LONGEST_WORD + 2},}}")  # with its quotes


def visible(text: str, keep: str = "") -> str:
    """Control characters, what turns the direction of writing, and halves of characters as \\x1b,
    \\u202e, \\udce9, so that none of them does anything. keep: characters that stay."""
    return "".join(_escaped(c) if c not in keep and _acts(c) else c for c in text)


def _acts(c: str) -> bool:
    return unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in TURNS


def _escaped(c: str) -> str:
    return c.encode("unicode_escape").decode()


def shortened(text: str) -> str:
    """A line whose over-long values, and which itself, lose their middle."""
    text = _QUOTED.sub(_cut_match, text)
    text = _UNBROKEN.sub(_cut_match, text)
    return _cut(text, LONGEST_LINE)


def error_line(text: str) -> str:
    return shortened(visible(text))


def reason_of(error: BaseException) -> str:
    """What an error of a library says, in one line; its type where it says nothing."""
    told = getattr(error, "strerror", None) or " ".join(str(error).split())
    return told or type(error).__name__


def listing(names: Sequence[str], most: int) -> str:
    """The first names, and how many more there are."""
    told = ", ".join(_cut(visible(name), LONGEST_WORD) for name in names[:most])
    return f"{told} and {len(names) - most} more" if len(names) > most else told


def _cut_match(match: re.Match) -> str:
    return _cut(match[0], LONGEST_WORD)


def _cut(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    half = longest // 2 - 15
    return f"{text[:half]}...({len(text) - 2 * half} more)...{text[-half:]}"
