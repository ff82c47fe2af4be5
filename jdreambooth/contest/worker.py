"""The model of one process: loaded once, and given back as it was after every use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..runs import LORA_FILE, Run
from .task import Setup

if TYPE_CHECKING:
    from jstyle.sd.pipeline import StableDiffusion


class Worker:
    """Holds at most one model. A LoRA is put on it and taken off again, bit for bit; anything else
    that changes weights makes the next use load the model anew."""

    def __init__(self):
        self.sd: StableDiffusion | None = None
        self.source = None  # of what is loaded
        self.loads = 0

    def plain(self, setup: Setup) -> StableDiffusion:
        """The model as it was before any training."""
        from jstyle.sd.lora import PARTS, remove_lora

        self._load((setup.model, setup.variant))
        for part in PARTS:
            remove_lora(getattr(self.sd, part))
        return self.sd

    def trained(self, setup: Setup, run: Run, step: int | None) -> StableDiffusion:
        """The model as it was after `step` steps of a run; None: before training."""
        from jstyle.sd.lora import load_lora

        if step is not None and not run.is_lora(step):
            self._load((Path(run.results[step]), None))
            return self.sd
        sd = self.plain(setup)
        if step is not None:
            load_lora(sd, run.results[step] / LORA_FILE)
        return sd

    def spoil(self) -> None:
        """Say that the weights were changed in a way that cannot be undone."""
        self.sd = self.source = None

    def _load(self, source: tuple[str | Path, str | None]) -> None:
        from jstyle.sd.pipeline import StableDiffusion

        if self.source != source:
            self.spoil()  # frees the one before
            self.sd = StableDiffusion.from_pretrained(*source)
            self.source = source
            self.loads += 1
