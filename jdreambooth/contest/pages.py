"""What the pages of contest runs are made of: pieces of HTML, and the template they go into.

All text that is not written here is escaped on its way in; pictures are thumbnails in the page.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

from jstyle.sd import files
from jstyle.sd.thumbnail import thumbnail

PAGE = "report.html"
TEMPLATE = Path(__file__).with_name(PAGE)
REFERENCE_PX = 160


def write_page(page: Path, words: Mapping[str, str]) -> None:
    """Fill the template. words: title, about, summary, filters, styles, side; all HTML."""
    template = TEMPLATE.read_text(encoding="utf-8")
    text = Template(template).substitute(words, script=_only_script(template))
    with files.output_folder(page.parent), files.atomic_write(page) as part:
        files.write_text(part, text)


def _only_script(template: str) -> str:
    """The hash by which browsers know the page's own script, the only one that may run."""
    body = template.partition("<script>")[2].partition("</script>")[0]
    return "sha256-" + base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()


def heading(metric: str) -> str:
    return metric.upper().replace("_", "-")


def number(value: float | None, how: str = ".4f") -> str:
    return "-" if value is None or math.isnan(value) else format(value, how)


def table(
    name: str, heads: Iterable[str], rows: Iterable, marks: Mapping[int, str] | None = None
) -> str:
    """Cells are HTML. marks: number of a row -> its class."""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = []
    for i, row in enumerate(rows):
        mark = f' class="{marks[i]}"' if marks and i in marks else ""
        body.append(f"<tr{mark}>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>")
    return f'<table class="{name}"><tr>{head}</tr>{"".join(body)}</table>'


def filters(styles: Sequence[str], switches: Mapping[str, str], orders: Mapping[str, str]) -> str:
    """The buttons above the styles. switches: id -> text; orders: value -> text of what pictures
    can be sorted by."""
    chips = ['<button type="button" id="every" aria-pressed="true">all</button>']
    for style in styles:
        name = escape(style)
        chip = f'<button type="button" data-style="{name}" aria-pressed="false">{name}</button>'
        chips.append(chip)
    for name, text in switches.items():
        chips.append(f'<button type="button" id="{name}" aria-pressed="false">{text}</button>')
    if orders:
        items = "".join(f'<option value="{key}">{text}</option>' for key, text in orders.items())
        chips.append(f'<select id="order" aria-label="order of the pictures">{items}</select>')
    return "\n".join(chips)


def anchor(style: str) -> str:
    return "style-" + escape(style.replace(" ", "_"))


def picture(path: Path, alt: str, size_px: int, mark: str = "") -> str:
    """alt: HTML. The thumbnail, or a word that the file cannot be read."""
    data = thumbnail(path, size_px)
    if data is None:
        return f'<div class="missing">{escape(path.name)} cannot be read</div>'
    mark = f' class="{mark}"' if mark else ""
    return f'<img{mark} alt="{alt}" src="{data}">'


def reference(path: Path, note: str = "") -> str:
    name = escape(path.stem)
    small = f"<small>{escape(note)}</small>" if note else ""
    shown = picture(path, name, REFERENCE_PX)
    return f"<figure>{shown}<figcaption>{name}{small}</figcaption></figure>"


def found_by(*texts: object) -> str:
    """The attribute that the search looks into."""
    return f'data-find="{escape(" ".join(str(t) for t in texts if t).casefold())}"'
