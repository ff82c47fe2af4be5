"""The saved counts of a training run, as LoRAs. Knows a run's folder, and nothing of the trainer.

RUN/config.json                     "model", "variant", "size_px", "train", "clip_skip", ...
RUN/step-000250/                    a LoRA as diffusers names it
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..sd.reading import read_object
from ..sd.samplers.options import READING
from ..sd.steps import step_folders

CONFIG, KIND = "config.json", "lora"


@dataclass(frozen=True)
class Run:
    """saved: count of steps -> folder with its LoRA. size_px: None for the model's."""

    folder: Path
    model: str
    variant: str | None
    size_px: int | None
    saved: dict[int, Path]
    prediction: str | None = None
    tokenizer: str | None = None
    syntax: str = READING["syntax"]
    clip_skip: int = READING["clip_skip"]

    def at(self, step: int) -> Path:
        """Raises ValueError that lists what is saved."""
        if step not in self.saved:
            there = ", ".join(map(str, self.saved))
            raise ValueError(f"{self.folder}: nothing is saved at step {step}; saved: {there}")
        return self.saved[step]


def open_run(folder: str | Path) -> Run:
    """Raises ValueError for a folder that is no run, or a run that has no LoRA."""
    folder = Path(folder)
    path = folder / CONFIG
    try:
        config = read_object(path)
        model, variant, size_px = (config.get(name) for name in ("model", "variant", "size_px"))
        prediction, tokenizer = (config.get(name) for name in ("prediction", "tokenizer"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file, so {folder} is not a run") from None
    kinds = ((model, str), (variant, str | None), (size_px, int | None))
    kinds += ((prediction, str | None), (tokenizer, str | None))
    syntax, clip_skip = (config.get(name, usual) for name, usual in READING.items())
    kinds += ((syntax, str), (clip_skip, int))
    if not all(isinstance(value, kind) for value, kind in kinds):
        raise ValueError(f"{path}: not the configuration of a run")
    if config.get("train", KIND) != KIND:
        raise ValueError(f"{folder}: trained {config['train']!r}; a grid is made of LoRAs only")
    saved = step_folders(folder)
    if not saved:
        raise ValueError(f"{folder}: nothing is saved yet")
    given = (prediction, tokenizer, syntax, clip_skip)
    return Run(folder, model, variant, size_px, saved, *given)
