"""`jstyle compare`: the same pictures through several methods, on one sheet with figures.

OUT.png                                     the sheet; its text chunk says what it shows
OUT.json                                    the same, with every result's file and figures
OUT.cells/METHOD/CONTENT_stylized_STYLE.png the results, each with its record; what is there already
                                            is taken from there
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..config import RESULTS_TOGETHER
from ..grids.sheet import Labels, Sheet, scaled
from ..likeness import colour_distance, edge_similarity
from ..methods import find_method
from ..score.histogram import Histogram, style_score
from ..sd import files, hub, image, targets
from ..sd.facts import STYLE
from ..sd.reading import read_object
from . import outputs
from .inputs import Model, Picture, find_model, find_pictures, start
from .pairs import Pair, combine, make_pairs, name_results
from .stylize import Summary, run_pairs

log = logging.getLogger("jstyle")
FIGURES = {  # of a result
    "colour": "distance of its colours from the style's, 0 for the same",
    "edges": "how far its edges are the content's, 1 for the same",
    "hist": "correlation of its colour classes with the style's, 1 for the same",
}


@dataclass(frozen=True)
class Request:
    """What is asked of `compare`. content, style: a picture or a folder of pictures each; out: a
    PNG's name; methods: names of METHODS.

    options: given to the methods that have them; the others are told. csv: also a table, a file's
    name. cell_px: longer side of the pictures on the sheet. overwrite: also replace files that are
    no results of ours.
    """

    content: str
    style: str
    out: str
    methods: Sequence[str]
    options: Mapping[str, Any] = field(default_factory=dict)
    csv: str | None = None
    cell_px: int | None = None
    model: str | hub.Source = "tiny"
    loras: Sequence[str] = ()
    device: str = "auto"
    overwrite: bool = False

    def __post_init__(self):
        if not self.methods:
            raise ValueError("methods must name at least one")
        for name in self.methods:
            find_method(name)
        if len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods must differ, got {', '.join(self.methods)}")
        if self.csv is not None and Path(self.csv).suffix != ".csv":
            raise ValueError(f"{self.csv}: the table's name must end in .csv")


@dataclass(frozen=True)
class Column:
    """One method, its options, and where its results are: (content, style) -> pair."""

    name: str
    cfg: Any
    pairs: dict[tuple[Picture, Picture], Pair]


def compare(asked: Request, bar: Callable, tell: Callable[[str], None] = log.info) -> Path:
    """Make what is missing, then write the sheet, its record and the table; the sheet's path.

    `bar(total)` makes a tqdm-like progress bar; tell(line) is given what options a method lacks.
    Raises ValueError for anything that cannot be, before anything starts.
    """
    path, table = outputs.picture_path(asked.out), [] if asked.csv is None else [Path(asked.csv)]
    contents, styles = find_pictures(asked.content), find_pictures(asked.style)
    read = [picture.path for picture in (*contents, *styles)]
    outputs.require_free([path], asked.overwrite, read)
    targets.require_free(table, asked.overwrite, read)
    folder = path.with_suffix(".cells")
    found = find_model(asked.model, loras=asked.loras)
    columns = [
        _column(name, asked, contents, styles, folder, found, tell) for name in asked.methods
    ]
    with files.output_folder(path.parent), files.output_folder(folder):
        _make(columns, found, asked, folder, bar, tell)
        rows = list(product(contents, styles))
        figures = [[_figures(c, s, column) for column in columns] for c, s in rows]
        pixels = _sheet(columns, rows, figures, asked)
        _write(path, pixels, columns, rows, figures, asked, found)
        if table:
            with files.atomic_write(table[0]) as part:
                files.write_text(part, _as_csv(columns, rows, figures))
    return path


def _column(
    name: str, asked: Request, contents, styles, folder: Path, model: Model, tell
) -> Column:
    method = find_method(name)
    own = {field.name for field in fields(method.Config)}
    given = {option: value for option, value in asked.options.items() if value is not None}
    if lacking := [option.replace("_", "-") for option in given if option not in own]:
        tell(f"{name} has no --{', --'.join(lacking)}")
    cfg = method.Config(**{option: value for option, value in given.items() if option in own})
    wanted = combine(contents, styles if STYLE in method.roles else ())
    paths = name_results(wanted, str(folder / name), several=name)
    made = make_pairs(wanted, paths, method, cfg, model)
    pairs = {(p.content, s): p for p in made for s in p.styles or styles}
    return Column(name, cfg, pairs)


def _make(columns: list[Column], model: Model, asked: Request, folder: Path, bar, tell) -> None:
    """The results that are not there."""
    todo = {
        column.name: [p for p in _each(column) if not outputs.is_finished(p.out, p.key)]
        for column in columns
    }
    if not any(todo.values()):
        return
    with start(model, asked.device, tell) as started:
        for column in columns:
            if pairs := todo[column.name]:
                with files.output_folder(folder / column.name):
                    what = find_method(column.name), column.cfg, bar, Summary(), tell
                    run_pairs(started, model, pairs, *what, RESULTS_TOGETHER)


def _each(column: Column) -> list[Pair]:
    return list(dict.fromkeys(column.pairs.values()))


def _figures(content: Picture, style: Picture, column: Column) -> dict[str, float]:
    """FIGURES of one result, and the seconds that its sampling took."""
    pair = column.pairs[content, style]
    made = np.asarray(image.read_rgb(pair.out))
    size = made.shape[:2]
    result, c, s = (image.load(p, size, multiple=1) for p in (pair.out, content.path, style.path))
    metric = Histogram(corrected=True)
    classes = [metric.of(image.to_uint8(x)[0])[None] for x in (result, s)]
    seconds = read_object(outputs.record_path(pair.out))["seconds"]["sampling"]
    figures = colour_distance(result, s), edge_similarity(result, c), style_score(*classes)
    return {**dict(zip(FIGURES, figures, strict=True)), "seconds": seconds}


def _sheet(columns: list[Column], rows: list, figures: list[list[dict]], asked: Request):
    """Content, style and every method's result in a row; the means of a column in its label."""
    shown: dict[tuple[int, int], np.ndarray] = {}
    for j, (content, style) in enumerate(rows):
        made = [np.asarray(image.read_rgb(column.pairs[content, style].out)) for column in columns]
        size = made[0].shape[:2]
        given = [image.to_uint8(image.load(p.path, size, multiple=1))[0] for p in (content, style)]
        for i, pixels in enumerate((*given, *made)):
            shown[i, j] = scaled(pixels, asked.cell_px)
    labels = [_label(column.name, [row[i] for row in figures]) for i, column in enumerate(columns)]
    told = "colour: distance from the style's; edges: likeness to the content's; hist: likeness to "
    told = f"{told}the style's colour classes"
    names = Labels(told, ["content", "style", *labels], [""] * len(rows), [""])
    cell = max(x.shape[1] for x in shown.values()), max(x.shape[0] for x in shown.values())
    return Sheet(names, cell).draw(lambda i, j, k: shown[i, j])


def _label(name: str, figures: list[dict]) -> str:
    means = {key: np.mean([each[key] for each in figures]) for key in FIGURES}
    return f"{name} " + " ".join(f"{key} {value:.2f}" for key, value in means.items())


def _rows(columns: list[Column], rows: list, figures: list[list[dict]]) -> list[dict]:
    """One for each result, as in the table."""
    return [
        {"content": c.path.name, "style": s.path.name, "method": column.name, **values}
        for (c, s), line in zip(rows, figures, strict=True)
        for column, values in zip(columns, line, strict=True)
    ]


def _as_csv(columns: list[Column], rows: list, figures: list[list[dict]]) -> str:
    text = io.StringIO()
    found = _rows(columns, rows, figures)
    writer = csv.DictWriter(text, list(found[0]), lineterminator="\n")
    writer.writeheader()
    for row in found:
        writer.writerow({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue()


def _write(path: Path, pixels, columns, rows, figures, asked: Request, model: Model) -> None:
    options = {column.name: find_method(column.name).settings(column.cfg) for column in columns}
    about = {"jstyle": __version__, "command": "compare", "model": model.facts, "options": options}
    results = _rows(columns, rows, figures)
    with files.atomic_write(outputs.record_path(path)) as part:
        files.write_text(part, files.json_text({**about, "results": results}))
        image.save_png(path, pixels, metadata=about)
