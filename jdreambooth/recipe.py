"""Recipe: how pictures of a run are made. Needs no backbone, so help can be shown without one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from jstyle.sd.limits import SEED, require_whole
from jstyle.sd.prompts import PromptError, check_prompt
from jstyle.sd.samplers import SAMPLERS
from jstyle.sd.samplers.options import Sampling

AVERAGE = "average"
PLACE = "{prompt}"


@dataclass(frozen=True)
class Recipe(Sampling):
    """How pictures are made. Picture i has the seed seed + i.

    Args:
        seed: Of the first picture's noise; the others count on.
        negative: What guidance leads away from.
        init: "average", the pixel mean of the run's pictures, or an image file, to start from.
            Not given means pure noise.
        strength: With init: how far back towards noise the start lies, above 0 and up to 1.
        template: What is made of a prompt, such as "{prompt} in style_05".

    Raises ValueError naming the option, its value and what is allowed.
    """

    seed: int = 0
    negative: str = ""
    init: str | None = None
    strength: float = 0.9
    template: str = PLACE

    def __post_init__(self):
        super().__post_init__()
        require_whole("seed", self.seed, 0, SEED)
        self._check("negative", self.negative, negative=True)
        self._check("template", self.template)
        if self.init is not None and not self.init.strip():
            raise ValueError(f"init must be {AVERAGE} or an image file, got {self.init!r}")
        if not 0 < self.strength <= 1:
            raise ValueError(f"strength must be above 0 and at most 1, got {self.strength}")
        if PLACE not in self.template:
            raise ValueError(f"template must contain {PLACE}, got {self.template!r}")

    def text(self, prompt: str) -> str:
        return self.template.replace(PLACE, prompt)

    def check_texts(self, texts: Iterable[str]) -> None:
        """Raise PromptError for a text, with its template, that the syntax does not admit."""
        for text in texts:
            check_prompt(text, self.syntax)

    def _check(self, name: str, text: str, negative: bool = False) -> None:
        try:
            check_prompt(text, self.syntax, negative)
        except PromptError as error:
            raise PromptError(f"{name}: {error}") from None

    @property
    def steps_taken(self) -> int:
        """Sampling steps that one picture takes, counted as diffusers counts them."""
        if self.init is None:
            return self.steps
        return max(1, min(int(self.steps * self.strength), self.steps))

    @property
    def evaluations(self) -> int:
        """How often the network sees one picture, without guidance; an estimate of one per step
        for the model's own sampler and for one that chooses its steps."""
        count = SAMPLERS[self.sampler].evaluations if self.sampler else None
        return count(self.steps_taken) if count else self.steps_taken
