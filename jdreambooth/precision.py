"""Half precision with float32 masters (arXiv:1710.03740), for CUDA.

The parameters stay float32. For the time of a forward and backward pass the network holds float16
casts of them, through which gradients flow back; so optimiser, average, states and results know
nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jstyle.sd.hooks import with_parameters
from jstyle.sd.startup import jt

FIRST_SCALE = 2.0**14
PATIENCE = 1000  # steps without an overflow before a larger scale is tried


def require_precision(precision: str, device: str) -> None:
    """Raise ValueError for half precision on the CPU."""
    if precision != "float32" and device == "cpu":
        raise ValueError(
            f"precision = {precision!r} needs cuda: on the CPU half precision is ten times slower "
            "than float32 and less exact, so only float32 is offered there"
        )


@contextmanager
def in_half(unet: jt.nn.Module) -> Iterator[Callable]:
    """Yield unet(z, t, context) computing in float16; afterwards its own parameters are back."""
    own = [
        (module, name)
        for module in unet.modules()
        for name, value in vars(module).items()
        if isinstance(value, jt.Var) and value.dtype == "float32"
    ]
    with with_parameters({(m, name): getattr(m, name).float16() for m, name in own}):
        yield lambda z, t, context: unet(z.float16(), t, context.float16())


class LossScale:
    """What the loss is multiplied by, so that small gradients do not vanish in float16.

    An overflow halves it, and PATIENCE steps without one double it.
    """

    def __init__(self, value: float = FIRST_SCALE, good_steps: int = 0):
        self.value, self.good_steps = value, good_steps

    def lower(self) -> None:
        self.value, self.good_steps = self.value / 2, 0

    def keep(self) -> None:
        self.good_steps += 1
        if self.good_steps == PATIENCE:
            self.value, self.good_steps = self.value * 2, 0
