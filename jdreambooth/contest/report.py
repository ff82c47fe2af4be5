"""`jdreambooth contest report`: all styles of a run on one page that opens without a network.

The page is report.html with what `findings` found filled in; pictures are thumbnails inside it.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from html import escape
from pathlib import Path
from string import Template

from jstyle.console.words import count
from jstyle.score.total import METRICS
from jstyle.sd import files, targets
from jstyle.sd.limits import require_whole
from jstyle.sd.progress import progress_of
from jstyle.sd.thumbnail import thumbnail

from .curves import draw_losses
from .findings import TOTAL, Found, Picture, collect, read_scores
from .folders import read_record

PAGE = "report.html"
TEMPLATE = Path(__file__).with_name(PAGE)
REFERENCE_PX = 160
PICK_COLUMNS = {  # heading -> (key in pick.json, format)
    "colour": ("colour", ".3f"),
    "texture": ("texture", ".3f"),
    "recognised": ("own", ".0%"),
    "as trained": ("training", ".0%"),
    "diversity": ("diversity", ".2f"),
    "nearest": ("nearest", ".2f"),
    "copies": ("copied", ".0%"),
    "HIST, held out": ("hist", ".3f"),
}


def write_report(
    folder: str | Path,
    page: str | Path | None = None,
    scores: str | Path | None = None,
    size_px: int = 224,
    bar: Callable | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the page of a contest run and return its path, OUT/report.html if none is given.

    scores: a file of `jstyle score --json`; without one, HIST is computed. size_px: longer side of
    the thumbnails. bar(total) makes a progress bar. overwrite: also replace a file that is no such
    page. Raises OutError, ContestError, ScoresError, or
    ValueError for a size out of range.
    """
    require_whole("size_px", size_px, 16, 2048)
    record = read_record(folder)
    page = record.out.folder / PAGE if page is None else Path(page)
    targets.require_free([page], overwrite)
    given = None if scores is None else read_scores(scores)
    found = collect(record, given)
    with progress_of(bar, len(found)) as progress:
        sections = []
        for style in found:
            sections.append(_style(style, size_px))
            progress.update()
    pictures = sum(len(style.pictures) for style in found)
    about = f"{count(len(found), 'style')}, {sum(s.made for s in found)} of {pictures} pictures"
    words = {
        "title": escape(f"Contest {record.root.name}"),
        "about": escape(f"{about}, model {record.config.wide['model']}"),
        "summary": _summary(found, given or {}),
        "filters": _filters(found),
        "styles": "\n".join(sections),
        "side": f"{size_px}px",
    }
    template = TEMPLATE.read_text(encoding="utf-8")
    text = Template(template).substitute(words, script=_only_script(template))
    with files.output_folder(page.parent), files.atomic_write(page) as part:
        files.write_text(part, text)
    return page


def _only_script(template: str) -> str:
    """The hash by which browsers know the page's own script, the only one that may run."""
    body = template.partition("<script>")[2].partition("</script>")[0]
    return "sha256-" + base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()


def _summary(found: list[Found], scores: Mapping) -> str:
    """A row per style, and one for all of them."""
    metrics = [m for m in METRICS if any(m in s.scores for s in found) or m in scores]
    heads = ["style", "pictures", "steps", "picked", "last loss", *map(_heading, metrics)]
    rows = []
    for style in found:
        loss = style.losses.get("loss")
        cells = [f'<a href="#{_anchor(style)}">{escape(style.style.name)}</a>']
        cells += [f"{style.made} of {len(style.pictures)}"]
        cells += ["" if loss is None else str(len(loss)), str(style.picked.get("used", ""))]
        cells += ["" if loss is None else f"{loss[-1]:.4f}"]
        rows.append([*cells, *(_number(style.scores.get(m)) for m in metrics)])
    means = [scores.get(m, _mean(found, m)) for m in metrics]
    rows.append(["all", *[""] * 4, *map(_number, means)])
    note = ""
    if scores:
        missing = ", ".join(map(str, scores.get("missing") or ()))
        note = f"total {_number(scores.get(TOTAL))}" + (f"; missing: {missing}" if missing else "")
        note = f'<p id="total">{escape(note)}</p>'
    return f'<div class="wide">{_table("summary", heads, rows)}</div>{note}'


def _mean(found: list[Found], metric: str) -> float | None:
    values = [style.scores.get(metric) for style in found]
    return None if not values or None in values else sum(values) / len(values)


def _heading(metric: str) -> str:
    return metric.upper().replace("_", "-")


def _number(value: float | None, how: str = ".4f") -> str:
    return "-" if value is None or math.isnan(value) else format(value, how)


def _table(
    name: str, heads: Iterable[str], rows: Iterable, marks: Mapping[int, str] | None = None
) -> str:
    """Cells are HTML. marks: number of a row -> its class."""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = []
    for i, row in enumerate(rows):
        mark = f' class="{marks[i]}"' if marks and i in marks else ""
        body.append(f"<tr{mark}>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>")
    return f'<table class="{name}"><tr>{head}</tr>{"".join(body)}</table>'


def _filters(found: list[Found]) -> str:
    chips = ['<button type="button" id="every" aria-pressed="true">all</button>']
    for style in found:
        name = escape(style.style.name)
        chip = f'<button type="button" data-style="{name}" aria-pressed="false">{name}</button>'
        chips.append(chip)
    if any(picture.before for style in found for picture in style.pictures):
        text = "before refinement"
        chips.append(f'<button type="button" id="before" aria-pressed="false">{text}</button>')
    return "\n".join(chips)


def _anchor(style: Found) -> str:
    return "style-" + escape(style.style.name.replace(" ", "_"))


def _style(found: Found, size_px: int) -> str:
    name = escape(found.style.name)
    references = "".join(_reference(path, found) for path in found.style.references)
    drawn = draw_losses(found.losses, found.saved, found.picked.get("used"))
    loss = "" if drawn is None else f"<div><h3>loss</h3>{drawn}</div>"
    parts = [
        f'<section id="{_anchor(found)}" data-style="{name}"><h2>Style {name}</h2>',
        f'<div class="pictures references">{references}</div>',
        f"<h3>{found.made} of {len(found.pictures)} pictures</h3>",
        f'<div class="pictures">{"".join(_figure(p, size_px) for p in found.pictures)}</div>',
        f'<div class="columns">{loss}{_pick(found.picked)}</div></section>',
    ]
    return "\n".join(parts)


def _reference(path: Path, found: Found) -> str:
    used = "<small>the style of the refinement</small>" if path.name == found.style_image else ""
    name = escape(path.stem)
    shown = _image(path, name, REFERENCE_PX)
    return f"<figure>{shown}<figcaption>{name}{used}</figcaption></figure>"


def _figure(picture: Picture, size_px: int) -> str:
    """A prompt with its picture; where it was refined, the picture before as well."""
    prompt = escape(picture.prompt)
    if picture.path is None:
        body, about = "<div></div>", "not made yet"
    else:
        body = _image(picture.path, prompt, size_px, "after" if picture.before else "")
        if picture.before:
            body += _image(picture.before, f"{prompt} before refinement", size_px, "before")
        seed = [] if picture.seed is None else [f"seed {picture.seed}"]
        about = " &middot; ".join([*seed, escape(picture.text)])
    mark = "" if picture.path else ' class="missing"'
    caption = f"<figcaption>{prompt}<small>{about}</small></figcaption>"
    return f'<figure{mark} data-prompt="{prompt}">{body}{caption}</figure>'


def _image(path: Path, alt: str, size_px: int, mark: str = "") -> str:
    data = thumbnail(path, size_px)
    if data is None:
        return f'<div class="missing">{escape(path.name)} cannot be read</div>'
    mark = f' class="{mark}"' if mark else ""
    return f'<img{mark} alt="{alt}" src="{data}">'


def _pick(picked: Mapping) -> str:
    """The table of `jdreambooth pick`: the row that painted is marked, collapsed ones say why."""
    if not picked:
        return ""
    rows, marks = [], {}
    for i, row in enumerate(picked["measured"]):
        step = str(row["step"])
        why = "; ".join(picked["collapsed"].get(step, ()))
        remark = "untrained" if i == 0 else f"collapsed: {why}" if why else ""
        if row["step"] == picked["used"]:
            marks[i], remark = "chosen", f"used{'; ' if remark else ''}{remark}"
        elif why:
            marks[i] = "collapsed"
        numbers = [_number(row[key], how) for key, how in PICK_COLUMNS.values()]
        style = _number(picked["style"].get(step), ".2f")
        rows.append([step, style, *numbers, escape(remark)])
    table = _table("pick", ["step", "style", *PICK_COLUMNS, ""], rows, marks)
    note = f'<p class="note">{escape(picked["note"])}</p>' if picked.get("note") else ""
    return f'<div class="wide"><h3>after how many steps</h3>{table}{note}</div>'
