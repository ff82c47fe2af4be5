"""One labelled picture of all cells: a table for each value of the third axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..sd.picture_files import max_pixels

LEAST_FONT, LARGEST_FONT = 13, 26  # pixels
LEAST_MARGIN = 150  # of row labels, before they are broken
MOST_LINES = 5  # of one label
ASPECT = 1.4  # width / height that several tables together come close to
EMPTY, GREY = "#eeeeee", "#555555"


@dataclass(frozen=True)
class Labels:
    """heading: above all. columns, rows, tables: of the three axes; [""] for one that is not
    there."""

    heading: str
    columns: Sequence[str]
    rows: Sequence[str]
    tables: Sequence[str]


class Sheet:
    """Where everything is; known before a picture is there. cell: (width, height) of the largest.

    Raises ValueError for more pixels than an image file may have.
    """

    def __init__(self, labels: Labels, cell: tuple[int, int]):
        self.labels, self.cell = labels, cell
        size = min(max(LEAST_FONT, cell[1] // 12), LARGEST_FONT)
        self.font, self.large = (ImageFont.load_default(px) for px in (size, size + 3))
        self.gap = max(6, cell[0] // 32)
        longest = max((self._width(w) for text in labels.columns for w in text.split()), default=0)
        self.box = max(cell[0], min(longest, 2 * cell[0], LEAST_MARGIN))
        self.columns = [_lines(text, self.font, self.box) for text in labels.columns]
        most = max(LEAST_MARGIN, cell[0])
        self.rows = [_lines(text, self.font, most) for text in labels.rows]
        widest = max(self._width(line) for lines in self.rows for line in lines)
        self.margin = widest + 2 * self.gap if widest else 0
        self.row_height = max(cell[1], _tall(self.rows, self.font)) + self.gap
        self._arrange()
        most = max_pixels()
        if self.width * self.height > most:
            raise ValueError(
                f"the sheet would have {self.width} x {self.height} pixels, at most "
                f"{most // 1_000_000} million are possible; give fewer values, or --cell-px"
            )

    def _width(self, text: str) -> int:
        return math.ceil(self.font.getlength(text))

    def _arrange(self) -> None:
        """Tables beside and below each other."""
        labels, gap = self.labels, self.gap
        wide = self.margin + len(labels.columns) * (self.box + gap) + gap
        self.titles = [_lines(text, self.large, wide - 2 * gap) for text in labels.tables]
        self.title_height = _tall(self.titles, self.large)
        self.header = _tall(self.columns, self.font) + gap
        high = self.title_height + self.header + len(labels.rows) * self.row_height + gap
        count = len(labels.tables)

        def oddness(across: int) -> float:
            down = math.ceil(count / across)
            unused = 3 * (across * down - count) / count
            return abs(math.log(across * wide / (down * high) / ASPECT)) + unused

        self.across = min(range(1, count + 1), key=oddness)
        self.table = wide, high
        self.width = self.across * wide
        self.heading = _lines(labels.heading, self.large, self.width - 2 * gap)
        self.top = gap + _height(self.large) * len(self.heading) if labels.heading else 0
        self.height = self.top + math.ceil(count / self.across) * high

    def draw(self, find: Callable[[int, int, int], np.ndarray | str]) -> np.ndarray:
        """uint8 (H, W, 3). find(column, row, table) -> the picture of a cell, uint8 (h, w, 3), or
        the reason that there is none."""
        canvas = Image.new("RGB", (self.width, self.height), "white")
        pen = ImageDraw.Draw(canvas)
        if self.labels.heading:
            _write(pen, (self.gap, self.gap), self.heading, self.large)
        for k in range(len(self.labels.tables)):
            left, top = k % self.across * self.table[0], k // self.across * self.table[1]
            self._table(canvas, pen, left, self.top + top, k, find)
        return np.asarray(canvas)

    def _table(self, canvas, pen, left: int, top: int, k: int, find: Callable) -> None:
        gap, line = self.gap, _height(self.font)
        _write(pen, (left + gap, top + gap // 2), self.titles[k], self.large)
        top += self.title_height
        first = left + self.margin + gap
        for i, lines in enumerate(self.columns):
            at = first + i * (self.box + gap) + self.box // 2, top + self.header - gap // 2
            _write(pen, (at[0], at[1] - line * len(lines)), lines, self.font, "ma")
        top += self.header
        for j, lines in enumerate(self.rows):
            middle = top + j * self.row_height + (self.row_height - gap) // 2
            _write(pen, (left + gap, middle - line * len(lines) // 2), lines, self.font)
            for i in range(len(self.columns)):
                place = first + i * (self.box + gap), top + j * self.row_height
                self._cell(canvas, pen, place, find(i, j, k))

    def _cell(self, canvas, pen, place: tuple[int, int], found: np.ndarray | str) -> None:
        (left, top), height = place, self.row_height - self.gap
        if isinstance(found, str):
            box = (left, top, left + self.box - 1, top + height - 1)
            pen.rectangle(box, EMPTY)
            font = ImageFont.load_default(LEAST_FONT)
            lines = _lines(found, font, self.box - 12, max(1, (height - 8) // _height(font)))
            _write(pen, (left + 6, top + 4), lines, font, fill=GREY)
            return
        picture = Image.fromarray(found)
        room = self.box - picture.width, height - picture.height
        canvas.paste(picture, (left + room[0] // 2, top + room[1] // 2))


def scaled(pixels: np.ndarray, cell_px: int | None) -> np.ndarray:
    """uint8 (H, W, 3) with its longer side of cell_px; None: as it is."""
    size = scaled_size((pixels.shape[1], pixels.shape[0]), cell_px)
    if size == (pixels.shape[1], pixels.shape[0]):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def scaled_size(size: tuple[int, int], cell_px: int | None) -> tuple[int, int]:
    """(width, height) of what `scaled` gives."""
    if cell_px is None:
        return size
    width, height = (max(1, round(side * cell_px / max(size))) for side in size)
    return width, height


def _height(font) -> int:
    return sum(font.getmetrics()) + 2


def _tall(labels: list[list[str]], font) -> int:
    """Room for the label with the most lines; none where all are empty."""
    return _height(font) * max(len(lines) if any(lines) else 0 for lines in labels)


def _write(pen, place: tuple[int, int], lines, font, anchor: str = "la", fill: str = "black"):
    for i, text in enumerate(lines):
        pen.text((place[0], place[1] + i * _height(font)), text, fill, font, anchor=anchor)


def _lines(text: str, font, width: int, most: int = MOST_LINES) -> list[str]:
    """The text in lines of at most this many pixels; words that are longer are broken."""
    lines, rest = [], text.split()
    line = ""
    while rest:
        word = rest.pop(0)
        longer = f"{line} {word}" if line else word
        if font.getlength(longer) <= width:
            line = longer
        elif line:
            lines.append(line)
            line, rest = "", [word, *rest]
        else:
            fits = max(
                1, next(n for n in range(len(word)) if font.getlength(word[: n + 1]) > width)
            )
            lines.append(word[:fits])
            rest = [*filter(None, [word[fits:]]), *rest]
        if len(lines) > most:
            break
    lines = [*lines, line] if line or not lines else lines
    if len(lines) > most:
        cut = lines[most - 1]
        while cut and font.getlength(cut + "...") > width:
            cut = cut[:-1]
        lines = [*lines[: most - 1], cut + "..."]
    return lines
