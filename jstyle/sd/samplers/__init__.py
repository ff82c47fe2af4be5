"""Samplers: walks from noise to latents over a model's noise levels, one file for each family.

    plan = samplers.plan(sd.schedule, "dpm++2m", num_steps=25, sigmas="karras")
    for t, z in plan.walk(z, denoise):
        ...

Nothing here knows a network or a framework: `denoise(z, level)` returns (x0, eps), and steps use
+, - and * with Python floats, so they run on NumPy arrays and Jittor Vars alike. A new sampler is
one file with a walk, and one row in SAMPLERS.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

from ..schedule import Schedule, ddim_move
from . import (
    ddim,
    ddpm,
    dpm2,
    dpm_adaptive,
    dpmpp,
    dpmpp_single,
    euler,
    heun,
    lcm,
    levels,
    lms,
    pndm,
    unipc,
)
from .base import Denoise, Noise, Run, Sampler, two_but_last
from .levels import EXPONENTIAL, KARRAS, Level, Levels, Step
from .own import Own, own

__all__ = [
    "SAMPLERS",
    "Level",
    "Levels",
    "Own",
    "Plan",
    "Sampler",
    "Step",
    "check_sampler",
    "own",
    "plan",
]

BOTH = (KARRAS, EXPONENTIAL)

SAMPLERS = {
    "ddim": Sampler(ddim.walk, levels.ddim, "arXiv:2010.02502", 1, uses_eta=True, invertible=True),
    "ddpm": Sampler(ddpm.walk, levels.ddpm, "arXiv:2006.11239", 0, stochastic=True),
    "pndm": Sampler(pndm.walk, levels.ddim, "arXiv:2202.09778", 2, evaluations=pndm.evaluations),
    "euler": Sampler(euler.walk, levels.k_diffusion, "arXiv:2206.00364", 1, BOTH, invertible=True),
    "euler-a": Sampler(
        euler.ancestral, levels.k_diffusion, "arXiv:2011.13456", 0, BOTH, stochastic=True
    ),
    "heun": Sampler(
        heun.walk, levels.k_diffusion, "arXiv:2206.00364", 2, BOTH, evaluations=two_but_last
    ),
    "lms": Sampler(lms.walk, levels.k_diffusion, "Adams-Bashforth", 2, BOTH),
    "dpm2": Sampler(
        dpm2.walk, levels.k_diffusion_whole, "arXiv:2206.00927", 2, BOTH, evaluations=two_but_last
    ),
    "dpm2-a": Sampler(
        dpm2.ancestral,
        levels.k_diffusion_whole,
        "arXiv:2206.00927",
        0,
        BOTH,
        stochastic=True,
        evaluations=two_but_last,
    ),
    "dpm++2s-a": Sampler(
        dpmpp_single.ancestral,
        levels.k_diffusion,
        "arXiv:2211.01095",
        0,
        BOTH,
        stochastic=True,
        evaluations=two_but_last,
    ),
    "dpm++2m": Sampler(dpmpp.walk, levels.solver, "arXiv:2211.01095", 2, BOTH),
    "dpm++2m-sde": Sampler(dpmpp.sde, levels.solver, "arXiv:2211.01095", 0, BOTH, stochastic=True),
    "dpm++sde": Sampler(
        dpmpp_single.sde,
        levels.k_diffusion,
        "arXiv:2211.01095",
        0,
        BOTH,
        stochastic=True,
        evaluations=two_but_last,
    ),
    "dpm-adaptive": Sampler(
        dpm_adaptive.walk, levels.k_diffusion, "arXiv:2206.00927", 3, evaluations=None
    ),
    "unipc": Sampler(unipc.walk, levels.solver, "arXiv:2302.04867", 3, BOTH),
    "lcm": Sampler(
        lcm.walk,
        lcm.spaced,
        "arXiv:2310.04378",
        0,
        stochastic=True,
        most_steps=lcm.ORIGINAL_STEPS,
    ),
}


@dataclass(frozen=True)
class Plan:
    """A sampler over the noise levels of one run."""

    name: str
    sampler: Sampler
    levels: Levels
    eta: float = 0.0

    @property
    def injects_noise(self) -> bool:
        """Whether `walk` needs a source of noise."""
        return self.sampler.stochastic or self.eta > 0

    @property
    def timesteps(self) -> list[float]:
        """Those at which the steps begin."""
        return [step.here.t for step in self.levels.steps]

    @property
    def evaluations(self) -> int | None:
        """How often a whole walk evaluates the network; None if that is not known before."""
        count = self.sampler.evaluations
        return count(len(self.levels.steps)) if count else None

    def walk(
        self,
        z: Any,
        denoise: Denoise,
        noise: Noise | None = None,
        start: int = 0,
    ) -> Iterator[tuple[float, Any]]:
        """Yield (t, z) after every step, with t the timestep that the step began at.

        z: standard normal noise for start 0; else latents at level `levels.steps[start].here`.
        What is yielded is z_t = sqrt(abar) x0 + sqrt(1 - abar) eps for every sampler, at the
        level the step ended on. denoise(z, level) returns (x0, eps); level.abar is that of z, and
        level.t, which may be fractional, is for the network. noise(i, shape) is the i-th standard
        normal; step i of the run asks for the same i wherever the walk started.
        Raises ValueError for a start beyond the steps, or without noise where it is needed.
        """
        steps = self.levels.steps
        if not 0 <= start <= len(steps):
            raise ValueError(f"start must be in 0..{len(steps)}, got {start}")
        if self.injects_noise and noise is None:
            raise ValueError(f"sampler {self.name!r} injects noise and was given none")
        if start == 0 and self.levels.scale != 1.0:
            z = z * self.levels.scale
        return self.sampler.walk(z, Run(steps[start:], denoise, noise, self.eta, self.levels))

    def invert(self, z: Any, denoise: Denoise) -> Iterator[tuple[float, Any]]:
        """The steps backwards, from clean latents to noise; yields (t, z at level t) per step.

        The network is told the timestep of the noisier end, as `Schedule.invert_step` does.
        Raises ValueError for a sampler whose step is not the same move in both directions.
        """
        if not self.sampler.invertible or self.eta > 0:
            able = ", ".join(name for name, row in SAMPLERS.items() if row.invertible)
            raise ValueError(f"sampler {self.name!r} cannot be inverted; {able} with eta 0 can")
        return self._climb(z, denoise)

    def _climb(self, z, denoise):
        for _, here, there in reversed(self.levels.steps):
            x0, eps = denoise(z, Level(here.t, there.abar))
            z = ddim_move(x0, eps, here.abar)
            yield here.t, z


def check_sampler(name: str | None, sigmas: str | None, eta: float) -> None:
    """Raise ValueError for a name that does not exist, or for what the sampler does not admit.

    name: None for the model's own, of which only that model can tell more.
    """
    if name is not None and name not in SAMPLERS:
        raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, got {name!r}")
    if sigmas not in (None, *BOTH):
        raise ValueError(f"sigmas must be {' or '.join(BOTH)}, got {sigmas!r}")
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be in [0, 1], got {eta}")
    if name is None:
        return
    row = SAMPLERS[name]
    if sigmas is not None and sigmas not in row.sigmas:
        able = ", ".join(other for other, row in SAMPLERS.items() if sigmas in row.sigmas)
        raise ValueError(f"sampler {name} admits no sigmas {sigmas}; these do: {able}")
    if eta and not row.uses_eta:
        able = ", ".join(other for other, row in SAMPLERS.items() if row.uses_eta)
        raise ValueError(f"sampler {name} has no eta, got {eta}; {able} has")


def plan(
    schedule: Schedule,
    name: str,
    num_steps: int,
    sigmas: str | None = None,
    eta: float = 0.0,
    spacing: str | None = None,
) -> Plan:
    """The walk of sampler `name` in num_steps steps over the levels of a schedule.

    sigmas: None for the model's own spacing, or "karras" or "exponential". eta: fresh noise per
    step, 0 to 1, where the sampler has that freedom. spacing: "leading", "trailing" or "linspace"
    instead of the schedule's own.
    Raises ValueError in one line for what the sampler or the schedule does not admit.
    """
    check_sampler(name, sigmas, eta)
    sampler = SAMPLERS[name]
    if spacing is not None:
        schedule = copy(schedule)
        schedule.config = replace(schedule.config, timestep_spacing=spacing)
    return Plan(name, sampler, sampler.levels(schedule, num_steps, sigmas), eta)
