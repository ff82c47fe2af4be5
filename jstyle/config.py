"""StyleConfig: the options of one stylisation, checked when they are given.

Needs nothing but the standard library, so a command line can show its help without a backbone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .sd.limits import SIDE_PX, require_whole

LAST_TIMESTEP = 999  # Stable Diffusion 1.x and 2.x are trained with timesteps 0..999
FEATURE_DTYPES = ("float32", "float16")
# Sampled in one batch by `jstyle stylize`. On the CPU four took per result 0.68 of the time of one
# with latents of 32 x 32, 0.88 with 64 x 64 (shipped model, one thread); two 0.79 and 0.92.
RESULTS_TOGETHER = 4
FEATURES = ("auto", "memory", "disk", "recompute")
EACH, ALL, ROTATE, NEAREST = "each", "all", "rotate", "nearest"
CHOICES = {  # of the styles of a content
    EACH: "every style in a result of its own",
    ALL: "all styles in one result",
    ROTATE: "one style, in turn",
    NEAREST: "the style that the model itself finds the most alike",
}
# Of options that came later: left out of records and of what tells finished results where they
# have their default, so that results from before are still finished.
QUIET = {"quiet": True}

# paper, high-style: arXiv:2312.09008, section 5. report: the Jittor challenge's port to SD 2.1.
PRESETS = {
    "paper": {"gamma": 0.75, "tau": 1.5},
    "report": {"gamma": 0.75, "tau": 1.8},
    "high-style": {"gamma": 0.3, "tau": 1.5},
}


@dataclass(frozen=True)
class StyleConfig:
    """Options of one stylisation. The defaults are the paper's.

    Args:
        steps: DDIM steps, the same number for the inversions and for sampling (1 to 1000).
        gamma: How much of the content's queries is kept, from 0 (all style) to 1 (all content).
            A number, or "cosine:HI:LO" for a value that falls from HI at the first, noisiest
            timestep to LO at the last along half a cosine wave.
        tau: Attention temperature: multiplies the logits of the injected attention (above 0).
        sites: Self-attentions that are injected, separated by commas: "decoder:6-11" or
            "decoder:9" (numbered as in the paper, 0 to 11 over the decoder), or full names such
            as "up_blocks.2.attentions.0.transformer_blocks.0.attn1".
        window: "LO:HI" restricts the injection to timesteps LO <= t <= HI (0 is the clean end,
            999 the noisy one). Not given means every timestep.
        init_adain: Start from the content's noise with the style's mean and deviation.
        inject: Inject the style's keys and values and the content's queries into attention.
        feature_dtype: How recorded features are kept, "float32" or "float16" (half the memory;
            moves the result by a few 1e-4 of its norm).
        features: Where recorded features are kept: "memory", "disk" (a temporary file), "recompute"
            (nowhere: content and style are evaluated again beside the result) or "auto", by what
            is free. The picture is the same (recompute: within 1e-4).
        size_px: Side in pixels to which image files are cropped and resized. Not given means
            the size the model was trained on.
        prompt: What the result is to show.
        negative: What guidance leads away from.
        guidance: Strength of classifier-free guidance towards the prompt, any finite number; 1 is
            without, and twice as fast.
        invert_prompt: What the pictures show that are walked to noise; no guidance there.

    Raises ValueError naming the value and what is allowed.
    """

    steps: int = 50
    gamma: float | str = 0.75
    tau: float = 1.5
    sites: str = "decoder:6-11"
    window: tuple[int, int] | str | None = None
    init_adain: bool = True
    inject: bool = True
    feature_dtype: str = "float32"
    features: str = "auto"
    size_px: int | None = None
    prompt: str = field(default="", metadata=QUIET)
    negative: str = field(default="", metadata=QUIET)
    guidance: float = field(default=1.0, metadata=QUIET)
    invert_prompt: str = field(default="", metadata=QUIET)

    def __post_init__(self):
        require_whole("steps", self.steps, 1, LAST_TIMESTEP + 1)
        parse_gamma(self.gamma)
        if not _is_number(self.tau) or not 0 < self.tau < math.inf:
            raise ValueError(f"tau must be a finite number above 0, got {self.tau!r}")
        object.__setattr__(self, "sites", joined_sites(self.sites))
        object.__setattr__(self, "window", parse_window(self.window))
        for name in ("init_adain", "inject"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}")
        for name, names in (("feature_dtype", FEATURE_DTYPES), ("features", FEATURES)):
            if getattr(self, name) not in names:
                allowed = ", ".join(names[:-1]) + f" or {names[-1]}"
                raise ValueError(f"{name} must be {allowed}, got {getattr(self, name)!r}")
        if self.size_px is not None:
            require_whole("size_px", self.size_px, 8, SIDE_PX)
        for name in ("prompt", "negative", "invert_prompt"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be text, got {getattr(self, name)!r}")
        if not _is_number(self.guidance) or not math.isfinite(self.guidance):
            raise ValueError(f"guidance must be a finite number, got {self.guidance!r}")

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> StyleConfig:
        """The settings called `name` ("paper", "report", "high-style"), some of them replaced."""
        if name not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
        return cls(**{**PRESETS[name], **overrides})


def parse_gamma(gamma: float | str) -> tuple[float, float]:
    """(value at the noisiest timestep, value at the last one) of a number or "cosine:HI:LO"."""
    allowed = 'a number in [0, 1] or "cosine:HI:LO" with 1 >= HI >= LO >= 0'
    try:
        if isinstance(gamma, str) and gamma.startswith("cosine:"):
            hi, lo = map(float, gamma.split(":")[1:])
        else:
            hi = lo = float(gamma)
    except (TypeError, ValueError):
        raise ValueError(f"gamma must be {allowed}, got {gamma!r}") from None
    if isinstance(gamma, bool) or not 1.0 >= hi >= lo >= 0.0:
        raise ValueError(f"gamma must be {allowed}, got {gamma!r}")
    return hi, lo


def parse_window(window: str | Sequence[int] | None) -> tuple[int, int] | None:
    """(LO, HI) of "LO:HI", a pair of integers or None."""
    if window is None:
        return None
    match = re.fullmatch(r"(\d+):(\d+)", window) if isinstance(window, str) else None
    pair = match.groups() if match else window
    if isinstance(window, str) and not match or not isinstance(pair, (tuple, list)):
        pair = ()
    if len(pair) == 2 and (match or all(map(_is_int, pair))):
        lo, hi = int(pair[0]), int(pair[1])
        if 0 <= lo <= hi <= LAST_TIMESTEP:
            return lo, hi
    raise ValueError(
        f'window must be "LO:HI" with 0 <= LO <= HI <= {LAST_TIMESTEP}, got {window!r}'
    )


def joined_sites(sites: str | Sequence[str]) -> str:
    """Names separated by commas, of text or a list of names. Raises ValueError."""
    names = sites.split(",") if isinstance(sites, str) else sites
    if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) for n in names):
        raise ValueError(f"sites must be text or a list of names, got {sites!r}")
    names = [n.strip() for n in names if n.strip()]
    if not names:
        raise ValueError(f'sites must name at least one attention ("decoder:6-11"), got {sites!r}')
    return ",".join(names)


def _is_int(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
