"""A moving average of what is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from jstyle.sd.startup import jt

from .trainables.base import fill, values_of


class Average:
    """average = decay * average + (1 - decay) * value after every step.

    The decay rises to its final value, min(decay, (1 + n) / (10 + n)) in update n, so that the
    untrained start is forgotten soon.
    """

    def __init__(self, parameters: Mapping[str, jt.Var], decay: float):
        self.parameters, self.decay, self.updates = dict(parameters), decay, 0
        self.values = {name: p.copy().stop_grad() for name, p in parameters.items()}

    def update(self) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, p in self.parameters.items():
            value = self.values[name]
            value.update(value * decay + p.detach() * (1 - decay))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The parameters hold their averages inside the block, afterwards their own values."""
        own = values_of(self.parameters)
        try:
            self._fill(values_of(self.values))
            yield
        finally:
            self._fill(own)

    def _fill(self, values) -> None:
        for name, parameter in self.parameters.items():
            fill(parameter, values[name])
        jt.sync_all()
