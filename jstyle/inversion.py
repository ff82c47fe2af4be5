"""What the inversion of an image leaves: its noise, and what was recorded on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .features import FeatureBank, JoinedBank
from .sd.startup import jt


@dataclass(frozen=True)
class Inversion:
    """An image walked to noise: its latent there, and what was recorded on the way or, where that
    is to be computed again, the latents that the network saw."""

    latent: jt.Var  # (B, 4, h, w)
    features: FeatureBank | JoinedBank
    num_steps: int
    trail: dict[float, jt.Var] = field(default_factory=dict)  # timestep -> (B, 4, h, w)


def join(inversions: Sequence[Inversion]) -> Inversion:
    """Several images' inversions as one batch; one that is there for all of them serves it alone.

    They must agree in size, steps and how their features are kept.
    """
    first = inversions[0]
    if all(inversion is first for inversion in inversions):
        return first
    return Inversion(
        jt.concat([inversion.latent for inversion in inversions]),
        JoinedBank([inversion.features for inversion in inversions]),
        first.num_steps,
        {t: jt.concat([inversion.trail[t] for inversion in inversions]) for t in first.trail},
    )
