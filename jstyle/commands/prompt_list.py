"""Files of prompts, for many pictures: one a line, or JSON with more about each picture.

    list.txt      a prompt a line
    list.jsonl    a prompt a line, as text or {"prompt": ..., "negative": ..., "seed": ...,
                  "size": 512 or "512x768" (width x height), "name": ...,
                  "references": a picture or several, which need a method}
    list.json     a list of these, or an object with them as values

What a line does not say is as the command says it. References are relative to the list's folder.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..sd.files import InputError
from ..sd.limits import PICTURES, SEED, SIDE_PX, is_whole, require_whole, shown, told
from ..sd.reading import kind_of, parse_json, read_json, read_lines

SUFFIXES = (".txt", ".json", ".jsonl")
SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")
NAME = re.compile(r"[^\x00-\x1f/\\:*?\"<>|.][^\x00-\x1f/\\:*?\"<>|]{0,119}")


@dataclass(frozen=True)
class Line:
    """One picture of a list; None where the command decides. size: (width, height) in pixels.
    name: of the file, without its suffix."""

    prompt: str
    negative: str | None = None
    seed: int | None = None
    size: tuple[int, int] | None = None
    name: str | None = None
    references: tuple[str, ...] | None = None


def read_list(path: str | Path) -> list[Line]:
    """The pictures that a file asks for. Raises InputError, with the line, for a bad one."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: prompts are read from {', '.join(SUFFIXES)} files")
    if suffix == ".json":
        found = read_json(path)
        values = list(found.values()) if isinstance(found, dict) else found
        if not isinstance(values, list):
            raise InputError(f"{path}: must hold a list or an object, got {kind_of(found)}")
        lines = [_line(one, path, f", entry {i}") for i, one in enumerate(values, 1)]
    else:
        texts = [(i, text.strip()) for i, text in enumerate(read_lines(path), 1) if text.strip()]
        plain = suffix == ".txt"
        lines = [
            _line(text if plain else parse_json(text, f"{path}, line {i}"), path, f", line {i}")
            for i, text in texts
        ]
    if not lines:
        raise InputError(f"{path}: holds no prompts")
    if len(lines) > PICTURES:
        raise InputError(f"{path}: {len(lines)} prompts, at most {PICTURES} are possible")
    return lines


def _line(found: Any, path: Path, place: str) -> Line:
    where = f"{path}{place}"
    if isinstance(found, str):
        found = {"prompt": found}
    if not isinstance(found, dict):
        raise InputError(f"{where}: must be text or an object, got {kind_of(found)}")
    for key in found:
        if key not in READERS:
            near = get_close_matches(key, READERS, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InputError(f"{where}: no key {key!r}{hint} (allowed: {', '.join(READERS)})")
    if "prompt" not in found:
        raise InputError(f"{where}: has no prompt")
    try:
        line = Line(**{key: READERS[key](value) for key, value in found.items()})
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
    if line.references is None:
        return line
    return replace(line, references=tuple(str(path.parent / name) for name in line.references))


def _text(name: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError(f"{name} must be text, got {shown(value)}")
        return value

    return read


def _seed(value: Any) -> int:
    require_whole("seed", value, 0, SEED)
    return value


def _size(value: Any) -> tuple[int, int]:
    found = SIZE.fullmatch(value) if isinstance(value, str) else None
    sides = (int(found[1]), int(found[2])) if found else (value, value)
    if not all(is_whole(side, 1, SIDE_PX) for side in sides):
        allowed = f'pixels or "WIDTHxHEIGHT", each {told(1, SIDE_PX)}'
        raise ValueError(f"size must be {allowed}, got {shown(value)}")
    return sides


def _name(value: Any) -> str:
    if not (isinstance(value, str) and NAME.fullmatch(value)):
        allowed = "a file's name without folder and suffix, of at most 120 characters"
        raise ValueError(f"name must be {allowed}, got {shown(value)}")
    return value


def _references(value: Any) -> tuple[str, ...]:
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"references must be a path or a list of paths, got {shown(value)}")
    return tuple(names)


READERS: dict[str, Callable[[Any], Any]] = {
    "prompt": _text("prompt"),
    "negative": _text("negative"),
    "seed": _seed,
    "size": _size,
    "name": _name,
    "references": _references,
}
