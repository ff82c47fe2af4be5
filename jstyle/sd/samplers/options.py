"""Sampling: how pictures are sampled, for every command that paints. Starts no backbone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from ..limits import SAMPLING_STEPS, TEXT_LAYERS, require_whole
from ..prompts.parse import PLAIN, check_syntax
from ..rng import NUMPY, check_rng
from . import SAMPLERS, check_sampler

Same = TypeVar("Same", bound="Sampling")


@dataclass(frozen=True)
class Sampling:
    """How pictures are sampled.

    Args:
        steps: Sampling steps.
        guidance: Strength of classifier-free guidance, any finite number; 1 is without, and twice
            as fast.
        sampler: "ddim", "ddpm", "pndm", "euler", "euler-a", "heun", "lms", "dpm2", "dpm2-a",
            "dpm++2s-a", "dpm++2m", "dpm++2m-sde", "dpm++sde", "dpm-adaptive", "unipc" or "lcm". Not
            given means the model's own.
        sigmas: Noise levels: "karras" or "exponential", for samplers that admit them. Not given
            means the model's own spacing.
        eta: Fresh noise per step, from 0 (none) to 1, for samplers that have that freedom (ddim).
        rescale: Bring the deviation of the guided prediction back to the unguided one's, from 0
            (off) to 1 (arXiv:2305.08891, section 3.4).
        rng: Whose noise a seed gives: "numpy", or "torch-cpu" or "torch-cuda" for PyTorch's (with
            ":float16" as pipelines in half precision draw it).
        syntax: How prompts are read. "plain": as they are, cut after 75 tokens. "webui": with the
            brackets of stable-diffusion-webui, in as many times 75 tokens as they need: (a) [a]
            (a:1.3) weights, [from:to:WHEN] [a|b] changes with the steps, AND, BREAK; a backslash
            before a bracket makes it a character. Not given means plain, or a run's own.
        clip_skip: Which layer of the text encoder is read, counted from the end: 1 is the last; 2
            is what many models of drawings are used with. Not given means 1, or a run's own.

    Raises ValueError naming the option, its value and what is allowed.
    """

    steps: int = 50
    guidance: float = 7.5
    sampler: str | None = None
    sigmas: str | None = None
    eta: float = 0.0
    rescale: float = 0.0
    rng: str = NUMPY
    syntax: str | None = None
    clip_skip: int | None = None

    def __post_init__(self):
        check_rng(self.rng)
        if self.syntax is not None:
            check_syntax(self.syntax)
        if self.clip_skip is not None:
            require_whole("clip_skip", self.clip_skip, 1, TEXT_LAYERS)
        require_whole("steps", self.steps, 1, SAMPLING_STEPS)
        check_guidance(self.guidance, self.rescale)
        check_sampler(self.sampler, self.sigmas, self.eta)
        check_steps("steps", self.steps, self.sampler)

    def told(self) -> dict:
        """These options by name, of a subclass too: for records. How prompts are read is left out
        where it is as usual."""
        return without_usual({name: getattr(self, name) for name in FIELDS})

    def read_as(self: Same, run: Any) -> Same:
        """The same with the run's syntax and clip_skip where none is given."""
        given = {name: getattr(run, name) for name in READING if getattr(self, name) is None}
        return replace(self, **given)

    def walk(self) -> dict:
        """The keyword arguments of StableDiffusion.sample that are options here."""
        names = ("sampler", "sigmas", "eta", "guidance", "rescale")
        return {name: getattr(self, name) for name in names}


FIELDS = tuple(field.name for field in fields(Sampling))
READING = {"syntax": PLAIN, "clip_skip": 1}  # how prompts are read, and what is usual


def without_usual(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options without those of READING that are as usual: records, and what is compared with them,
    stay what they were before there was a choice."""
    return {
        name: value
        for name, value in options.items()
        if name not in READING or value not in (None, READING[name])
    }


def check_steps(name: str, steps: int, sampler: str | None) -> None:
    """Raise ValueError, naming the option, for more steps than a sampler can take."""
    most = SAMPLERS[sampler].most_steps if sampler is not None else None
    if most is not None:
        require_whole(f"{name} of sampler {sampler}", steps, 1, most)


def check_guidance(guidance: float, rescale: float = 0.0) -> None:
    """Raise ValueError unless guidance is a finite number and rescale is in [0, 1]."""
    if not math.isfinite(guidance):
        raise ValueError(f"guidance must be a finite number, got {guidance}")
    if not 0 <= rescale <= 1:
        raise ValueError(f"rescale must be in [0, 1], got {rescale}")
