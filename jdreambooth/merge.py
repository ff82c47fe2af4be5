"""A result of a run as a model of its own, or as a LoRA file of another format."""

from __future__ import annotations

from pathlib import Path

from jstyle.sd import files

from . import runs
from .runs import RunError

DTYPES = ("float16", "float32")
FORMATS = ("kohya", "diffusers")


def merge(
    run_folder: str | Path,
    out: str | Path,
    at: int | None = None,
    weight: float = 1.0,
    dtype: str = "float16",
    device: str = "auto",
) -> Path:
    """Write the model with the run's LoRA folded in, as a folder in diffusers format.

    at: a saved step, None for the last. weight: scales the LoRA's change. Raises RunError, also
    for a run that saves whole models (those are folders in that format already), ValueError for
    another dtype, OSError if `out` cannot be written.
    """
    from jstyle.sd.pipeline import StableDiffusion

    run, step = _result(run_folder, at)
    _require(dtype, DTYPES, "dtype")
    folder = files.writable_folder(out)
    with runs.on_device(device):
        sd = StableDiffusion.from_pretrained(run.config.model, run.config.variant)
        run.trainable.put_on(sd, run.results[step], weight)
        run.trainable.merge(sd)
        sd.save_pretrained(folder, dtype)
    return folder


def export(
    run_folder: str | Path,
    out: str | Path,
    at: int | None = None,
    format: str = "kohya",
    dtype: str = "float32",
    device: str = "auto",
) -> Path:
    """Write the run's LoRA as a .safetensors file of the kohya or the diffusers format.

    Raises as `merge` does.
    """
    from jstyle.sd.pipeline import StableDiffusion

    run, step = _result(run_folder, at)
    _require(dtype, DTYPES, "dtype")
    _require(format, FORMATS, "format")
    path = Path(out)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: the name of a LoRA file must end in .safetensors")
    files.writable_folder(path.parent)
    with runs.on_device(device):
        sd = StableDiffusion.from_pretrained(run.config.model, run.config.variant)
        run.trainable.export(sd, run.results[step], path, format, dtype)
    return path


def _result(run_folder: str | Path, at: int | None) -> tuple[runs.Run, int]:
    run = runs.open_run(run_folder)
    step = run.result(at)
    if run.trainable.whole_model:
        raise RunError(f"{run.results[step]}: holds no LoRA, it is a whole model already")
    return run, step


def _require(value: str, allowed: tuple[str, ...], name: str) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
