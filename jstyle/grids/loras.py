"""Which LoRAs a cell is painted with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..commands.inputs import LoRA, find_lora
from .axes import ALL, NONE, Axis
from .request import Request
from .run import Run


@dataclass(frozen=True)
class LoRAs:
    """Those of all cells; `moved`: the last of them, which the axis "weight" is about, if there is
    one; by_value: (axis, value) -> the LoRA that this value puts on, None for no change."""

    common: tuple[LoRA, ...] = ()
    moved: LoRA | None = None
    by_value: dict[tuple[str, Any], LoRA | None] = field(default_factory=dict)

    def of(self, values: dict[str, Any]) -> tuple[LoRA, ...]:
        moved = self.moved
        for pair in values.items():
            moved = self.by_value.get(pair, moved)
        if moved is None:
            return self.common
        weight = values.get("weight", moved.weight)
        return (*self.common, replace(moved, weight=weight))


def saved_counts(axis: Axis, run: Run | None) -> Axis:
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


def find_loras(request: Request, axes: Sequence[Axis], run: Run | None) -> LoRAs:
    """Read every LoRA once. Raises ValueError for one that is none, or has two weights."""
    values = {axis.name: axis.values for axis in axes}
    common, moved = list(map(find_lora, request.loras)), None
    if run is not None and "at" not in values:
        moved = find_lora(str(run.at(max(run.saved))))
    elif run is None and "weight" in values and "lora" not in values:
        moved = common.pop()
    if "lora" in values and moved is not None:
        common, moved = [*common, moved], None
    by_value = {}
    for words in values.get("lora", ()):
        by_value["lora", words] = None if words == NONE else find_lora(words)
    for step in values.get("at", ()):
        by_value["at", step] = find_lora(str(run.at(step))) if step else None
    for one in (moved, *by_value.values()) if "weight" in values else ():
        if one is not None and one.weight != 1:
            raise ValueError(f"{one.file.path}: has a weight, and the axis weight gives another")
    return LoRAs(tuple(common), moved, by_value)
