"""What a worker is told about one style. Can be pickled."""

from __future__ import annotations

from dataclasses import dataclass

from jstyle.score.layout import Style
from jstyle.sd.hub import Source
from jstyle.sd.number_types import FLOAT32

from .folders import Out
from .options import StyleOptions


@dataclass(frozen=True)
class Setup:
    """What is the same for all styles of a run. fingerprint: of the model's files."""

    out: Out
    model: str
    variant: str | None
    fingerprint: str
    size_px: int | None = None
    device: str = "auto"
    prediction: str | None = None
    tokenizer: str | None = None
    dtype: str = FLOAT32  # of the weights that paint and pick, not "auto"

    @property
    def source(self) -> Source:
        return Source(self.model, self.variant, self.prediction, self.tokenizer)


@dataclass(frozen=True)
class Task:
    """One style, from its references and prompts to its pictures in the submission."""

    setup: Setup
    style: Style
    options: StyleOptions

    @property
    def name(self) -> str:
        return self.style.name
