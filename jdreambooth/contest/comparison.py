"""`jdreambooth contest report A B ...`: runs of one contest side by side on one page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from string import ascii_uppercase

from jstyle.console.words import count
from jstyle.score.layout import Style
from jstyle.score.total import METRICS
from jstyle.sd import targets
from jstyle.sd.limits import require_whole
from jstyle.sd.progress import progress_of

from .findings import TOTAL, Found, Picture, collect, read_scores
from .folders import Record, read_record
from .manifest import changes
from .options import NOT_HERE
from .pages import (
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
from .waterfall import draw_waterfall

PAGE = "comparison.html"
MOST = 8  # runs side by side
ORDERS = {
    "": "in the contest's order",
    "change": "what got worse first",
    "gain": "what got better first",
}


@dataclass(frozen=True)
class Run:
    """One of the runs. letter: what the page calls it. scores: of `jstyle score --json`, or {}."""

    letter: str
    record: Record
    found: dict[str, Found]
    scores: Mapping

    @property
    def name(self) -> str:
        return f"{self.letter}: {self.record.out.folder}"

    def value(self, metric: str, style: str | None = None) -> float | None:
        """Of one style, or of all of them."""
        if style is not None:
            one = self.found.get(style)
            return None if one is None else one.scores.get(metric)
        if self.scores:
            return self.scores.get(metric)
        values = [one.scores.get(metric) for one in self.found.values()]
        return None if not values or None in values else sum(values) / len(values)


def write_comparison(
    folders: Sequence[str | Path],
    page: str | Path | None = None,
    scores: Sequence[str | Path] = (),
    size_px: int = 224,
    bar: Callable | None = None,
    overwrite: bool = False,
) -> Path:
    """Write one page of several runs; its path, comparison.html in the last one's folder if none is
    given. scores: a file for each run, in their order, or none. Else as write_report.

    Raises ValueError as well for too many runs, or files that are not one for each.
    """
    require_whole("size_px", size_px, 16, 2048)
    if not 2 <= len(folders) <= MOST:
        raise ValueError(f"from 2 to {MOST} runs can be compared, got {len(folders)}")
    if scores and len(scores) != len(folders):
        raise ValueError(f"scores: {len(scores)} files for {len(folders)} runs; one for each")
    records = [read_record(folder) for folder in folders]
    page = records[-1].out.folder / PAGE if page is None else Path(page)
    targets.require_free([page], overwrite)
    given = [read_scores(path) for path in scores] or [None] * len(records)
    runs = []
    for letter, record, one in zip(ascii_uppercase, records, given, strict=False):
        found = {style.style.name: style for style in collect(record, one)}
        runs.append(Run(letter, record, found, one or {}))
    styles = sorted({name for run in runs for name in run.found})
    with progress_of(bar, len(styles)) as progress:
        sections = []
        for name in styles:
            sections.append(_style(runs, name, size_px))
            progress.update()
    roots = dict.fromkeys(run.record.root.name for run in runs)
    words = {
        "title": escape(f"Contest {' and '.join(roots)}: {count(len(runs), 'run')}"),
        "about": "<br>".join(escape(run.name) for run in runs),
        "summary": _summary(runs, styles) + _waterfalls(runs) + _differences(runs, styles),
        "filters": filters(styles, {}, ORDERS),
        "styles": "\n".join(sections),
        "side": f"{size_px}px",
    }
    write_page(page, words)
    return page


def _summary(runs: list[Run], styles: list[str]) -> str:
    """Each metric of each run, and how far the last is from the first."""
    places = [None, *styles]
    known = {m for m in METRICS for r in runs for s in places if r.value(m, s) is not None}
    metrics = [m for m in METRICS if m in known]
    heads = ["style"]
    for metric in metrics:
        heads += [*(f"{heading(metric)} {run.letter}" for run in runs), "change"]
    rows = []
    for style in [*styles, None]:
        name = "all"
        if style is not None:
            name = f'<a href="#{anchor(style)}">{escape(style)}</a>'
        cells = [name]
        for metric in metrics:
            cells += _compared(metric, [run.value(metric, style) for run in runs])
        rows.append(cells)
    totals = [run.scores.get(TOTAL) for run in runs]
    note = ""
    if any(total is not None for total in totals):
        told = ", ".join(f"{r.letter} {number(t)}" for r, t in zip(runs, totals, strict=True))
        note = f'<p id="total">total: {told}</p>'
    return f'<div class="wide">{table("summary", heads, rows)}</div>{note}'


def _compared(metric: str, values: list[float | None]) -> list[str]:
    """The cells of one metric: the best in bold, and the change in green or red."""
    sign = -1 if metric in ("lpips", "fid") else 1
    known = [sign * value for value in values if value is not None]
    cells = []
    for value in values:
        best = value is not None and len(known) > 1 and sign * value == max(known)
        cells.append(f"<b>{number(value)}</b>" if best else number(value))
    if values[0] is None or values[-1] is None:
        return [*cells, ""]
    return [*cells, _change(values[-1] - values[0], sign)]


def _change(change: float, sign: int = 1, digits: int = 4) -> str:
    mark = "better" if sign * change > 0 else "worse" if sign * change < 0 else ""
    return f'<span class="{mark}">{change:+.{digits}f}</span>'


def _waterfalls(runs: list[Run]) -> str:
    """What each change bought, from run to run; a word on why where that cannot be told."""
    drawn = []
    for before, after in zip(runs, runs[1:], strict=False):
        letters = (before.letter, after.letter)
        one = draw_waterfall(before.scores, after.scores, letters)
        if one is not None:
            drawn.append(f"<div><h3>from {letters[0]} to {letters[1]}</h3>{one}</div>")
    if drawn:
        return f'<div class="columns">{"".join(drawn)}</div>'
    told = "What a change bought in the total is shown with all six metrics of every run: --scores"
    return f'<p class="note">{told} FILE for each.</p>'


def _differences(runs: list[Run], styles: list[str]) -> str:
    """What the configurations do not have in common, from run to run."""
    rows = []
    for before, after in zip(runs, runs[1:], strict=False):
        found: dict[str, list[str]] = {}
        for line in changes(before.record.config.wide, after.record.config.wide):
            found[line] = ["all"]
        for style in styles:
            for line in changes(_options(before, style), _options(after, style)):
                found.setdefault(line, []).append(style)
        for line, names in found.items():
            where = "all" if len(names) == len(styles) else ", ".join(names)
            rows.append([f"{before.letter} to {after.letter}", escape(line), escape(where)])
    if not rows:
        return '<p class="note">The configurations are the same.</p>'
    shown = table("differences", ["runs", "setting", "styles"], rows)
    return f'<details open><summary>what differs</summary><div class="wide">{shown}</div></details>'


def _options(run: Run, style: str) -> dict:
    options = asdict(run.record.config.style(style))
    return {
        section: {k: v for k, v in given.items() if k not in NOT_HERE}
        if isinstance(given, dict)
        else given
        for section, given in options.items()
    }


def _style(runs: list[Run], name: str, size_px: int) -> str:
    there = [run.found[name] for run in runs if name in run.found]
    style: Style = there[0].style
    references = "".join(reference(path) for path in style.references)
    prompts = list(dict.fromkeys(p.prompt for found in there for p in found.pictures))
    rows = "".join(_row(runs, name, p, i, size_px) for i, p in enumerate(prompts))
    return "\n".join(
        [
            f'<section id="{anchor(name)}" data-style="{escape(name)}">',
            f"<h2>Style {escape(name)}</h2>",
            f'<div class="pictures references">{references}</div>',
            f'<div class="results rows">{rows}</div></section>',
        ]
    )


def _row(runs: list[Run], style: str, prompt: str, place: int, size_px: int) -> str:
    """A prompt's pictures in every run."""
    pictures = [_of(run.found.get(style), prompt) for run in runs]
    values = [p.close.hist if p is not None and p.close is not None else None for p in pictures]
    cells = "".join(
        _cell(run, shown, prompt, size_px) for run, shown in zip(runs, pictures, strict=True)
    )
    attributes, told = f'data-place="{place}"', ""
    if values[0] is not None and values[-1] is not None:
        change = values[-1] - values[0]
        attributes += f' data-change="{change:.6f}" data-gain="{-change:.6f}"'
        told = f" <small>HIST {_change(change, digits=3)}</small>"
    find = found_by(prompt, *(shown.text for shown in pictures if shown is not None))
    head = f"<h3>{escape(prompt)}{told}</h3>"
    body = f'<div class="pictures">{cells}</div>'
    return f'<div class="row" data-prompt="{escape(prompt)}" {attributes} {find}>{head}{body}</div>'


def _of(found: Found | None, prompt: str) -> Picture | None:
    pictures = () if found is None else found.pictures
    return next((p for p in pictures if p.prompt == prompt), None)


def _cell(run: Run, shown: Picture | None, prompt: str, size_px: int) -> str:
    if shown is None or shown.path is None:
        why = "not of this run" if shown is None else "not made yet"
        caption = f"<figcaption>{run.letter}<small>{why}</small></figcaption>"
        return f'<figure class="missing"><div></div>{caption}</figure>'
    told = [] if shown.seed is None else [f"seed {escape(str(shown.seed))}"]
    if shown.close is not None:
        told.append(f"HIST {shown.close.hist:.3f}")
        if shown.close.copied:
            told.append('<b class="missing">perhaps a copy</b>')
    image = picture(shown.path, f"{escape(prompt)}, {run.letter}", size_px)
    about = " &middot; ".join([*told, escape(shown.text)])
    return f"<figure>{image}<figcaption>{run.letter}<small>{about}</small></figcaption></figure>"
