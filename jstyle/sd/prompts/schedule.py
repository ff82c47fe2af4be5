"""A part of a prompt -> what it says at every step of the walk, counted from 1."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .parse import Alternating, Break, Edited, Items, Part, Weighted


class Piece(NamedTuple):
    """A run of text of one weight."""

    text: str
    weight: float = 1.0


Said = tuple[tuple[Piece, ...], ...]  # apart by BREAK, each at least one piece


class Stage(NamedTuple):
    """What is said up to and including this step."""

    last: int
    said: Said


def schedule(part: Part, steps: int) -> tuple[Stage, ...]:
    """The stages of a walk of that many steps, in order; the last one ends with the walk.

    Neighbours may say the same: the weights of a stage are evened out over all of them.
    """
    ends = sorted({steps, *_ends(part.items, steps)})
    return tuple(Stage(end, said_at(part.items, end, steps)) for end in ends)


def stage_at(stages: tuple[Stage, ...], position: int) -> int:
    """Which stage the step at this position, counted from 0, is in."""
    for i, stage in enumerate(stages):
        if position < stage.last:
            return i
    return len(stages) - 1


def said_at(items: Items, step: int, steps: int) -> Said:
    """What is said at this step: runs of one weight are one text, as they are tokenized."""
    runs: list[list[Piece]] = [[]]
    for piece in _pieces(items, step, steps):
        run = runs[-1]
        if isinstance(piece, Break):
            runs.append([])
        elif run and run[-1].weight == piece.weight:
            run[-1] = Piece(run[-1].text + piece.text, piece.weight)
        else:
            run.append(piece)
    return tuple(tuple(run) or (Piece(""),) for run in runs)


def as_text(said: Said) -> str:
    """Without weights: for people."""
    return " BREAK ".join("".join(piece.text for piece in run) for run in said)


def _pieces(items: Items, step: int, steps: int) -> Iterable[Piece | Break]:
    for item in items:
        if isinstance(item, str):
            yield Piece(item)
        elif isinstance(item, Break):
            yield item
        elif isinstance(item, Weighted):
            for piece in _pieces(item.items, step, steps):
                if isinstance(piece, Piece):
                    piece = Piece(piece.text, piece.weight * item.factor)
                yield piece
        elif isinstance(item, Edited):
            yield from _pieces(
                item.before if step <= _end(item, steps) else item.after, step, steps
            )
        else:
            yield from _pieces(item.options[(step - 1) % len(item.options)], step, steps)


def _end(item: Edited, steps: int) -> int:
    """The last step of what stands before the change."""
    return min(steps, int(item.when * steps if item.share else item.when))


def _ends(items: Items, steps: int) -> Iterable[int]:
    """Steps after which something else may be said."""
    for item in items:
        if isinstance(item, Weighted):
            yield from _ends(item.items, steps)
        elif isinstance(item, Edited):
            if (end := _end(item, steps)) >= 1:
                yield end
            yield from _ends(item.before + item.after, steps)
        elif isinstance(item, Alternating):
            yield from range(1, steps + 1)
