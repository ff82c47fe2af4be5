"""The cells as one HTML page that opens without a network and from any folder.

The page is grid.html with the tables filled in; the pictures in it are small ones inside the page,
and lead to the whole ones where those are still beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote

from ..sd.thumbnail import thumbnail
from .cells import Cell

TEMPLATE = Path(__file__).with_name("grid.html")
THUMBNAIL_PX = 256  # longer side


def as_html(
    title: str,
    about: Mapping[str, object],
    labels: Sequence[Sequence[str]],
    cells: Mapping[tuple[int, int, int], Cell],
    folder: Path,
) -> str:
    """labels: of columns, rows and tables. cells: by column, row and table. folder: with the
    pictures, beside the page. about: what is the same in all cells."""
    columns, rows, tables = labels
    parts = []
    for k, name in enumerate(tables):
        head = "".join(f"<th scope=col>{escape(text)}" for text in columns)
        body = [f"<tr><td>{head}"]
        for j, row in enumerate(rows):
            found = "".join(_cell(cells[i, j, k], folder) for i in range(len(columns)))
            body.append(f"<tr><th scope=row>{escape(row)}{found}")
        caption = f"<h2>{escape(name)}</h2>" if name else ""
        lines = "\n".join(body)
        parts.append(f"<section>{caption}<div class=wide><table>{lines}</table></div></section>")
    told = "".join(f"<dt>{escape(k)}<dd>{escape(str(v))}" for k, v in about.items())
    words = {"title": escape(title), "about": f"<dl>{told}</dl>", "tables": "\n".join(parts)}
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(words)


def _cell(cell: Cell, folder: Path) -> str:
    said = ", ".join(f"{name} {_told(value)}" for name, value in cell.values.items())
    if cell.why:
        return f'<td class=empty title="{escape(said)}">{escape(cell.why)}'
    name = f"{cell.key}.png"
    data, alt = thumbnail(folder / name, THUMBNAIL_PX), escape(said)
    link = escape(f"{quote(folder.name)}/{name}")
    return f'<td><a href="./{link}" title="{alt}"><img alt="{alt}" src="{data}"></a>'


def _told(value: object) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else "own" if value is None else str(value)
