"""Painting what is not there yet, with the model loaded once: LoRAs become part of its weights as
`jstyle generate` has them, and afterwards the weights are what they were, to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from ..commands import outputs
from ..commands.generate import arguments, sampler_named, tell_own_sampler
from ..commands.inputs import LoRA, Model, Started
from ..sd import image
from .cells import Cell


def paint(
    started: Started,
    model: Model,
    cells: Sequence[Cell],
    folder: Path,
    bar: Callable,
    tell: Callable[[str], None],
) -> int:
    """Paint cells of different keys into folder/KEY.png; returns how many were painted.

    A cell that turns out to have no picture gets its reason. Cells with the same LoRAs are painted
    in a row. Raises WeightsError before the first picture if a LoRA does not fit the model.
    """
    sd, groups = started.sd, {}
    for cell in cells:
        groups.setdefault(tuple((one.sha256, one.weight) for one in cell.loras), []).append(cell)
    _try_on(sd, [cell.loras for cell in cells], tell)
    cells = [cell for group in groups.values() for cell in group]
    if any(cell.settings.sampling.sampler is None for cell in cells):
        tell_own_sampler(sd, tell)
    counts = [_evaluations(sd, cell) for cell in cells]
    done = 0
    with bar(None if None in counts else sum(counts)) as progress:
        for group in groups.values():
            with merged(sd, group[0].loras):
                for cell in group:
                    if not cell.why:
                        _paint(started, model, cell, folder, lambda *_: progress.update())
                        done += not cell.why
    return done


def _evaluations(sd, cell: Cell) -> int | None:
    how = cell.settings.sampling
    try:
        return sd.plan(how.steps, how.sampler, how.sigmas, how.eta).evaluations
    except ValueError as error:  # of a sampler that the model chose
        cell.why = str(error)
        return 0


def _try_on(sd, loras: Sequence[tuple[LoRA, ...]], tell: Callable[[str], None]) -> None:
    """Every LoRA once, so that one that does not fit is known before anything is painted."""
    from ..sd.lora import load_lora, remove_lora

    known = {one.sha256: one for several in loras for one in several}
    for one in known.values():
        report = load_lora(sd, one.file, one.weight)
        for part, added in report.loras.items():
            remove_lora(getattr(sd, part), added)
        for line in report.told(one.file.path):
            tell(line)


@contextmanager
def merged(sd: Any, loras: Sequence[LoRA]) -> Iterator[None]:
    """The model with these LoRAs in its weights, inside the block."""
    if not loras:
        yield
        return
    from ..sd.lora import PARTS, adapters_on, load_lora, merge_lora
    from ..sd.startup import jt

    for one in loras:
        load_lora(sd, one.file, one.weight)
    before = []
    for part in (getattr(sd, name) for name in PARTS):
        layers = dict(part.named_modules())
        weights = [layers[name].weight for name in adapters_on(part)]
        before += [(weight, weight.numpy(), weight.requires_grad) for weight in weights]
        merge_lora(part)
    try:
        yield
    finally:
        for weight, values, trained in before:
            weight.assign(jt.array(values))
            weight.requires_grad = trained


def _paint(started: Started, model: Model, cell: Cell, folder: Path, progress: Callable) -> None:
    from ..sd import runtime

    before = perf_counter()
    settings = cell.settings
    names = ("seed", "negative", "height", "width")
    options = arguments(settings.sampling, **{name: getattr(settings, name) for name in names})
    try:
        result = started.sd.generate(settings.prompt, progress=progress, **options)
        pixels = image.to_uint8(result)[0]
    except ValueError as error:  # not finite, at a guidance that is too much for float32
        cell.why = str(error)
        return
    cell.seconds = round(perf_counter() - before, 3)
    named = sampler_named(started.sd, settings.sampling)
    record = {
        "command": "grid",
        "config": {"prompt": settings.prompt, **options, **named},
        "model": replace(model, loras=cell.loras).facts,
        "device": started.device,
        "versions": runtime.versions(),
        "seconds": {"generate": cell.seconds},
        "key": cell.key,
    }
    outputs.write_result(folder / f"{cell.key}.png", pixels, record)
