"""The words that methods share: an option that several have is declared here, and means the same.

A method's Config inherits what it has, declares its own options, and may give other defaults.
`__post_init__` of a subclass calls this one's. Starts no backbone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from ..config import LAST_TIMESTEP, joined_sites, parse_window
from ..sd.limits import SIDE_PX, require_whole


@dataclass(frozen=True)
class Options:
    """What every method has.

    Args:
        steps: Sampling steps; inversions take as many.
        size_px: Side in pixels to which image files are cropped and resized. Not given means
            the size the model was trained on.
    """

    steps: int = 50
    size_px: int | None = None

    def __post_init__(self):
        require_whole("steps", self.steps, 1, LAST_TIMESTEP + 1)
        if self.size_px is not None:
            require_whole("size_px", self.size_px, 8, SIDE_PX)


@dataclass(frozen=True)
class Prompted(Options):
    """What methods have that listen to words.

    Args:
        prompt: What the result is to show.
        negative: What guidance leads away from.
        guidance: Strength of classifier-free guidance, any finite number; 1 is without, and twice
            as fast.
    """

    prompt: str = ""
    negative: str = ""
    guidance: float = 7.5

    def __post_init__(self):
        super().__post_init__()
        for name in ("prompt", "negative"):
            require_text(name, getattr(self, name))
        require_number("guidance", self.guidance)


@dataclass(frozen=True)
class Inverted(Options):
    """What methods have that walk pictures to noise.

    Args:
        invert_prompt: What the pictures show that are walked to noise; no guidance there.
    """

    invert_prompt: str = ""

    def __post_init__(self):
        super().__post_init__()
        require_text("invert_prompt", self.invert_prompt)


@dataclass(frozen=True)
class Injected(Options):
    """What methods have that change attention.

    Args:
        sites: Self-attentions that are changed, separated by commas: "all", "decoder:6-11" or
            "decoder:9" (numbered over the decoder, 0 to 11 in Stable Diffusion 1.x and 2.x), or
            full names such as "up_blocks.2.attentions.0.transformer_blocks.0.attn1".
        window: "LO:HI" restricts the change to timesteps LO <= t <= HI (0 is the clean end, 999
            the noisy one). Not given means every timestep.
        weight: How much of the change is made, from 0 (none: the plain picture) to 1.
    """

    sites: str = "all"
    window: tuple[int, int] | str | None = None
    weight: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "sites", joined_sites(self.sites))
        object.__setattr__(self, "window", parse_window(self.window))
        require_share("weight", self.weight)


def require_number(name: str, value: Any) -> None:
    """Raise ValueError unless value is a finite number."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")


def window_of(name: str, value: Any) -> tuple[int, int] | None:
    """(LO, HI) of the option called `name`, or None. Raises ValueError."""
    try:
        return parse_window(value)
    except ValueError as error:
        raise ValueError(f"{name}{str(error).removeprefix('window')}") from None


def require_text(name: str, value: Any) -> None:
    """Raise ValueError unless value is text."""
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, got {value!r}")


def require_flag(name: str, value: Any) -> None:
    """Raise ValueError unless value is true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {value!r}")


def require_share(name: str, value: Any, most: float = 1.0) -> None:
    """Raise ValueError unless value is a number from 0 to `most`."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value <= most or not math.isfinite(value):
        raise ValueError(f"{name} must be a number from 0 to {most:g}, got {value!r}")


def in_words_of(cfg: Any, prompt: str) -> Any:
    """`cfg` for a picture of this prompt: "{prompt}" in its words stands for that."""
    names = [name for name in ("prompt", "negative") if "{prompt}" in getattr(cfg, name, "")]
    return replace(cfg, **{n: getattr(cfg, n).replace("{prompt}", prompt) for n in names})
