"""`jdreambooth contest report`: all styles of a run on one page that opens without a network.

The page is report.html with what `findings` found filled in; pictures are thumbnails inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path

from jstyle.console.words import count
from jstyle.score.total import METRICS, bought, total
from jstyle.sd import targets
from jstyle.sd.limits import require_whole
from jstyle.sd.progress import progress_of

from .curves import draw_losses
from .findings import TOTAL, Candidate, Found, Picture, collect, read_scores
from .folders import read_record
from .pages import (
    PAGE,
    TEMPLATE,
    anchor,
    filters,
    found_by,
    heading,
    number,
    picture,
    reference,
    table,
    write_page,
)

__all__ = ["PAGE", "TEMPLATE", "write_report"]

CANDIDATE_PX = 112
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
ORDERS = {
    "": "in the contest's order",
    "hist": "worst HIST first",
    "distance": "nearest to a reference first",
}
STEP = 0.05  # of a metric, in the table of what pays
STEPS = {"fid": -1.0, "lpips": -STEP}


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
        "filters": filters([s.style.name for s in found], _switches(found), ORDERS),
        "styles": "\n".join(sections),
        "side": f"{size_px}px",
    }
    write_page(page, words)
    return page


def _switches(found: list[Found]) -> dict[str, str]:
    """The buttons that this run has a use for."""
    pictures = [picture for style in found for picture in style.pictures]
    switches = {}
    if any(picture.before for picture in pictures):
        switches["before"] = "before refinement"
    if any(picture.candidates for picture in pictures):
        switches["candidates"] = "all candidates"
    if any(style.copies for style in found):
        switches["copies"] = "perhaps copies"
    return switches


def _summary(found: list[Found], scores: Mapping) -> str:
    """A row per style, and one for all of them; what the total is made of."""
    metrics = [m for m in METRICS if any(m in s.scores for s in found) or m in scores]
    heads = ["style", "pictures", "steps", "picked", "last loss", "copies", *map(heading, metrics)]
    rows = []
    for style in found:
        loss = style.losses.get("loss")
        name = style.style.name
        cells = [f'<a href="#{anchor(name)}">{escape(name)}</a>']
        cells += [f"{style.made} of {len(style.pictures)}"]
        cells += ["" if loss is None else str(len(loss)), str(style.picked.get("used", ""))]
        cells += ["" if loss is None else f"{loss[-1]:.4f}", str(style.copies or "")]
        rows.append([*cells, *(number(style.scores.get(m)) for m in metrics)])
    means = [scores.get(m, _mean(found, m)) for m in metrics]
    rows.append(["all", *[""] * 5, *map(number, means)])
    note = ""
    if scores:
        missing = ", ".join(map(str, scores.get("missing") or ()))
        note = f"total {number(scores.get(TOTAL))}" + (f"; missing: {missing}" if missing else "")
        note = f'<p id="total">{escape(note)}</p>{_worth(scores)}'
    return f'<div class="wide">{table("summary", heads, rows)}</div>{note}'


def _mean(found: list[Found], metric: str) -> float | None:
    values = [style.scores.get(metric) for style in found]
    return None if not values or None in values else sum(values) / len(values)


def _worth(scores: Mapping) -> str:
    """Of each metric what a better value would bring; "" without a total."""
    if total(scores) is None:
        return ""
    rows = []
    for metric in METRICS:
        step = STEPS.get(metric, STEP)
        better = {**{m: scores[m] for m in METRICS}, metric: scores[metric] + step}
        gain = bought(scores, better)[metric]
        rows.append([heading(metric), number(scores[metric]), f"{step:+g}", f"{gain:+.4f}"])
    shown = table("worth", ["metric", "value", "better by", "adds to the total"], rows)
    return f'<details><summary>what pays</summary><div class="wide">{shown}</div></details>'


def _style(found: Found, size_px: int) -> str:
    name = escape(found.style.name)
    refining = (found.style_image or "").split(", ")
    references = "".join(
        reference(path, "the style of the refinement" if path.name in refining else "")
        for path in found.style.references
    )
    drawn = draw_losses(found.losses, found.saved, found.picked.get("used"))
    loss = "" if drawn is None else f"<div><h3>loss</h3>{drawn}</div>"
    figures = "".join(_figure(p, i, size_px) for i, p in enumerate(found.pictures))
    parts = [
        f'<section id="{anchor(found.style.name)}" data-style="{name}"><h2>Style {name}</h2>',
        f'<div class="pictures references">{references}</div>',
        _plan(found.plan),
        f"<h3>{found.made} of {len(found.pictures)} pictures</h3>",
        f'<div class="pictures results">{figures}</div>',
        f'<div class="columns">{loss}{_pick(found.picked)}</div></section>',
    ]
    return "\n".join(parts)


def _plan(plan: Mapping[str, tuple[str, str]]) -> str:
    rows = [[section, escape(said), escape(why)] for section, (said, why) in plan.items()]
    if not rows:
        return ""
    shown = table("plan", ["plan", "options", "why"], rows)
    return f'<div class="wide">{shown}</div>'


def _figure(shown: Picture, place: int, size_px: int) -> str:
    """A prompt with its picture; where it was refined, the picture before as well."""
    prompt = escape(shown.prompt)
    scores, attributes = "", f'data-place="{place}"'
    if shown.path is None:
        body, about = "<div></div>", "not made yet"
    else:
        body = picture(shown.path, prompt, size_px, "after" if shown.before else "")
        if shown.before:
            body += picture(shown.before, f"{prompt} before refinement", size_px, "before")
        seed = [] if shown.seed is None else [f"seed {escape(str(shown.seed))}"]
        about = " &middot; ".join([*seed, escape(shown.text)])
    if shown.close is not None:
        close = shown.close
        attributes += f' data-hist="{close.hist:.6f}" data-distance="{close.distance:.6f}"'
        told = f"HIST {close.hist:.3f} &middot; nearest {escape(close.reference)}"
        told += f" at {close.distance:.2f}"
        if close.copied:
            attributes += ' data-copied="1"'
            told += ', <b class="missing">perhaps a copy</b>'
        scores = f'<small class="scores">{told}</small>'
    reference_name = shown.close.reference if shown.close else ""
    attributes += " " + found_by(shown.prompt, shown.text, reference_name)
    attributes += "" if shown.path else ' class="missing"'
    caption = f"<figcaption>{prompt}<small>{about}</small>{scores}</figcaption>"
    more = _candidates(shown)
    attributes += ' tabindex="0"' if more else ""
    return f'<figure data-prompt="{prompt}" {attributes}>{body}{caption}{more}</figure>'


def _candidates(shown: Picture) -> str:
    """What the picture was taken from, shown when the pointer or the keyboard is on it."""
    if not shown.candidates:
        return ""
    each = "".join(_candidate(one, shown.prompt) for one in shown.candidates)
    why = f"<p>{escape(shown.why)}</p>" if shown.why else ""
    return f'<div class="candidates"><div class="strip">{each}</div>{why}</div>'


def _candidate(one: Candidate, prompt: str) -> str:
    mark = ' class="chosen"' if one.chosen else ""
    seed = "" if one.seed is None else f"seed {one.seed}"
    scores = [f"{name} {value:.3f}" for name, value in one.scores.items()]
    told = " &middot; ".join(escape(text) for text in (seed, *scores) if text)
    shown = picture(one.path, f"a candidate of {escape(prompt)}", CANDIDATE_PX)
    return f"<span{mark}>{shown}<small>{told}</small></span>"


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
        numbers = [number(row[key], how) for key, how in PICK_COLUMNS.values()]
        style = number(picked["style"].get(step), ".2f")
        rows.append([step, style, *numbers, escape(remark)])
    shown = table("pick", ["step", "style", *PICK_COLUMNS, ""], rows, marks)
    note = f'<p class="note">{escape(picked["note"])}</p>' if picked.get("note") else ""
    return f'<div class="wide"><h3>after how many steps</h3>{shown}{note}</div>'
