"""A table of hostile values for options, and what the answers to them must look like."""

from __future__ import annotations

import codecs
import os
import re
from pathlib import Path

DEEP = 300  # levels; the files' readers allow 64
LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
TEXTS = {
    "empty": "",
    "space": " ",
    "nan": "NaN",
    "yaml nan": ".nan",
    "inf": "inf",
    "yaml inf": "-.inf",
    "minus one": "-1",
    "zero": "0",
    "huge integer": str(10**30),
    "5,000 digits": "9" * 5000,
    "huge float": "1e400",
    "half": "0.5",
    "word": "nonsense",
    "null": "null",
    "true": "true",
    "NUL": "a\0b",
    "not UTF-8": "caf\udce9",
    "surrogate": "x\ud800y",
    "4,000 characters": "x" * 4000,
    "escape": "\x1b[31mred\x1b[0m",
    "two lines": "one\ntwo",
    "emoji": "\U0001f600",
    "right to left": "a\u202egnp.b",
    "brace": "{",
    "bracket": "[",
    "object": "{steps: {a: [1]}}",
    "list": "[1, x, null]",
    "deep": "[" * DEEP + "]" * DEEP,
    "anchors": LAUGHS,
    "tag": "!!python/object/apply:os.abort []",
    "date": "2026-13-45",
    "missing": "no/such/file.png",
    "null device": "/dev/null",
    "endless device": "/dev/zero",
}
FILES = {
    "binary": bytes(range(256)) * 8,
    "mark.yaml": codecs.BOM_UTF8 + b"nonsense: 1\n",
    "utf16.yaml": "steps: 3\n".encode("utf-16"),
    "deep.yaml": b"[" * DEEP + b"]" * DEEP,
    "laughs.yaml": LAUGHS.encode(),
    "object.json": b'{"a": [1, {"b": null}]}\n',
}
PLACES = ("folder", "pipe", *FILES)


def make_files(folder: Path) -> None:
    """What the values that name a place name, in `folder`."""
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    (folder / "folder").mkdir()
    (folder / "folder" / "kept.txt").write_text("of the user\n")
    os.mkfifo(folder / "pipe")


KINDS = {  # of values in YAML; for each key most are of a wrong one
    "nothing": "null",
    "yes": "true",
    "minus two": "-2",
    "beyond": str(10**30),
    "no number": ".nan",
    "infinite": ".inf",
    "empty text": '""',
    "text": "nonsense",
    "half a character": r'"\ud800"',
    "zero character": r'"\0"',
    "date": "2026-01-02",
    "list": "[]",
    "mixed list": "[1, x, null, {a: 1}]",
    "object": "{a: 1}",
    "odd keys": "{1: 2, null: 3, [4]: 5}",
    "nested": "{a: {b: [{c: [[[1]]]}]}}",
    "bytes": "!!binary aGVsbG8=",
    "set": "!!set {a, b}",
    "alias": "[&x 1, *x]",
    "unclosed": "{",
}
VALUES = {**TEXTS, **{f"path of {name}": name for name in PLACES}}

# Words that only Python or a library would say.
FOREIGN = re.compile(
    r"Traceback|Errno|<class|object at 0x|NoneType|invalid literal|could not convert|"
    r"not supported between|unhashable|has no attribute|codec can't|Parser key|typing\.|"
    r"embedded null|os\.PathLike|expected str|positional argument|keyword argument|"
    r"Expected a <|must be str|not JSON serializable|out of range|indices must|not subscriptable|"
    r"Value \"|while (?:parsing|scanning|constructing)|Validation|set_int_max|Exceeds the limit|"
    r"unexpected type|not enough values|too many values|too large to convert|month must be|"
    r"surrogates not allowed|datetime|NotImplemented|AssertionError|KeyError|TypeError|ValueError"
)


def fault_of(code: object, error: str, option: str, value: str) -> str | None:
    """What is wrong with how a command ended, or None. error: its stderr."""
    if code not in (0, 1, 2):
        return f"exit code {code!r}"
    if code == 0:
        return None
    lines = error.splitlines()
    if len(lines) != 1 or not error.endswith("\n"):
        return f"{len(lines)} lines"
    if ": error: " not in error:
        return "no error line"
    if match := FOREIGN.search(error.replace(value, "") if len(value) > 1 else error):
        return f"foreign words {match[0]!r}"
    if any(ord(c) < 32 for c in lines[0]) or len(lines[0]) > 4200:
        return "control characters, or far too long"
    return None


def is_named(error: str, option: str, value: str) -> bool:
    """Whether the line says which option it is about, by its name or by the value."""
    name = option.lstrip("-").rstrip("+")
    names = {
        name,
        "the words",
        "config.yaml, line",
        "config.yaml: config ",
        name.replace("-", "_"),
        name.replace("-", " "),
    }
    if name == "styles":
        names.add("style ")  # whose name follows
    if not value.strip():  # said by what it is
        return "empty" in error or "blank" in error or any(n in error for n in names)
    first = value.partition(",")[0]  # of a list, each is named
    spelt = (repr(value)[1:-1], value.encode("unicode_escape").decode())
    starts = tuple(
        t[:40]
        for t in (
            value,
            value.strip(".-"),
            first,
            " ".join(value.split()),
            "".join(value.split()),
            *spelt,
        )
        if t.strip()
    )
    said = error.partition(": error: ")[2].partition(" (see ")[0]
    return any(text in said for text in (*names, *starts)) or name in said.lower()
