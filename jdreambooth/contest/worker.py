"""The model of one process: loaded once, and given back as it was after every use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jstyle.sd.hub import Source
from jstyle.sd.number_types import FLOAT32

from ..runs import Run
from .task import Setup

if TYPE_CHECKING:
    from jstyle.sd.pipeline import StableDiffusion

    from ..trainables.base import Trainable


class Worker:
    """Holds at most one model. What can be put on it is taken off again, bit for bit; anything that
    changes weights makes the next use load the model anew."""

    def __init__(self):
        self.sd: StableDiffusion | None = None
        self.source: tuple[Source, str] | None = None  # of what is loaded, and its number type
        self.changed_by = None  # the trainable that has put something on it
        self.loads = 0

    def plain(self, setup: Setup, trains: bool = False) -> StableDiffusion:
        """The model as it was before any training; in float32 where it is to be trained."""
        self._load(setup.source, FLOAT32 if trains else setup.dtype)
        if self.changed_by is not None:
            self.changed_by.take_off(self.sd)
            self.changed_by = None
        return self.sd

    def for_training(self, setup: Setup, trainable: type[Trainable]) -> StableDiffusion:
        """The plain model, which will be left with what is trained on it."""
        sd = self.plain(setup, trains=True)
        self.changed_by = trainable
        return sd

    def trained(self, setup: Setup, run: Run, step: int | None) -> StableDiffusion:
        """The model as it was after `step` steps of a run; None: before training."""
        if step is not None and run.trainable.whole_model:
            self._load(Source(str(run.results[step])), setup.dtype)
            return self.sd
        sd = self.plain(setup)
        if step is not None:
            self.changed_by = run.trainable
            run.trainable.put_on(sd, run.results[step])
        return sd

    def forget_model(self) -> None:
        """Say that the weights were changed in a way that cannot be undone."""
        self.sd = self.source = self.changed_by = None

    def _load(self, source: Source, dtype: str) -> None:
        from jstyle.sd.pipeline import StableDiffusion

        if self.source != (source, dtype):
            self.forget_model()  # frees the one before
            self.sd = StableDiffusion.from_pretrained(source, dtype=dtype)
            self.source = source, dtype
            self.loads += 1
