"""Text with weights -> rows of token ids, as long as the text encoder reads at once, with a weight
for every id.

A row is a start, up to 75 pieces, an end, and padding. A text that is longer goes on in the next
row; if there is a comma among the last 20 pieces of a full row, what stands after it goes on too.
Source: stable-diffusion-webui, modules/sd_hijack_clip.py at 00e0938.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from ..tokenizer import Tokenizer
    from .schedule import Said

COMMA = ",</w>"
COMMA_WITHIN = 20  # pieces: a comma that is further from the end does not break a row


class Rows(NamedTuple):
    """ids: (rows, length) int64. weights: the same shape, float32; 1 for start, end, padding."""

    ids: np.ndarray
    weights: np.ndarray


def rows_of(said: Said, tokenizer: Tokenizer) -> Rows:
    """The rows of one text."""
    filling = _Filling(tokenizer.max_length - 2, tokenizer.id_of(COMMA))
    for i, run in enumerate(said):
        if i > 0:
            filling.turn()
        for piece in run:
            for token in tokenizer.pieces(piece.text):
                filling.add(token, piece.weight)
    filling.finish()
    made = [_row(tokens, tokenizer) for tokens in filling.rows]
    return Rows(np.stack([ids for ids, _ in made]), np.stack([weights for _, weights in made]))


def empty_row(tokenizer: Tokenizer) -> Rows:
    """The row of the empty text."""
    ids, weights = _row([], tokenizer)
    return Rows(ids[None], weights[None])


class _Filling:
    """Rows that are filled with (token, weight), one after the other."""

    def __init__(self, room: int, comma: int | None):
        self.room, self.comma = room, comma
        self.rows: list[list[tuple[int, float]]] = []
        self.row: list[tuple[int, float]] = []
        self.last_comma: int | None = None  # its place in the row

    def add(self, token: int, weight: float) -> None:
        full = len(self.row) == self.room
        if token != self.comma and full and self._has_late_comma():
            cut = self.last_comma + 1  # type: ignore[operator]
            rest, self.row = self.row[cut:], self.row[:cut]
            self.turn()
            self.row = rest
        elif full:
            self.turn()
        elif token == self.comma:
            self.last_comma = len(self.row)
        self.row.append((token, weight))

    def turn(self) -> None:
        """Begin the next row."""
        self.rows.append(self.row)
        self.row, self.last_comma = [], None

    def finish(self) -> None:
        if self.row or not self.rows:
            self.turn()

    def _has_late_comma(self) -> bool:
        return self.last_comma is not None and len(self.row) - self.last_comma <= COMMA_WITHIN


def _row(filled: list[tuple[int, float]], tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    ids = np.full(tokenizer.max_length, tokenizer.pad_id, np.int64)
    weights = np.ones(tokenizer.max_length, np.float32)
    ids[: len(filled) + 2] = [tokenizer.start_id, *(token for token, _ in filled), tokenizer.end_id]
    weights[1 : len(filled) + 1] = [weight for _, weight in filled]
    return ids, weights
