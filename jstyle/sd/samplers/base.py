"""What a sampler is, and what a walk is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from .levels import Level, Levels, Step

Denoise = Callable[[Any, Level], tuple[Any, Any]]  # (z, level) -> (x0, eps), as z has them
Noise = Callable[[int, tuple], Any]  # (i, shape) -> the i-th standard normal of the run


class Run(NamedTuple):
    """The surroundings of one walk. Arrays are NumPy's or Jittor's; samplers do not ask which."""

    steps: tuple[Step, ...]  # those still to be taken
    denoise: Denoise
    noise: Noise | None = None  # None where the sampler injects none
    eta: float = 0.0
    levels: Levels | None = None  # where a sampler needs levels between its steps'


# A walk takes z at the first level and yields (t, z) after every step: the timestep that the step
# began at, and the latents at its end. It evaluates run.denoise as often as it needs.
Walk = Callable[[Any, Run], Iterator[tuple[float, Any]]]


@dataclass(frozen=True)
class Sampler:
    """A row of SAMPLERS: how to walk, over which levels, and how far it may go."""

    walk: Walk
    levels: Callable[..., Levels]  # (schedule, num_steps, sigmas) -> Levels
    source: str
    order: int  # of convergence of a whole run, its first steps included; 0 for stochastic ones
    sigmas: tuple[str, ...] = ()  # noise levels that it admits besides the model's own
    stochastic: bool = False  # injects noise; with uses_eta only if eta > 0
    uses_eta: bool = False
    invertible: bool = False  # its step is ddim_move: the same x0 and eps at another level
    evaluations: Callable[[int], int] | None = lambda num_steps: num_steps  # None: not known before
    most_steps: int | None = None  # whatever the schedule has; None: no such end


def two_but_last(num_steps: int) -> int:
    """Evaluations of a sampler that takes two per step, and one in the last."""
    return 2 * num_steps - 1
