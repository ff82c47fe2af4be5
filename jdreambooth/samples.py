"""Pictures drawn while training goes on: fixed prompts and seeds, one grid over the steps.

RUN/samples/step-000250/PROMPT.png      what each prompt gave after 250 steps
RUN/samples/grid.png                    rows: prompts; columns: steps
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jstyle.sd import files, image
from jstyle.sd.steps import step_folders, step_name

from .generate import paint
from .names import safe_names
from .recipe import Recipe

if TYPE_CHECKING:
    from jstyle.sd.pipeline import StableDiffusion

SAMPLES, GRID = "samples", "grid.png"
DEFAULT_PROMPTS = 4  # how many captions are drawn where no prompts are given


class Sampler:
    """`sampler(step, sd)` draws the prompts with the model as it is. Noise depends on the recipe's
    seed alone, so that pictures of different steps differ by the training and nothing else."""

    def __init__(
        self, run: str | Path, prompts: Sequence[str], recipe: Recipe, size_px: int | None
    ):
        """size_px: None for the model's size. Raises ValueError without prompts."""
        if not prompts:
            raise ValueError("samples need at least one prompt")
        self.folder, self.prompts = Path(run) / SAMPLES, list(prompts)
        self.recipe, self.size_px = recipe, size_px

    def __call__(self, step: int, sd: StableDiffusion) -> Path:
        """Returns the folder of the step's pictures."""
        folder = files.writable_folder(self.folder / step_name(step))
        size = self.size_px or sd.picture_size
        for i, (prompt, name) in enumerate(self._named()):
            pixels = paint(sd, self.recipe.text(prompt), self.recipe.seed + i, self.recipe, size)
            made = {"prompt": prompt, "seed": self.recipe.seed + i, "step": step}
            image.save_png(folder / f"{name}.png", pixels, made)
        return folder

    def _named(self) -> list[tuple[str, str]]:
        return list(zip(self.prompts, safe_names(self.prompts), strict=True))

    def write_grid(self) -> Path | None:
        """Put all that was drawn, also before an interruption, into one labelled picture."""
        steps = step_folders(self.folder)
        rows = [[_read(f / f"{name}.png") for f in steps.values()] for _, name in self._named()]
        if not any(cell is not None for row in rows for cell in row):
            return None
        labels = [f"step {step}" for step in steps]
        whole = image.grid(rows, labels, self.prompts)
        image.save_png(self.folder / GRID, np.asarray(whole))
        return self.folder / GRID


def _read(path: Path) -> np.ndarray | None:
    return np.asarray(image.read_rgb(path)) if path.is_file() else None


def first_captions(captions: dict[str, str], count: int = DEFAULT_PROMPTS) -> list[str]:
    """The first `count` different captions."""
    return list(dict.fromkeys(captions.values()))[:count]
