"""Recipe: how pictures of a run are made. Needs no backbone, so help can be shown without one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jstyle.sd.limits import SAMPLING_STEPS, SEED, require_whole
from jstyle.sd.rng import NUMPY, check_rng

AVERAGE = "average"
PLACE = "{prompt}"


@dataclass(frozen=True)
class Recipe:
    """How pictures are made. Picture i has the seed seed + i.

    Args:
        seed: Of the first picture's noise; the others count on.
        steps: DDIM steps.
        guidance: Strength of classifier-free guidance; 1 is without, and twice as fast.
        negative: What guidance leads away from.
        init: "average", the pixel mean of the run's pictures, or an image file, to start from.
            Not given means pure noise.
        strength: With init: how far back towards noise the start lies, above 0 and up to 1.
        template: What is made of a prompt, such as "{prompt} in style_05".
        rng: Whose noise a seed gives: "numpy", or "torch-cpu" or "torch-cuda" for PyTorch's (with
            ":float16" as pipelines in half precision draw it).

    Raises ValueError naming the option, its value and what is allowed.
    """

    seed: int = 0
    steps: int = 50
    guidance: float = 7.5
    negative: str = ""
    init: str | None = None
    strength: float = 0.9
    template: str = PLACE
    rng: str = NUMPY

    def __post_init__(self):
        check_rng(self.rng)
        require_whole("seed", self.seed, 0, SEED)
        require_whole("steps", self.steps, 1, SAMPLING_STEPS)
        if not (math.isfinite(self.guidance) and self.guidance >= 0):
            raise ValueError(f"guidance must be at least 0, got {self.guidance}")
        if not 0 < self.strength <= 1:
            raise ValueError(f"strength must be above 0 and at most 1, got {self.strength}")
        if PLACE not in self.template:
            raise ValueError(f"template must contain {PLACE}, got {self.template!r}")

    def text(self, prompt: str) -> str:
        return self.template.replace(PLACE, prompt)

    @property
    def evaluations(self) -> int:
        """Denoising steps that one picture takes, counted as diffusers counts them."""
        if self.init is None:
            return self.steps
        return max(1, min(int(self.steps * self.strength), self.steps))
