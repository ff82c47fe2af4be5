"""Methods whose prepared pictures are Inversions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .base import Method

if TYPE_CHECKING:
    from ..inversion import Inversion


class OfInversions(Method):
    """`prepare` gives an Inversion: a latent, and what was recorded on the way to it."""

    def join(self, prepared: Sequence[Inversion]) -> Inversion:
        from ..inversion import join

        return join(prepared)

    def pool(self, prepared: Sequence[Inversion]) -> Inversion:
        from ..inversion import pool

        return pool(prepared)
