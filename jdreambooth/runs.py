"""A finished or running run on the disk: its configuration, its captions, its saved results.

Reads only, and loads no network before it is asked to.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jstyle.sd.files import InputError, MissingFile, require_folder
from jstyle.sd.number_types import FLOAT32
from jstyle.sd.reading import read_object
from jstyle.sd.steps import step_folders

from .config import TrainConfig
from .trainables import find_trainable

if TYPE_CHECKING:
    from jstyle.sd.pipeline import StableDiffusion

    from .trainables.base import Trainable

CONFIG, CAPTIONS, METRICS = "config.json", "captions.json", "metrics.jsonl"


class RunError(ValueError):
    """A folder that is no run, or a run without what is asked for; one line."""


@dataclass(frozen=True)
class Run:
    """captions: file name -> caption. results: step -> folder with a LoRA file or a model.

    config.out is where the run is now.
    """

    folder: Path
    config: TrainConfig
    captions: dict[str, str]
    results: dict[int, Path]

    def result(self, step: int | None = None) -> int:
        """`step`, or the last saved one. Raises RunError that lists the saved ones."""
        if not self.results:
            raise RunError(f"{self.folder}: nothing is saved yet (save_at tells when)")
        if step is None:
            return max(self.results)
        if step not in self.results:
            saved = ", ".join(map(str, self.results))
            raise RunError(f"{self.folder}: nothing is saved at step {step}; saved: {saved}")
        return step

    @property
    def trainable(self) -> type[Trainable]:
        return find_trainable(self.config.train)


def open_run(folder: str | Path) -> Run:
    """Read a run's folder. Raises RunError if it is not one."""
    folder = Path(folder)
    try:
        require_folder(folder)
    except InputError as error:
        raise RunError(str(error)) from None
    values, captions = (_read_json(folder / name) for name in (CONFIG, CAPTIONS))
    try:
        config = TrainConfig(**{**values, "out": str(folder), "resume": None})
    except (TypeError, ValueError) as error:
        raise RunError(f"{folder / CONFIG}: not the configuration of a run ({error})") from None
    return Run(folder, config, captions, step_folders(folder))


def _read_json(path: Path) -> dict:
    try:
        return read_object(path)
    except MissingFile:
        raise RunError(f"{path}: no such file, so {path.parent} is not a run") from None
    except InputError as error:
        raise RunError(str(error)) from None


def load_model(run: Run, step: int | None, dtype: str = FLOAT32) -> StableDiffusion:
    """The model as it was after `step` steps; None: before training. dtype: in which its weights
    are kept."""
    from jstyle.sd.pipeline import StableDiffusion

    cfg = run.config
    if step is not None and run.trainable.whole_model:
        return StableDiffusion.from_pretrained(run.results[step], dtype=dtype)
    sd = StableDiffusion.from_pretrained(cfg.source, dtype=dtype)
    if step is not None:
        run.trainable.put_on(sd, run.results[step])
    return sd


def picture_size(run: Run, sd: StableDiffusion) -> int:
    """Side in pixels of the run's pictures."""
    if run.config.size_px is not None:
        return run.config.size_px
    return sd.picture_size


@contextmanager
def on_device(name: str) -> Iterator[str]:
    """Start Jittor on "cpu", "cuda", or for "auto" on the better that is there; yields which."""
    from jstyle.sd import runtime

    with runtime.use(name) as chosen:
        yield chosen


def reference_paths(run: Run) -> list[Path]:
    """The pictures of the run. Raises RunError naming the first that is gone."""
    folder = Path(run.config.instance_dir)
    paths = [folder / name for name in run.captions]
    for path in paths:
        if not path.is_file():
            raise RunError(f"{path}: no such file; the run {run.folder} was trained with it")
    return paths
