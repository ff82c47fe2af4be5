"""DDIM inversion: from an image's latent to the noise from which sampling returns to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
    trail: dict[int, jt.Var] = field(default_factory=dict)  # timestep -> (B, 4, h, w)


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


def ddim_invert(
    sd, z: jt.Var, context: jt.Var, num_steps: int, before_step: Callable[[int], None] | None = None
) -> Iterator[tuple[int, jt.Var]]:
    """Walk z (B, 4, h, w), a clean scaled latent, to noise; yields (t, z at level t) per step.

    context: (B, tokens, dim), the empty prompt. before_step(t) runs before each evaluation.
    For the sampling timesteps t in ascending order, z stands at level p, one step below t (at the
    schedule's final alpha when p < 0). The network sees (z, t), its output becomes x0 and eps
    with abar_p, and z moves to abar_t. That choice of timestep is the one of StyleID's diffusers
    version; features recorded at t belong to the sampling step that evaluates the network at t.
    Source: Song et al., arXiv:2010.02502, eq. 12 with sigma = 0, walked upwards.
    """
    for t in map(int, sd.schedule.timesteps(num_steps)[::-1]):
        if before_step is not None:
            before_step(t)
        with jt.no_grad():
            z = sd.schedule.invert_step(sd.unet(z, t, context), z, t, num_steps)
        jt.sync_all()  # this step and what was recorded in it, so that no graph grows over steps
        yield t, z
