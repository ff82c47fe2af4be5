"""The walks that methods share: a picture to noise, and a start to latents with guidance.

A result starts where its content was walked to, with DDIM, or from the noise of a seed with any
sampler: `start_of` says which, and `paint` does not ask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from ..features import FeatureBank, in_window
from ..inversion import Inversion
from ..sd.facts import CONTENT, STYLE
from ..sd.noise import InjectedNoise
from ..sd.samplers.options import Sampling
from ..sd.sampling import last
from ..sd.startup import jt
from .base import NOISE, Noise, Progress

CLEAN = -1.0  # the level of a picture without noise, as a timestep

if TYPE_CHECKING:
    from ..sd.denoiser import Condition
    from ..sd.pipeline import StableDiffusion


def invert(
    sd: StableDiffusion,
    picture: np.ndarray,
    prompt: str,
    steps: int,
    progress: Progress | None = None,
) -> Inversion:
    """Walk pictures (B, 3, H, W) in [-1, 1] to noise, without guidance. `trail` has the latents at
    the level of each timestep, CLEAN first: what a sampling that gives the picture back sees."""
    z = sd.encode_image(jt.array(np.asarray(picture, np.float32)))
    context = sd.encode_text([prompt]).repeat(z.shape[0], 1, 1)
    trail: dict[float, jt.Var] = {CLEAN: z}
    for done, (t, z) in enumerate(sd.invert(z, context, steps), 1):  # noqa: B020
        trail[t] = z
        if progress is not None:
            progress(done, steps)
    return Inversion(z, FeatureBank(), steps, trail)


def encode(sd: StableDiffusion, picture: np.ndarray, steps: int) -> Inversion:
    """Pictures that are not walked anywhere: their latents, in `trail` at CLEAN too."""
    z = sd.encode_image(jt.array(np.asarray(picture, np.float32)))
    return Inversion(z, FeatureBank(), steps, {CLEAN: z})


def start_of(prepared: Mapping[str, Any], cfg: Any) -> Noise:
    """Where the results start: at the noise that is given, or where their contents were walked to.

    cfg: with the options of Prompted. The contents' latents are repeated where one meets several
    styles.
    """
    if NOISE in prepared:
        return prepared[NOISE]
    z = prepared[CONTENT].latent
    rows = max(z.shape[0], batch_of(prepared.get(STYLE)))
    how = Sampling(cfg.steps, cfg.guidance, sampler="ddim")
    z = z.expand(rows, *z.shape[1:])
    return Noise(z, (cfg.prompt,) * rows, tuple(range(rows)), how)


def tell_window(cfg: Any, timesteps: Iterable[float], tell: Callable[[str], object]) -> None:
    """A line where the window holds none of the timesteps, so that nothing is changed."""
    window = getattr(cfg, "window", None)
    times = [int(t) for t in timesteps]
    if window is not None and times and not any(in_window(t, window) for t in times):
        tell(
            f"window {window[0]}:{window[1]} holds none of the sampling timesteps ({min(times)} to "
            f"{max(times)}): the pictures are those without a reference"
        )


def batch_of(prepared: Any) -> int:
    """For how many results something is prepared; 1 may serve any number."""
    return 1 if prepared is None else prepared.latent.shape[0]


def contexts(sd: StableDiffusion, start: Noise, negative: str) -> tuple[jt.Var, jt.Var | None]:
    """(B or 1, tokens, dim) of the prompts, one row where they are all the same; and (1, tokens,
    dim) of what guidance leads away from, or None without guidance.

    Raises PromptError for a prompt that changes with the steps, or has several parts.
    """
    different, how = list(dict.fromkeys(start.prompts)), start.how
    words = different if len(different) == 1 else list(start.prompts)
    without = None if how.guidance == 1.0 else sd.encode_captions([negative], how)
    return sd.encode_captions(words, how), without


def paint(
    sd: StableDiffusion,
    start: Noise,
    words: tuple[jt.Var, jt.Var | None],
    progress: Progress | None = None,
    beside: Callable | None = None,
    conditions: Sequence[Condition] = (),
    skipped: int = 0,
) -> jt.Var:
    """Latents (B, 4, h, w) at the end of the walk from `start`. words: of `contexts`; beside,
    conditions: see Denoiser. skipped: the steps before the one at whose level `start` is."""
    how, options = start.how, start.how.walk()
    options |= {"negative_context": words[1], "noise": InjectedNoise(start.seeds, how.rng)}
    total = sd.plan(how.steps, how.sampler, how.sigmas, how.eta).evaluations
    total = total - skipped if total and skipped else total
    done = count(1)
    if progress is not None:
        options["evaluated"] = lambda: progress(next(done), total)
    walk = sd.sample(
        start.latent,
        words[0],
        how.steps,
        start=skipped,
        beside=beside,
        conditions=conditions,
        **options,
    )
    return last(walk, start.latent)
