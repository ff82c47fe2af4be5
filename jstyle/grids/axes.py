"""Axes: the words after --x, --y and --z, `NAME=VALUES`, as names and values.

Values stand apart by commas; texts and files, which may contain commas, by a bar. Numbers may also
be ranges: FIRST..LAST or FIRST..LAST:STEP, with both ends.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..sd.limits import SAMPLING_STEPS, SEED, TEXT_LAYERS, TRAINING_STEPS, require_whole
from ..sd.samplers.options import Sampling

MOST_VALUES = 100  # of one axis
OWN, NONE, ALL = "own", "none", "all"
_NUMBER = r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})(?::({_NUMBER}))?")
_SIZE = re.compile(r"([0-9]{1,9})(?:x([0-9]{1,9}))?")


@dataclass(frozen=True)
class Kind:
    """What may stand on an axis. read(text) -> value, or ValueError. number: int or float where
    ranges are possible. bar: whether values stand apart by | instead of commas. named: whether
    labels need the axis' name. empty: whether one of several values may be the empty text."""

    told: str
    read: Callable[[str], Any]
    number: type | None = None
    bar: bool = False
    named: bool = True
    empty: bool = False


@dataclass(frozen=True)
class Axis:
    """option: x, y or z. texts: the values as they were given, for labels."""

    option: str
    name: str
    values: tuple[Any, ...]
    texts: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        kind = KINDS[self.name]
        if kind.named:
            return tuple(f"{self.name} {text}" for text in self.texts)
        return tuple(text or f"no {self.name}" for text in self.texts)


def _whole(name: str, least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,20}", text):
            raise ValueError(f"{name} must be an integer, got {text!r}")
        require_whole(name, int(text), least, most)
        return int(text)

    return read


def _number(name: str) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, got {text!r}")
        return value

    return read


def _option(name: str, read: Callable[[str], Any] = str) -> Callable[[str], Any]:
    """As the option of this name is checked."""

    def checked(text: str):
        value = None if text == OWN and read is str else read(text)
        return getattr(Sampling(**{name: value}), name)

    return checked


def _size(text: str) -> tuple[int, int]:
    """(width, height)"""
    found = _SIZE.fullmatch(text)
    if not found:
        raise ValueError(f"size must be PIXELS or WIDTHxHEIGHT, got {text!r}")
    return int(found[1]), int(found[2] or found[1])


def plain_text(text: str) -> str:
    """The text itself. Raises ValueError for bytes that are none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{ascii(text)} is not text in UTF-8") from None
    return text


KINDS = {
    "sampler": Kind("names as after --sampler; own: the model's", _option("sampler"), named=False),
    "sigmas": Kind("karras, exponential; own: the model's", _option("sigmas")),
    "steps": Kind("whole numbers", _option("steps", _whole("steps", 1, SAMPLING_STEPS)), int),
    "guidance": Kind("numbers", _option("guidance", _number("guidance")), float),
    "eta": Kind("numbers from 0 to 1", _option("eta", _number("eta")), float),
    "rescale": Kind("numbers from 0 to 1", _option("rescale", _number("rescale")), float),
    "clip_skip": Kind(
        "whole numbers", _option("clip_skip", _whole("clip_skip", 1, TEXT_LAYERS)), int
    ),
    "seed": Kind("whole numbers", _whole("seed", 0, SEED), int),
    "prompt": Kind("texts", plain_text, bar=True, named=False),
    "negative": Kind(
        "texts, one of which may be empty", plain_text, bar=True, named=True, empty=True
    ),
    "lora": Kind("FILE or FILE:WEIGHT, or none", plain_text, bar=True, named=False),
    "weight": Kind("numbers: of the LoRA", _number("weight"), float),
    "size": Kind("PIXELS or WIDTHxHEIGHT", _size),
    "at": Kind(
        "saved counts of --run, 0 for untrained, or all", _whole("at", 0, TRAINING_STEPS), int
    ),
}


def parse_axes(given: Mapping[str, Sequence[str]]) -> tuple[Axis, ...]:
    """option -> its words, once or several times; options without words are left out.

    Raises ValueError in one line for an unknown or repeated axis, for values that cannot be, that
    are there twice or not at all.
    """
    axes = tuple(parse_axis(option, words) for option, words in given.items() if words)
    if not axes:
        raise ValueError("give at least --x NAME=VALUES, such as --x steps=8,15,25")
    for i, axis in enumerate(axes):
        for other in axes[:i]:
            if axis.name == other.name:
                raise ValueError(f"--{other.option} and --{axis.option} are both {axis.name}")
    return axes


def parse_axis(option: str, words: Sequence[str]) -> Axis:
    """One axis; words that are given several times add their values."""
    name, values, texts = None, [], []
    for word in words:
        own, equals, rest = word.partition("=")
        own = own.strip()
        if not equals or own not in KINDS:
            allowed = ", ".join(KINDS)
            raise ValueError(f"--{option} must be NAME=VALUES with a name of {allowed}, got {word}")
        if name not in (None, own):
            raise ValueError(f"--{option} is {name} already, got {own} as well")
        name = own
        try:
            for text in _apart(KINDS[name], rest):
                value = ALL if (name, text) == ("at", ALL) else KINDS[name].read(text)
                if value in values:
                    raise ValueError(f"{text!r} is there twice")
                values.append(value)
                texts.append(text)
            if len(values) > MOST_VALUES:
                raise ValueError(f"{len(values)} values, at most {MOST_VALUES} are possible")
        except ValueError as error:
            raise ValueError(f"--{option} {word[:80]}: {error}") from None
    return Axis(option, name, tuple(values), tuple(texts))


def _apart(kind: Kind, rest: str) -> list[str]:
    """The values as texts, ranges written out."""
    if not rest.strip():
        raise ValueError("no values after the =")
    if kind.bar:
        parts = [part.replace(r"\|", "|") for part in re.split(r"(?<!\\)\|", rest)]
    else:
        parts = rest.split(",")
    parts = [part.strip() for part in parts]
    if not kind.empty and "" in parts:
        raise ValueError("one of the values is empty")
    if kind.number is None:
        return parts
    return [text for part in parts for text in _range(part, kind.number)]


def _range(text: str, number: type) -> list[str]:
    found = _RANGE.fullmatch(text)
    if not found:
        return [text]
    if number is int and "." in "".join(filter(None, found.groups())):
        raise ValueError(f"the range {text} must be of whole numbers")
    first, last, step = (float(part or 1) for part in found.groups())
    if step == 0 or (last - first) / step < 0:
        raise ValueError(f"the range {text} holds nothing")
    count = math.floor((last - first) / step + 1e-9) + 1
    if count > MOST_VALUES:
        raise ValueError(f"the range {text} holds more than {MOST_VALUES} values")
    return [f"{first + i * step:.10g}" for i in range(count)]
