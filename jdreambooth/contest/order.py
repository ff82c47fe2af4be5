"""The order of a style's stages."""

from __future__ import annotations

from .choose import Choose
from .paint import Generate, Refine
from .probe import Measure, Probe
from .stages import Stage
from .task import Task
from .teach import Pick, Prior, Train


def stages_of(task: Task) -> list[Stage]:
    """The stages of a style in their order; those that its options leave out are not there."""
    options, probing, made = task.options, isinstance(task, Probe), {}
    wanted = {
        "prior": options.train is not None and options.train.prior_weight > 0,
        "train": options.train is not None,
        "pick": options.pick is not None and not probing,
        "generate": True,
        "refine": options.refines,
        "choose": options.choose is not None and not probing,
        "measure": probing,
    }
    for kind in (Prior, Train, Pick, Generate, Refine, Choose, Measure):
        if wanted[kind.name]:
            needed = {name: made[name] for name in kind.needs if name in made}
            made[kind.name] = kind(task, needed)
    return list(made.values())
