"""Cells: every combination of the axes' values, with all that its picture depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import Any

from .. import __version__
from ..commands.inputs import LoRA, Model
from ..sd import samplers
from ..sd.samplers.options import FIELDS, Sampling
from ..sd.schedule import Schedule
from .axes import Axis
from .loras import LoRAs
from .request import Request
from .run import Run


@dataclass(frozen=True)
class Settings:
    """What one picture is painted with, besides the model. height, width: in pixels."""

    prompt: str
    negative: str
    seed: int
    height: int
    width: int
    sampling: Sampling

    def told(self) -> dict:
        return {**asdict(self), "sampling": self.sampling.told()}


@dataclass
class Cell:
    """place: which value of each axis. why: the reason that there can be no picture, or ""."""

    place: tuple[int, ...]
    values: dict[str, Any]
    settings: Settings | None
    loras: tuple[LoRA, ...]
    why: str = ""
    key: str = ""
    seconds: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Grid:
    """settings: those of all cells, where no axis says otherwise. cells: in the order of reading,
    the last axis slowest."""

    request: Request
    axes: tuple[Axis, ...]
    settings: Settings
    model: Model
    run: Run | None
    cells: list[Cell]

    def by_place(self) -> dict[tuple[int, int, int], Cell]:
        """(column, row, table) -> cell; an axis that is not there has one value."""
        where = ["xyz".index(axis.option) for axis in self.axes]
        found = {}
        for cell in self.cells:
            at = dict(zip(where, cell.place, strict=True))
            found[at.get(0, 0), at.get(1, 0), at.get(2, 0)] = cell
        return found


def make_cells(
    axes: Sequence[Axis], settings: Settings, model: Model, loras: LoRAs, schedule: Schedule
) -> list[Cell]:
    """In the order of reading: the last axis changes slowest. settings: those of all cells.

    A combination that its sampler does not admit has its reason and no settings. Raises ValueError,
    with the first reason, if that is so for all.
    """
    cells = []
    for backwards in product(*(range(len(axis.values)) for axis in reversed(axes))):
        place = backwards[::-1]
        values = {axis.name: axis.values[i] for axis, i in zip(axes, place, strict=True)}
        cell = Cell(place, values, None, loras.of(values))
        try:
            cell.settings = _with(settings, values)
            _require_walk(cell.settings.sampling, schedule)
            cell.key = key_of(cell, model)
        except ValueError as error:
            cell.why, cell.settings = str(error), None
        cells.append(cell)
    if all(cell.why for cell in cells):
        raise ValueError(cells[0].why)
    return cells


def _with(settings: Settings, values: dict[str, Any]) -> Settings:
    own: dict[str, Any] = {
        name: values[name] for name in ("prompt", "negative", "seed") if name in values
    }
    if "size" in values:
        own["width"], own["height"] = values["size"]
    how = {name: values[name] for name in FIELDS if name in values}
    return replace(settings, **own, sampling=replace(settings.sampling, **how))


def _require_walk(how: Sampling, schedule: Schedule) -> None:
    """Raises ValueError for what the named sampler does not admit; the model's own is known only
    when the model is there."""
    if how.sampler is not None:
        samplers.plan(schedule, how.sampler, how.steps, how.sigmas, how.eta)


def key_of(cell: Cell, model: Model) -> str:
    """A hash of everything that the picture depends on, wherever files lie and whatever the axes
    are called."""
    facts = [__version__, "grid", cell.settings.told(), replace(model, loras=cell.loras).key]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
