"""What the inversion of an image leaves: its noise, and what was recorded on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .features import AnyBank, JoinedBank, PooledBank
from .sd.startup import jt


@dataclass(frozen=True)
class Inversion:
    """An image walked to noise: its latent there, and what was recorded on the way or, where that
    is to be computed again, the latents that the network saw."""

    latent: jt.Var  # (B, 4, h, w); of several pooled images side by side: (B, 4, h, pooled * w)
    features: AnyBank
    num_steps: int
    trail: dict[float, jt.Var] = field(default_factory=dict)  # t -> (B * pooled, 4, h, w)
    pooled: int = 1  # images that serve one result together


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
        _trails(inversions),
        first.pooled,
    )


def pool(inversions: Sequence[Inversion]) -> Inversion:
    """Several images' inversions (B = 1) as one that has the tokens of all of them.

    They must agree in size, steps and how their features are kept.
    """
    first, count = inversions[0], len(inversions)
    if count == 1:
        return first
    latent = jt.concat([inversion.latent for inversion in inversions], 3)
    bank = PooledBank([inversion.features for inversion in inversions])
    return Inversion(latent, bank, first.num_steps, _trails(inversions), count)


def _trails(inversions: Sequence[Inversion]) -> dict[float, jt.Var]:
    return {t: jt.concat([i.trail[t] for i in inversions]) for t in inversions[0].trail}
