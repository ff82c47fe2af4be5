"""The two loops over noise levels: one that samples, one that inverts. There is no other.

Which levels, and what a step does, is the sampler's (samplers/); what the network says of a latent
is the denoiser's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .denoiser import Denoiser
from .samplers import Level, Plan
from .startup import jt

Walk = Iterator[tuple[float, jt.Var]]


def sample(
    denoiser: Denoiser,
    plan: Plan,
    z: jt.Var,
    noise: Callable | None = None,
    start: int = 0,
    evaluated: Callable[[], object] = lambda: None,
) -> Walk:
    """Yield (t, z) after each step, z (B, C, h, w) one level below t. Waits per step.

    z: standard normal, or with a later start latents at the level of that step. noise(i, shape):
    the i-th injected noise, for samplers that ask for it. evaluated() is called after a step for
    each answer of the denoiser that it took.
    """
    stepped = _Stepped(denoiser)
    walk = plan.walk(z, stepped, noise, start)
    while True:
        before = stepped.answers
        with jt.no_grad():  # not around the yield: the caller's code is not ours to switch
            found = next(walk, None)
            if found is None:
                return
            t, z = found
            z.sync()
        stepped.position += 1
        for _ in range(stepped.answers - before):
            evaluated()
        yield t, z


def invert(denoiser: Denoiser, plan: Plan, z: jt.Var) -> Walk:
    """Walk z (B, C, h, w), a clean latent, to noise; yields (t, z at level t) per step.

    For the sampling timesteps t in ascending order, z stands at level p, one step below t (at the
    schedule's final alpha when p < 0). The network sees (z, t), its output becomes x0 and eps
    with abar_p, and z moves to abar_t. That choice of timestep is the one of StyleID's diffusers
    version; features recorded at t belong to the sampling step that evaluates the network at t.
    Raises ValueError for a sampler that cannot be inverted.
    """
    stepped = _Stepped(denoiser)
    walk = plan.invert(z, stepped)
    while True:
        with jt.no_grad():
            found = next(walk, None)
        if found is None:
            return
        jt.sync_all()  # this step and what was recorded in it, so that no graph grows over steps
        stepped.position += 1
        yield found


def last(walk: Walk, z: jt.Var) -> jt.Var:
    """The latents after the whole walk; z where it has no step."""
    for _, after in walk:
        z = after
    return z


class _Stepped:
    """The denoiser as samplers call it, which know levels and not positions."""

    def __init__(self, denoiser: Denoiser):
        self.denoiser, self.position, self.answers = denoiser, 0, 0

    def __call__(self, z: jt.Var, level: Level) -> tuple[jt.Var, jt.Var]:
        self.answers += 1
        return self.denoiser(z, level.t, level.abar, self.position)
