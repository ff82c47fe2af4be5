"""A result of a run as a model of its own, or as a LoRA file of another format."""

from __future__ import annotations

import os
from pathlib import Path

from jstyle.sd import files, targets
from jstyle.sd.folders import filled_folder

from . import runs
from .runs import LORA_FILE, RunError

MODEL_INDEX = "model_index.json"  # the sign of a whole model
DTYPES = ("float16", "float32")
FORMATS = ("kohya", "diffusers")


def merge(
    run_folder: str | Path,
    out: str | Path,
    at: int | None = None,
    weight: float = 1.0,
    dtype: str = "float16",
    device: str = "auto",
    overwrite: bool = False,
) -> Path:
    """Write the model with the run's LoRA folded in, as a folder in diffusers format.

    at: a saved step, None for the last. weight: scales the LoRA's change. Raises RunError, also
    for a run that saves whole models (those are folders in that format already), ValueError for
    another dtype or a folder that holds something, which overwrite allows, OSError if `out` cannot
    be written.
    """
    from jstyle.sd.lora import load_lora, merge_lora
    from jstyle.sd.pipeline import StableDiffusion

    run, step = _lora_result(run_folder, at)
    _require(dtype, DTYPES, "dtype")
    folder = Path(out)
    if not overwrite and os.path.isdir(folder) and any(folder.iterdir()):
        raise targets.TargetError(
            f"{folder}: is not empty; give another folder, or --overwrite to replace its model"
        )
    with filled_folder(folder, last=MODEL_INDEX) as made, runs.on_device(device):
        sd = StableDiffusion.from_pretrained(run.config.model, run.config.variant)
        for part in load_lora(sd, run.results[step] / LORA_FILE, weight).loras:
            merge_lora(getattr(sd, part))
        sd.save_pretrained(made, dtype)
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
    from jstyle.sd.lora import load_lora, save_lora
    from jstyle.sd.pipeline import StableDiffusion

    run, step = _lora_result(run_folder, at)
    _require(dtype, DTYPES, "dtype")
    _require(format, FORMATS, "format")
    path = Path(out)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: the name of a LoRA file must end in .safetensors")
    targets.require_free([path], overwrite, [run.results[step] / LORA_FILE])
    with files.output_folder(path.parent), runs.on_device(device):
        sd = StableDiffusion.from_pretrained(run.config.model, run.config.variant)
        loras = load_lora(sd, run.results[step] / LORA_FILE).loras
        save_lora(path, sd, loras, format, dtype)
    return path


def _lora_result(run_folder: str | Path, at: int | None) -> tuple[runs.Run, int]:
    run = runs.open_run(run_folder)
    step = run.result(at)
    if not run.is_lora(step):
        raise RunError(f"{run.results[step]}: holds no LoRA, it is a whole model already")
    return run, step


def _require(value: str, allowed: tuple[str, ...], name: str) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
