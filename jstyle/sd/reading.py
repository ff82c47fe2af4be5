"""Text that a user hands in: one reader for prompts, captions, word lists, JSON and YAML.

UTF-8 with or without a byte order mark, lines that end in LF or CRLF. What could hang or end in
Python's own words is refused in one line that names the file: another encoding, pipes and devices,
nesting beyond DEEPEST, NaN and numbers that no float64 holds, YAML that refers to itself.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import re
from collections.abc import Callable
from typing import Any

from .files import InputError, require_file

_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"?|[][{}]', re.DOTALL)  # and texts, in which they are none
LARGEST = 1 << 28  # bytes of a text file
LARGEST_YAML = 1 << 20  # 28 styles with every option take a hundredth of it
DEEPEST = 64  # lists and objects inside each other
TAGS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null"))
MARKS = {  # the longer one first: UTF-32's begins with UTF-16's
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_text(path: str | os.PathLike, most: int = LARGEST) -> str:
    """The text of a file, without byte order mark, lines ending in "\\n".

    most: bytes. Raises InputError, or MissingFile where there is no such file.
    """
    path = require_file(path)
    try:
        size = path.stat().st_size
        if size > most:
            raise InputError(f"{path}: {size} bytes; text is read up to {most}")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({(error.strerror or '').lower()})") from None
    return decode(data, path)


def read_lines(path: str | os.PathLike, most: int = LARGEST) -> list[str]:
    """The lines of a text file, without their ends. Raises like read_text."""
    lines = read_text(path, most).split("\n")
    return lines if lines[-1] else lines[:-1]


def decode(data: bytes, where: object) -> str:
    """Bytes of UTF-8 as read_text gives them. `where` names them in errors. Raises InputError."""
    other = next((name for mark, name in MARKS.items() if data.startswith(mark)), None)
    zero = data.find(b"\0")
    if other is None and zero >= 0:
        other = "UTF-16" if data.count(b"\0") * 4 > len(data) else "no text at all"
    if other is not None:
        place = f" at byte {zero}" if zero >= 0 else ""
        raise InputError(f"{where}: not UTF-8 text; it looks like {other} (NUL{place})")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = error.start + (3 if data.startswith(codecs.BOM_UTF8) else 0)
        byte = f"byte {at} is 0x{data[at]:02x}"
        raise InputError(f"{where}: not UTF-8 text; {byte}, it looks like {_guess(data)}") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _guess(data: bytes) -> str:
    """The likeliest encoding of bytes that are not UTF-8."""
    runs = re.findall(rb"[\x80-\xff]+", data)
    try:
        data.decode("gb18030")
        paired = all(len(run) % 2 == 0 for run in runs)
    except UnicodeDecodeError:
        paired = False
    return "GBK" if paired else "Latin-1 or Windows-1252"


def read_json(path: str | os.PathLike, hook: Callable | None = None, infinite: bool = False) -> Any:
    """The value in a JSON file; hook and infinite as for parse_json.

    Raises InputError, MissingFile where there is no such file.
    """
    return parse_json(read_text(path), path, hook, infinite)


def read_object(path: str | os.PathLike, infinite: bool = False) -> dict:
    """The object in a JSON file. Raises InputError also when it holds something else."""
    found = read_json(path, infinite=infinite)
    if not isinstance(found, dict):
        raise InputError(f"{path}: must hold an object, got {kind_of(found)}")
    return found


def parse_json(
    text: str | bytes, where: object, hook: Callable | None = None, infinite: bool = False
) -> Any:
    """The value in JSON text. `where` names it in errors. hook: json's object_pairs_hook. infinite:
    take Infinity, -Infinity and NaN, which diffusers writes into configurations.

    Raises InputError for what is no JSON, is nested deeper than DEEPEST, or holds NaN, Infinity,
    a number beyond float64, a NUL character or half a surrogate pair.
    """
    if isinstance(text, bytes):
        text = decode(text, where)
    if _depth(text) > DEEPEST:
        raise InputError(f"{where}: nested deeper than {DEEPEST} levels")
    try:
        found = json.loads(
            text,
            parse_constant=float if infinite else _no_constant,
            parse_float=_finite,
            object_pairs_hook=hook,
        )
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error})") from None
    require_plain(found, where)
    return found


def _depth(text: str) -> int:
    """How deep brackets stand inside each other; no further than one level past DEEPEST."""
    if text.count("[") + text.count("{") <= DEEPEST:
        return 0
    depth = 0
    for found in _BRACKETS.finditer(text):
        if found[0] in "[{":
            depth += 1
        elif found[0] in "]}":
            depth -= 1
        if depth > DEEPEST:
            break
    return depth


def _no_constant(name: str):
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is beyond what a number can hold")
    return value


def require_plain(found: Any, where: object) -> None:
    """Raise InputError for texts that no file holds; level by level, without recursion."""
    level = [found]
    while level:
        below = []
        for value in level:
            if isinstance(value, str):
                require_unicode(value, where)
            elif isinstance(value, dict):
                below += value.keys()
                below += value.values()
            elif isinstance(value, (list, tuple)):
                below += value
        level = below


def require_unicode(text: str, where: object) -> None:
    """Raise InputError for a NUL character, or half a surrogate pair, which no file can hold."""
    if "\0" in text:
        raise InputError(f"{where}: a text holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = ascii(text[error.start])
        raise InputError(f"{where}: a text holds {half}, half a character or not UTF-8") from None


def kind_of(value: Any) -> str:
    """The name of a parsed value's type, in the words of JSON."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    return "null" if value is None else names.get(type(value), "a number")


def read_yaml_text(path: str | os.PathLike) -> str:
    """The text of a YAML file that is harmless to load. Raises like read_text, require_yaml."""
    text = read_text(path, LARGEST_YAML)
    require_yaml(text, path)
    return text


def require_yaml(text: str, where: object) -> None:
    """Raise InputError for YAML that unfolds or nests without end; other faults are the loader's.

    Looks at the events alone, in which an alias stays one: anchors of anchors cost nothing here.
    """
    import yaml

    depth = 0
    try:
        for event in yaml.parse(text, yaml.SafeLoader):  # libyaml looks ahead, past the limit
            line = f"{where}, line {event.start_mark.line + 1}"
            if isinstance(event, yaml.AliasEvent):
                raise InputError(f"{line}: *{event.anchor} repeats a value; write it out instead")
            if getattr(event, "tag", None) not in (None, *TAGS):
                raise InputError(f"{line}: the tag {event.tag} is not taken; write the value alone")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > DEEPEST:
                raise InputError(f"{line}: nested deeper than {DEEPEST} levels")
    except yaml.YAMLError:
        return


def yaml_fault(error: Exception) -> tuple[str, str]:
    """Where a file is no YAML, as ", line 3" or "", and why."""
    mark = getattr(error, "problem_mark", None)
    line = "" if mark is None else f", line {mark.line + 1}"
    reason = getattr(error, "problem", None) or " ".join(str(error).split())
    return line, "a key must be a plain word" if "unhashable" in reason else reason
