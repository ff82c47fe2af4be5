"""A result of a run as a model of its own, or as a LoRA file of another format; LoRAs of others."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jstyle.sd import files, targets
from jstyle.sd.folders import filled_folder
from jstyle.sd.written import DTYPES, LORA_FORMATS, MODEL_FORMATS

from . import runs
from .runs import RunError

if TYPE_CHECKING:
    from jstyle.sd.lora_files import Factors

MODEL_INDEX = "model_index.json"  # the sign of a whole model


def merge(
    run_folder: str | Path,
    out: str | Path,
    at: int | None = None,
    weight: float = 1.0,
    dtype: str = "float16",
    device: str = "auto",
    overwrite: bool = False,
    format: str = "diffusers",
) -> Path:
    """Write the model with the run's LoRA folded in, as a folder in diffusers format, or with the
    format "checkpoint" as one .safetensors file under CompVis' names.

    at: a saved step, None for the last. weight: scales the LoRA's change. Raises RunError, also
    for a run that saves whole models (those are folders in that format already), ValueError for
    another dtype or a folder that holds something, which overwrite allows, OSError if `out` cannot
    be written.
    """
    from jstyle.sd.pipeline import StableDiffusion
    from jstyle.sd.single_file import write_checkpoint

    run, step = _result(run_folder, at)
    _require(dtype, DTYPES, "dtype")
    _require(format, MODEL_FORMATS, "format")

    def merged() -> StableDiffusion:
        sd = StableDiffusion.from_pretrained(run.config.source)
        run.trainable.put_on(sd, run.results[step], weight)
        run.trainable.merge(sd)
        return sd

    if format == "checkpoint":
        read = [Path(run.config.model)] if run.config.source.is_file else []
        path = _file_target(out, "a model in one file", overwrite, read)
        with files.output_folder(path.parent), runs.on_device(device):
            write_checkpoint(merged(), path, dtype)
        return path
    folder = Path(out)
    if not overwrite and os.path.isdir(folder) and any(folder.iterdir()):
        raise targets.TargetError(
            f"{folder}: is not empty; give another folder, or --overwrite to replace its model"
        )
    with filled_folder(folder, last=MODEL_INDEX) as made, runs.on_device(device):
        merged().save_pretrained(made, dtype)
    return folder


def export(
    run_folder: str | Path,
    out: str | Path,
    at: int | None = None,
    format: str = "kohya",
    dtype: str = "float32",
    device: str = "auto",
    overwrite: bool = False,
) -> Path:
    """Write the run's LoRA as a .safetensors file of the kohya or the diffusers format.

    Raises as `merge` does.
    """
    from jstyle.sd.pipeline import StableDiffusion

    run, step = _result(run_folder, at)
    _require(dtype, DTYPES, "dtype")
    _require(format, LORA_FORMATS, "format")
    path = _file_target(out, "a LoRA file", overwrite, run.results[step].glob("*.safetensors"))
    with files.output_folder(path.parent), runs.on_device(device):
        sd = StableDiffusion.from_pretrained(run.config.source)
        run.trainable.export(sd, run.results[step], path, format, dtype)
    return path


class Imported(NamedTuple):
    """path: the file that was written. lines: one per part, then one per thing to know."""

    path: Path
    lines: tuple[str, ...]


def import_lora(
    source: str | Path,
    out: str | Path,
    format: str = "diffusers",
    dtype: str = "float32",
    overwrite: bool = False,
) -> Imported:
    """Write a LoRA of any program as a .safetensors file of the diffusers or the kohya format.

    source: a file or a folder. No model is needed; whether the LoRA fits one is seen when it is
    used. Raises WeightsError for what is no LoRA, ValueError for another dtype, format or name.
    """
    from jstyle.sd.lora_files import read_lora, write_lora

    _require(dtype, DTYPES, "dtype")
    _require(format, LORA_FORMATS, "format")
    file = read_lora(source)
    path = _file_target(out, "a LoRA file", overwrite, file.files)
    lines = [_told(part, layers) for part, layers in sorted(file.parts.items(), reverse=True)]
    layers = {part: tuple(named) for part, named in file.parts.items()}
    with files.output_folder(path.parent):
        write_lora(path, file.parts, layers, file.base, format, dtype)
    return Imported(path, (*lines, *file.notes))


def _told(part: str, layers: Mapping[str, Factors]) -> str:
    ranks = {len(factors.down) for factors in layers.values()}
    alphas = {factors.alpha for factors in layers.values()}
    return f"{part}: {len(layers)} layers, rank {_range(ranks)}, alpha {_range(alphas)}"


def _range(values: set) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _file_target(out: str | Path, what: str, overwrite: bool, read: Iterable[Path]) -> Path:
    """The file, where nothing would be lost but an earlier one. Raises ValueError."""
    path = Path(out)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: the name of {what} must end in .safetensors")
    targets.require_free([path], overwrite, read)
    return path


def _result(run_folder: str | Path, at: int | None) -> tuple[runs.Run, int]:
    run = runs.open_run(run_folder)
    step = run.result(at)
    if run.trainable.whole_model:
        raise RunError(f"{run.results[step]}: holds no LoRA, it is a whole model already")
    return run, step


def _require(value: str, allowed: Iterable[str], name: str) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
