"""What an evaluation of the UNet is about, for hooks that need to know.

The denoiser states these facts for every evaluation; nothing counts calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .startup import jt

CONTENT, STYLE, RESULT = "content", "style", "result"


class Row(NamedTuple):
    """One row of the batch: a picture that is made, or one that is evaluated beside it."""

    picture: int  # which of its kind
    conditional: bool = True  # False: the row that guidance leads away from
    kind: str = RESULT


class Facts(NamedTuple):
    """One evaluation. `t` is the timestep that the network sees, `position` counts the steps of
    the walk from 0, `rows` says what each row of the batch stands for."""

    t: int | float
    position: int
    rows: tuple[Row, ...]

    def where(self, kind: str = RESULT, conditional: bool | None = None) -> list[int]:
        """Places in the batch of the rows of one kind."""
        return [
            i
            for i, row in enumerate(self.rows)
            if row.kind == kind and conditional in (None, row.conditional)
        ]


@contextmanager
def stated(unet: jt.nn.Module, facts: Facts) -> Iterator[None]:
    """Inside the block the UNet's hooks find `facts`."""
    before, unet.facts = getattr(unet, "facts", None), facts
    try:
        yield
    finally:
        unet.facts = before
