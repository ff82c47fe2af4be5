"""The two loops over noise levels: one that samples, one that inverts. There is no other.

Song et al., arXiv:2010.02502, eq. 12 with sigma = 0, walked down and up.
"""

from __future__ import annotations

from collections.abc import Iterator

from .denoiser import Denoiser
from .schedule import Schedule, ddim_move
from .startup import jt


def sample(
    denoiser: Denoiser, schedule: Schedule, z: jt.Var, num_steps: int, start: int = 0
) -> Iterator[tuple[int, jt.Var]]:
    """Yield (t, z) after each step, z (B, C, h, w) one level below t. Waits per step.

    z stands at the level of timesteps(num_steps)[start].
    """
    timesteps = schedule.timesteps(num_steps)
    if not 0 <= start <= len(timesteps):
        raise ValueError(f"start must be in 0..{len(timesteps)}, got {start}")
    for position, t in enumerate(map(int, timesteps[start:])):
        with jt.no_grad():  # not around the yield: the caller's code is not ours to switch
            x0, eps = denoiser(z, t, schedule.abar_at(t), position)
            z = ddim_move(x0, eps, schedule.abar_at(schedule.previous(t, num_steps)))
            z.sync()
        yield t, z


def invert(
    denoiser: Denoiser, schedule: Schedule, z: jt.Var, num_steps: int
) -> Iterator[tuple[int, jt.Var]]:
    """Walk z (B, C, h, w), a clean latent, to noise; yields (t, z at level t) per step.

    For the sampling timesteps t in ascending order, z stands at level p, one step below t (at the
    schedule's final alpha when p < 0). The network sees (z, t), its output becomes x0 and eps
    with abar_p, and z moves to abar_t. That choice of timestep is the one of StyleID's diffusers
    version; features recorded at t belong to the sampling step that evaluates the network at t.
    """
    for position, t in enumerate(map(int, schedule.timesteps(num_steps)[::-1])):
        abar = schedule.abar_at(schedule.previous(t, num_steps))
        with jt.no_grad():
            x0, eps = denoiser(z, t, abar, position)
            z = ddim_move(x0, eps, schedule.abar_at(t))
        jt.sync_all()  # this step and what was recorded in it, so that no graph grows over steps
        yield t, z
