"""`jstyle grid`: one labelled sheet over the values of up to three options.

OUT.png                 the sheet; its text chunk says what it shows
OUT.json                the same, with every cell's values, file and seconds
OUT.html                the same as a page
OUT.cells/KEY.png       the pictures, each with its record; a sheet takes what is there already
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..grids import record
from ..grids.axes import Axis, parse_axes
from ..grids.cells import Cell, Grid, Settings, make_cells
from ..grids.loras import find_loras, saved_counts
from ..grids.page import as_html
from ..grids.request import Request, require_apart, require_readable
from ..grids.run import Run, open_run
from ..grids.sheet import Sheet, scaled, scaled_size
from ..sd import files, hub, image, targets
from ..sd.limits import SIDE_PX, require_whole
from ..sd.schedule import Schedule
from . import outputs
from .inputs import Model, find_model, start

log = logging.getLogger("jstyle")
SIDES = ("width", "height")


@dataclass(frozen=True)
class Done:
    """How many cells there are, of which painted now, of which empty; the rest was there."""

    sheet: Path
    page: Path
    cells: int
    painted: int
    empty: int


def grid(request: Request, out: str, bar: Callable, tell: Callable[[str], None] = log.info) -> Done:
    """Paint what is missing, then write the sheet, its record and its page.

    tell(line): a LoRA's keys, and why cells are empty. Raises ValueError for anything that cannot
    be, before anything starts; OSError if it cannot write. Pictures of finished cells stay.
    """
    axes = parse_axes(request.axes)
    require_apart(request, axes)
    path = outputs.picture_path(out)
    page, folder = path.with_suffix(".html"), path.with_suffix(".cells")
    outputs.require_free([path], request.overwrite)
    targets.require_free([page], request.overwrite)
    found = _resolve(request, axes)
    sheet = Sheet(record.sheet_labels(found), _largest(found))
    with files.output_folder(path.parent), files.output_folder(folder):
        painted = _paint_missing(found, folder, bar, tell)
        for line in _reasons(found.cells):
            tell(line)
        if all(cell.why for cell in found.cells):
            raise ValueError(f"no cell has a picture: {found.cells[0].why}")
        at = found.by_place()
        pixels = sheet.draw(lambda *place: _shown(at[place], folder, request.cell_px))
        labels, same = record.labels_of(found.axes), record.in_all_cells(found)
        _write(path, page, pixels, as_html(path.stem, same, labels, at, folder), found, folder)
    empty = sum(bool(cell.why) for cell in found.cells)
    return Done(path, page, len(found.cells), painted, empty)


def _resolve(request: Request, axes: Sequence[Axis]) -> Grid:
    """Everything that can be known before the model is loaded."""
    run = None if request.run is None else open_run(request.run)
    given = request if run is None else run
    source = hub.Source(given.model, given.variant, given.prediction, given.tokenizer)
    model = find_model(source)
    axes = tuple(saved_counts(axis, run) for axis in axes)
    settings = _settings(request, axes, run, model)
    schedule = Schedule(model.configs["scheduler"])
    cells = make_cells(axes, settings, model, find_loras(request, axes, run), schedule)
    return Grid(request, axes, settings, model, run, cells)


def _settings(request: Request, axes: Sequence[Axis], run: Run | None, model: Model) -> Settings:
    """Those of all cells. Raises ValueError for a size of any cell that the model cannot have."""
    unet, vae = model.configs["unet"], model.configs["vae"]
    scale = 2 ** (len(vae.block_out_channels) - 1)
    usual = unet.sample_size * scale if run is None or run.size_px is None else run.size_px
    width, height = (usual if side is None else side for side in (request.width, request.height))
    multiple = scale * 2 ** (len(unet.block_out_channels) - 1)
    sizes = next((axis.values for axis in axes if axis.name == "size"), [(width, height)])
    for name, side in (pair for size in sizes for pair in zip(SIDES, size, strict=True)):
        require_whole(name, side, 1, SIDE_PX)
        if side % multiple:
            raise ValueError(f"{name} must be a multiple of {multiple}, got {side}")
    prompt = request.prompts[0] if request.prompts else ""
    how = request.sampling if run is None else request.sampling.read_as(run)
    require_readable(request, axes, how.syntax)
    return Settings(prompt, request.negative, request.seed, height, width, how)


def _largest(found: Grid) -> tuple[int, int]:
    """(width, height) that a picture on the sheet can have."""
    sizes = {(c.settings.width, c.settings.height) for c in found.cells if c.settings}
    shown = [scaled_size(size, found.request.cell_px) for size in sizes]
    return max(width for width, _ in shown), max(height for _, height in shown)


def _paint_missing(found: Grid, folder: Path, bar: Callable, tell: Callable) -> int:
    """How many were painted now. Cells of one key share the picture, or the reason for none."""
    first = {cell.key: cell for cell in reversed(found.cells) if not cell.why}
    todo = [
        cell for key, cell in first.items() if not outputs.is_finished(folder / f"{key}.png", key)
    ]
    if not todo:
        return 0
    with start(found.model, found.request.device, tell) as started:
        from ..grids.paint import paint

        painted = paint(started, found.model, todo[::-1], folder, bar, tell)
    for cell in found.cells:
        if not cell.why:
            cell.why = first[cell.key].why
    return painted


def _reasons(cells: Sequence[Cell]) -> list[str]:
    """One line for each reason of empty cells."""
    found: dict[str, int] = {}
    for cell in cells:
        if cell.why:
            found[cell.why] = found.get(cell.why, 0) + 1
    return [f"{n} of {len(cells)} cells are empty: {why}" for why, n in found.items()]


def _shown(cell: Cell, folder: Path, cell_px: int | None) -> np.ndarray | str:
    """A cell on the sheet: its picture, or the short reason that there is none."""
    if cell.why:
        return cell.why.split(";")[0]
    return scaled(np.asarray(image.read_rgb(folder / f"{cell.key}.png")), cell_px)


def _write(
    path: Path, page: Path, pixels: np.ndarray, html: str, found: Grid, folder: Path
) -> None:
    """The sheet comes last: where it is new, so is all beside it."""
    known = record.about(found)
    text = files.json_text(record.with_files(known, found, folder))
    with files.atomic_write(page) as part:
        files.write_text(part, html)
    with files.atomic_write(outputs.record_path(path)) as part:
        files.write_text(part, text)
        image.save_png(path, pixels, metadata=known)
