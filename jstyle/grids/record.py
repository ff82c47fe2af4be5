"""What a sheet says about itself: in its labels, its text chunk, and the file beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import __version__
from ..commands import outputs
from ..sd.samplers.options import READING, Sampling
from .axes import Axis
from .cells import Grid
from .sheet import Labels

NO_AXIS = ("",)


def labels_of(axes: Sequence[Axis]) -> list[Sequence[str]]:
    """Of columns, rows and tables."""
    known = {axis.option: axis.labels for axis in axes}
    return [known.get(option, NO_AXIS) for option in "xyz"]


def sheet_labels(grid: Grid) -> Labels:
    known = in_all_cells(grid)
    prompt = known.pop("prompt", None)
    rest = ", ".join(f"{name} {value}" for name, value in known.items())
    return Labels(f"{prompt}: {rest}" if prompt else rest, *labels_of(grid.axes))


def in_all_cells(grid: Grid) -> dict[str, Any]:
    """What is the same in all cells and worth reading."""
    settings, how, usual = grid.settings, grid.settings.sampling, Sampling()
    told: dict[str, Any] = {"prompt": settings.prompt, "negative": settings.negative or None}
    told |= {"sampler": how.sampler, "sigmas": how.sigmas}
    told |= {"steps": how.steps, "guidance": f"{how.guidance:g}", "seed": settings.seed}
    for name in ("eta", "rescale", "rng", *READING):
        value = getattr(how, name)
        told[name] = None if value in (getattr(usual, name), READING.get(name)) else value
    told["size"] = f"{settings.width}x{settings.height}"
    told["model"] = Path(grid.model.source).name
    told["run"] = None if grid.run is None else grid.run.folder.name
    loras = [Path(words).name for words in grid.request.loras]
    names = {axis.name for axis in grid.axes}
    told = {name: value for name, value in told.items() if name not in names}
    told["with"] = ", ".join(loras) or None
    return {name: value for name, value in told.items() if value is not None}


def about(grid: Grid) -> dict:
    """All that the sheet shows; the same for the same sheet, wherever it lies."""
    names = {axis.name for axis in grid.axes}
    config = grid.settings.told()
    config |= {**config.pop("sampling"), "lora": grid.request.loras}
    hidden = names | ({"height", "width"} if "size" in names else set())
    return {
        "jstyle": __version__,
        "command": "grid",
        "axes": {
            axis.option: {"axis": axis.name, "values": axis.values, "labels": axis.labels}
            for axis in grid.axes
        },
        "config": {name: value for name, value in config.items() if name not in hidden},
        "cell_px": grid.request.cell_px,
        "run": None if grid.run is None else str(grid.run.folder),
        "model": _model(grid),
        "cells": [
            {"values": cell.values, **({"why": cell.why} if cell.why else {"key": cell.key})}
            for cell in grid.cells
        ],
    }


def _model(grid: Grid) -> dict:
    """Facts about the model and every LoRA that is in a cell."""
    found = {(one.sha256, one.weight): one for cell in grid.cells for one in cell.loras}
    return replace(grid.model, loras=tuple(found.values())).facts


def with_files(known: dict, grid: Grid, folder: Path) -> dict:
    """`about`, with where each cell's picture lies and how long it took; None for empty cells."""
    rows = []
    for cell in grid.cells:
        row: dict[str, Any] = {
            "values": cell.values,
            "file": None,
            "seconds": None,
            "why": cell.why or None,
        }
        if not cell.why:
            picture = folder / f"{cell.key}.png"
            row |= {"file": f"{folder.name}/{picture.name}", "seconds": _seconds_of(picture)}
        rows.append(row)
    return {**known, "cells": rows}


def _seconds_of(picture: Path) -> float | None:
    told = json.loads(outputs.record_path(picture).read_text(encoding="utf-8")).get("seconds")
    return told.get("generate") if isinstance(told, dict) else None
