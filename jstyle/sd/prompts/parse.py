"""A prompt's text as a tree; faults are named with their place. The syntax: see __init__.py.

Standard library only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

PLAIN, WEBUI = SYNTAXES = ("plain", "webui")
MORE, LESS = 1.1, 1 / 1.1
MOST_WEIGHT = 1000  # more is a slip, and soon more than float32 holds
DEEPEST = 64  # brackets inside each other

_WEIGHT = re.compile(r":\s*([+-]?[.\d]+)\s*\)")
_WHEN = re.compile(r":\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*\]")
_PART_WEIGHT = re.compile(r":\s*([-+]?(?:\d+\.?\d*|\.\d+))\s*(?=\bAND\b|\Z)")
_WORD = re.compile(r"\b(?:AND|BREAK)\b")
_PLAIN_TEXT = re.compile(r"[^\\()\[\]:|]+")


class PromptError(ValueError):
    """A prompt that cannot be read; one line that says what is wrong and where."""


class Break(NamedTuple):
    """The rest begins in the next 75 tokens."""


class Weighted(NamedTuple):
    items: Items
    factor: float


class Edited(NamedTuple):
    """`before` in the first steps, then `after`. when: a step, or with share a part of all."""

    before: Items
    after: Items
    when: float
    share: bool


class Alternating(NamedTuple):
    options: tuple[Items, ...]


Item = str | Break | Weighted | Edited | Alternating
Items = tuple[Item, ...]


@dataclass(frozen=True)
class Part:
    """One of the texts that AND joins. weight: of its guidance."""

    items: Items
    weight: float = 1.0

    @property
    def changes(self) -> bool:
        """Whether it says different things at different steps."""
        return any(isinstance(item, (Edited, Alternating)) for item in _below(self.items))


def parse(text: str, negative: bool = False) -> tuple[Part, ...]:
    """The parts of a prompt. negative: what guidance leads away from, which has one part.

    Raises PromptError in one line, with the place of the fault as a character counted from 1.
    """
    return _Reader(text, negative).parts()


def check_syntax(syntax: str) -> None:
    """Raise ValueError for a syntax that does not exist."""
    if syntax not in SYNTAXES:
        raise ValueError(f"syntax must be {' or '.join(SYNTAXES)}, got {syntax!r}")


def check_prompt(text: str, syntax: str | None, negative: bool = False) -> None:
    """Raise PromptError for a prompt that the syntax does not admit; None is plain."""
    if syntax == WEBUI:
        parse(text, negative)


def parse_caption(text: str) -> Part:
    """What a picture shows, in training and in questions: one text for all steps, with weights.

    Raises PromptError for anything that changes with the steps, and for AND.
    """
    parts = parse(text)
    found = {Edited: "[from:to:when]", Alternating: "[a|b]"}
    used = [told for kind, told in found.items() if any(_has(part, kind) for part in parts)]
    if len(parts) > 1:
        used.append("AND")
    elif parts[0].weight != 1.0:
        used.append("a weight for all of it")
    if used:
        raise PromptError(
            f"the caption {text!r} has {used[0]}, which is about sampling; what a picture shows is "
            "one text, in which (weights) are possible"
        )
    return parts[0]


def escaped(text: str) -> str:
    """The text as the syntax has to be given it to mean just these characters."""
    return _WORD.sub(r"\\\g<0>", re.sub(r"[\\()\[\]:|]", r"\\\g<0>", text))


def _has(part: Part, kind: type) -> bool:
    return any(isinstance(item, kind) for item in _below(part.items))


def _below(items: Items):
    for item in items:
        yield item
        if isinstance(item, Weighted):
            yield from _below(item.items)
        elif isinstance(item, Edited):
            yield from _below(item.before + item.after)
        elif isinstance(item, Alternating):
            for option in item.options:
                yield from _below(option)


class _Reader:
    """Reads one text from left to right. open: places of the brackets that are open."""

    def __init__(self, text: str, negative: bool):
        self.text, self.negative = text, negative
        self.place = 0
        self.open: list[int] = []

    def parts(self) -> tuple[Part, ...]:
        parts = [self._part()]
        while self.place < len(self.text):  # at an AND
            self.place += len("AND")
            parts.append(self._part())
        return tuple(parts)

    def _part(self) -> Part:
        items: list[Item] = []
        while self.place < len(self.text):
            if self._at("AND"):
                if self.negative:
                    self._fail("AND", self.place, "joins prompts, not negative ones")
                break
            number = None if self.negative else _PART_WEIGHT.match(self.text, self.place)
            if number:
                self.place = number.end()
                return Part(tuple(items), self._weight(number))
            items += self._item()
        return Part(tuple(items))

    def _item(self) -> Items:
        """What begins here: a bracket with all that is in it, or text up to the next one."""
        text, start = self.text, self.place
        match text[start]:
            case "(":
                return (self._round(),)
            case "[":
                return (self._square(),)
            case ")" | "]" as closing:
                self._fail(f"the bracket {closing}", start, self._unopened(closing))
            case "\\":
                self.place += 2
                return (text[start + 1 : start + 2],)
            case ":" | "|" as mark:
                self.place += 1
                return (mark,)
        return self._words()

    def _words(self) -> Items:
        text, start = self.text, self.place
        end = _PLAIN_TEXT.match(text, start).end()  # type: ignore[union-attr]
        word = _WORD.search(text, start, end)
        if word is None:
            self.place = end
            return (text[start:end],)
        self.place = word.start()
        before = (text[start : self.place],) if self.place > start else ()
        if word[0] == "BREAK":
            self.place = word.end()
            return (*before, Break())
        if self.open and not before:
            self._fail("AND", self.place, f"stands inside the bracket {self._opened()}")
        return before

    def _round(self) -> Weighted:
        self._enter()
        items: list[Item] = []
        while not self._at(")"):
            number = _WEIGHT.match(self.text, self.place)
            if number:
                self._leave(number.end())
                return Weighted(tuple(items), self._weight(number))
            items += self._item()
        self._leave(self.place + 1)
        return Weighted(tuple(items), MORE)

    def _square(self) -> Item:
        start = self.place
        self._enter()
        options: list[list[list[Item]]] = [[[]]]  # apart by |, and these by :
        when = None
        while when is None and not self._at("]"):
            when = _WHEN.match(self.text, self.place)
            if when is None and self._at(":"):
                options[-1].append([])
                self.place += 1
            elif when is None and self._at("|"):
                options.append([[]])
                self.place += 1
            elif when is None:
                options[-1][-1] += self._item()
        self._leave(self.place + 1 if when is None else when.end())
        if when is not None:
            return self._edited(start, options, when)
        whole = tuple(_with_colons(option) for option in options)
        return Weighted(whole[0], LESS) if len(whole) == 1 else Alternating(whole)

    def _edited(self, start: int, options: list[list[list[Item]]], when: re.Match) -> Edited:
        texts = options[0]
        if len(options) > 1:
            told = r"has both | and :WHEN]; write [[a|b]:WHEN], or \: for the character"
            self._fail("the bracket [", start, told)
        if len(texts) > 2:
            told = f"has {len(texts)} texts before WHEN; [from:to:WHEN] has two"
            self._fail("the bracket [", start, told)
        number = float(when[1])
        if number < 0 or number > 1e9:
            told = "must be a step from 0 on, or with a point a share of them such as 0.5"
            self._fail(f"WHEN {when[1]}", when.start(1), told)
        before, after = ([], texts[0]) if len(texts) == 1 else texts
        return Edited(tuple(before), tuple(after), number, "." in when[1])

    def _weight(self, number: re.Match) -> float:
        try:
            value = float(number[1])
        except ValueError:
            self._fail(f"the weight {number[1]}", number.start(1), "is no number")
        if abs(value) > MOST_WEIGHT:
            told = f"is beyond {MOST_WEIGHT}, the most that is possible"
            self._fail(f"the weight {number[1]}", number.start(1), told)
        return value

    def _at(self, what: str) -> bool:
        """Whether this stands here. Raises PromptError at the end inside a bracket."""
        if self.place >= len(self.text):
            if self.open:
                place = self.open[-1]
                told = "is never closed; close it, or write a backslash before it"
                self._fail(f"the bracket {self.text[place]}", place, told)
            return False
        if what == "AND":
            word = _WORD.match(self.text, self.place)
            return word is not None and word[0] == what
        return self.text[self.place] == what

    def _enter(self) -> None:
        if len(self.open) == DEEPEST:
            self._fail("the bracket", self.place, f"is inside {DEEPEST} others; that is the most")
        self.open.append(self.place)
        self.place += 1

    def _leave(self, place: int) -> None:
        self.open.pop()
        self.place = place

    def _opened(self) -> str:
        place = self.open[-1]
        return f"{self.text[place]} of character {place + 1}"

    def _unopened(self, closing: str) -> str:
        if self.open:
            return f"stands where the bracket {self._opened()} is to be closed"
        return "closes nothing; open it, or write a backslash before it"

    def _fail(self, what: str, place: int, told: str) -> NoReturn:
        which = "negative prompt" if self.negative else "prompt"
        raise PromptError(f"{what} at character {place + 1} {told}; {which} {self.text!r}")


def _with_colons(texts: list[list[Item]]) -> Items:
    """The texts as one, with the colons that turned out to mean nothing."""
    items: list[Item] = list(texts[0])
    for text in texts[1:]:
        items += [":", *text]
    return tuple(items)
