"""`jstyle grid`: one labelled sheet over the values of up to three options.

OUT.png                 the sheet; its text chunk says what it shows
OUT.json                the same with every cell's values, file and seconds
OUT.html                the same as a page
OUT.cells/KEY.png       the pictures, each with its record; a sheet takes what is there already
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import __version__
from ..grids.axes import ALL, NONE, Axis, parse_axes, plain_text
from ..grids.cells import Cell, LoRAs, Settings, make_cells
from ..grids.page import as_html
from ..grids.run import Run, open_run
from ..grids.sheet import Labels, Sheet, scaled, scaled_size
from ..sd import files, hub, image, targets
from ..sd.config import ScheduleConfig, UNetConfig, VAEConfig
from ..sd.samplers.options import FIELDS, Sampling
from ..sd.schedule import Schedule
from . import outputs
from .inputs import Model, find_lora, find_model, start

log = logging.getLogger("jstyle")
DEFAULT_MODEL = "tiny"
NO_AXIS = ("",)


@dataclass(frozen=True)
class Request:
    """The axes' words, and what is the same in all cells, as in `jstyle generate`.

    axes: option -> words. run: a run's folder, whose last saved LoRA is put on where no axis says
    otherwise. cell_px: longer side of the pictures on the sheet; None: as they are painted.
    """

    axes: dict[str, list[str]]
    prompts: list[str] = field(default_factory=list)
    seed: int = 0
    negative: str = ""
    height: int | None = None
    width: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    model: str = DEFAULT_MODEL
    variant: str | None = None
    device: str = "auto"
    loras: list[str] = field(default_factory=list)
    run: str | None = None
    cell_px: int | None = None
    overwrite: bool = False


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
    _require_apart(request, axes)
    sheet_path = outputs.picture_path(out)
    page_path, folder = sheet_path.with_suffix(".html"), cells_folder(sheet_path)
    outputs.require_free([sheet_path], request.overwrite)
    targets.require_free([page_path], request.overwrite)
    run = None if request.run is None else open_run(request.run)
    model = _find_model(request, run)
    axes = tuple(_saved_counts(axis, run) for axis in axes)
    settings, sizes = _common(request, axes, run, model)
    loras = _find_loras(request, axes, run, model)
    cells = make_cells(axes, settings, model, loras, _schedule(model.folder))
    at = _by_place(axes, cells)
    labels = _labels(axes, settings, model)
    longest = [scaled_size(size, request.cell_px) for size in sizes]
    sheet = Sheet(labels, tuple(max(sides) for sides in zip(*longest, strict=True)))
    with files.output_folder(sheet_path.parent), files.output_folder(folder):
        painted = _paint_missing(request, model, cells, folder, bar, tell)
        for line in _reasons(cells):
            tell(line)
        if all(cell.why for cell in cells):
            raise ValueError(f"no cell has a picture: {cells[0].why}")
        about = _about(request, axes, settings, model, run, cells)
        pixels = sheet.draw(lambda *place: _shown(at[place], folder, request.cell_px))
        told = _told(axes, settings, model)
        page = as_html(sheet_path.stem, told, labels_of(axes), at, folder)
        _write(sheet_path, page_path, pixels, page, about, cells, folder)
    empty = sum(bool(cell.why) for cell in cells)
    return Done(sheet_path, page_path, len(cells), painted, empty)


def cells_folder(sheet: Path) -> Path:
    return sheet.with_suffix(".cells")


def _require_apart(request: Request, axes: Sequence[Axis]) -> None:
    """An option that is also an axis, or words that need another option."""
    plain = Request(request.axes)
    asked = {name: getattr(request.sampling, name) for name in FIELDS}
    usual = {name: getattr(plain.sampling, name) for name in FIELDS}
    for name in ("seed", "negative"):
        asked[name], usual[name] = getattr(request, name), getattr(plain, name)
    asked |= {"prompt": request.prompts, "size": (request.height, request.width)}
    usual |= {"prompt": [], "size": (None, None)}
    names = {axis.name for axis in axes}
    for axis in axes:
        if axis.name in asked and asked[axis.name] != usual[axis.name]:
            option = "--height and --width" if axis.name == "size" else f"--{axis.name}"
            raise ValueError(f"{option} and --{axis.option} {axis.name} exclude each other")
    if "prompt" not in names and len(request.prompts) != 1:
        many = "several prompts are an axis: --y 'prompt=FIRST|SECOND'"
        raise ValueError(many if request.prompts else "give --prompt, or an axis prompt")
    if "at" in names and request.run is None:
        raise ValueError("the axis at is about a run; give --run")
    if request.run is not None and (request.model, request.variant) != (DEFAULT_MODEL, None):
        raise ValueError("--run brings its own model; leave out --model and --variant")
    movable = "lora" in names or request.run is not None or len(request.loras) == 1
    if "weight" in names and not movable:
        raise ValueError("the axis weight is about an axis lora, a --run or the one --lora")
    if {"at", "lora"} <= names:
        raise ValueError("the axes at and lora both choose a LoRA; give one of them")
    if request.cell_px is not None and not 16 <= request.cell_px <= 4096:
        raise ValueError(f"cell_px must be in 16..4096, got {request.cell_px}")
    for text in (*request.prompts, request.negative):
        plain_text(text)
    if request.seed < 0:
        raise ValueError(f"seed must be at least 0, got {request.seed}")


def _find_model(request: Request, run: Run | None) -> Model:
    if run is None:
        return find_model(request.model, request.variant)
    return find_model(run.model, run.variant)


def _saved_counts(axis: Axis, run: Run | None) -> Axis:
    """The axis at with `all` as numbers, every one of them saved (0 stands for untrained)."""
    if axis.name != "at":
        return axis
    if ALL in axis.values:
        if len(axis.values) > 1:
            raise ValueError(f"--{axis.option} at: {ALL} stands alone")
        axis = replace(axis, values=tuple(run.saved))
    for step in axis.values:
        if step:
            run.at(step)
    return replace(axis, texts=tuple(str(step) if step else "untrained" for step in axis.values))


def _common(
    request: Request, axes: Sequence[Axis], run: Run | None, model: Model
) -> tuple[Settings, list[tuple[int, int]]]:
    """The settings of all cells, and every (width, height) that there will be."""
    unet, vae = (
        config.from_json(hub.read_config(model.folder, part), hub.config_file(model.folder, part))
        for part, config in (("unet", UNetConfig), ("vae", VAEConfig))
    )
    scale = 2 ** (len(vae.block_out_channels) - 1)
    usual = unet.sample_size * scale
    if run is not None and run.size_px is not None:
        usual = run.size_px
    width, height = request.width or usual, request.height or usual
    sizes = next((list(axis.values) for axis in axes if axis.name == "size"), [(width, height)])
    multiple = scale * 2 ** (len(unet.block_out_channels) - 1)
    for size in sizes:
        for name, side in zip(("width", "height"), size, strict=True):
            if side < 1 or side % multiple:
                raise ValueError(f"{name} must be a multiple of {multiple}, got {side}")
            if side > 1 << 14:
                raise ValueError(f"{name} must be at most {1 << 14}, got {side}")
    prompt = request.prompts[0] if request.prompts else ""
    words = (prompt, request.negative, request.seed, height, width)
    return Settings(*words, request.sampling), sizes


def _find_loras(request: Request, axes: Sequence[Axis], run: Run | None, model: Model) -> LoRAs:
    common = tuple(map(find_lora, request.loras))
    names = {axis.name: axis for axis in axes}
    moved, by_value = None, {}
    if "weight" in names and run is None and "lora" not in names:
        *common, moved = common
    if run is not None:
        moved = None if "at" in names else find_lora(str(run.at(max(run.saved))))
    for words in names["lora"].values if "lora" in names else ():
        by_value["lora", words] = None if words == NONE else find_lora(words)
    for step in names["at"].values if "at" in names else ():
        by_value["at", step] = find_lora(str(run.at(step))) if step else None
    if "lora" in names and run is not None:
        common, moved = (*common, moved), None
    for one in (moved, *by_value.values()) if "weight" in names else ():
        if one is not None and one.weight != 1:
            raise ValueError(f"{one.file.path}: has a weight, and the axis weight gives another")
    return LoRAs(tuple(common), moved, by_value)


def _schedule(folder: Path) -> Schedule:
    config = hub.read_config(folder, "scheduler")
    return Schedule(ScheduleConfig.from_json(config, hub.config_file(folder, "scheduler")))


def _by_place(axes: Sequence[Axis], cells: list[Cell]) -> dict[tuple[int, int, int], Cell]:
    """(column, row, table) -> cell; an axis that is not there has one value."""
    where = ["xyz".index(axis.option) for axis in axes]
    found = {}
    for cell in cells:
        place = [0, 0, 0]
        for i, at in zip(cell.place, where, strict=True):
            place[at] = i
        found[tuple(place)] = cell
    return found


def labels_of(axes: Sequence[Axis]) -> list[Sequence[str]]:
    """Of columns, rows and tables."""
    known = {axis.option: axis.labels for axis in axes}
    return [known.get(option, NO_AXIS) for option in "xyz"]


def _labels(axes: Sequence[Axis], settings: Settings, model: Model) -> Labels:
    told = _told(axes, settings, model)
    prompt = told.pop("prompt", None)
    rest = ", ".join(f"{name} {value}" for name, value in told.items())
    return Labels(f"{prompt}: {rest}" if prompt else rest, *labels_of(axes))


def _told(axes: Sequence[Axis], settings: Settings, model: Model) -> dict[str, Any]:
    """What is the same in all cells and worth reading."""
    how, usual = settings.sampling, Sampling()
    told = {"prompt": settings.prompt, "negative": settings.negative or None}
    told |= {"sampler": how.sampler, "sigmas": how.sigmas}
    told |= {"steps": how.steps, "guidance": f"{how.guidance:g}", "seed": settings.seed}
    for name in ("eta", "rescale", "rng"):
        value = getattr(how, name)
        told[name] = None if value == getattr(usual, name) else value
    told |= {"size": f"{settings.width}x{settings.height}", "model": Path(model.source).name}
    names = {axis.name for axis in axes}
    return {k: v for k, v in told.items() if v is not None and k not in names}


def _paint_missing(
    request: Request, model: Model, cells: list[Cell], folder: Path, bar: Callable, tell: Callable
) -> int:
    """How many were painted now. Cells of one key share the picture."""
    first = {cell.key: cell for cell in reversed(cells) if not cell.why}
    todo = [
        cell
        for cell in cells
        if not cell.why
        and first[cell.key] is cell
        and not outputs.is_finished(folder / f"{cell.key}.png", cell.key)
    ]
    if not todo:
        return 0
    with start(model, request.device, tell) as started:
        from ..grids.paint import paint

        painted = paint(started, model, todo, folder, bar, tell)
    for cell in cells:
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
    if cell.why:
        return cell.why
    with Image.open(folder / f"{cell.key}.png") as opened:
        return scaled(np.asarray(opened.convert("RGB")), cell_px)


def _about(
    request: Request,
    axes: Sequence[Axis],
    settings: Settings,
    model: Model,
    run: Run | None,
    cells: Sequence[Cell],
) -> dict:
    """All that the sheet shows; the same for the same sheet."""
    names = {axis.name for axis in axes}
    config = settings.told()
    config |= {**config.pop("sampling"), "lora": request.loras, "cell_px": request.cell_px}
    hidden = names | ({"height", "width"} if "size" in names else set())
    return {
        "jstyle": __version__,
        "command": "grid",
        "axes": {
            axis.option: {"axis": axis.name, "values": list(axis.values), "labels": axis.labels}
            for axis in axes
        },
        "config": {name: value for name, value in config.items() if name not in hidden},
        "run": None if run is None else str(run.folder),
        "model": model.facts,
        "cells": [
            {"values": cell.values, **({"why": cell.why} if cell.why else {"key": cell.key})}
            for cell in cells
        ],
    }


def _write(
    sheet: Path,
    page: Path,
    pixels: np.ndarray,
    text: str,
    about: dict,
    cells: Sequence[Cell],
    folder: Path,
) -> None:
    rows = []
    for cell in cells:
        row = {"values": cell.values, "file": None, "seconds": None, "why": cell.why or None}
        if not cell.why:
            name = f"{cell.key}.png"
            row["file"] = f"{folder.name}/{name}"
            row["seconds"] = _seconds_of(folder / name)
        rows.append(row)
    record = files.json_text({**about, "cells": rows})
    with files.atomic_write(page) as part:
        files.write_text(part, text)
    with files.atomic_write(outputs.record_path(sheet)) as part:
        files.write_text(part, record)
        image.save_png(sheet, pixels, metadata=about)


def _seconds_of(picture: Path) -> float | None:
    """How long a finished cell took."""
    told = json.loads(outputs.record_path(picture).read_text(encoding="utf-8")).get("seconds")
    return told.get("generate") if isinstance(told, dict) else None
