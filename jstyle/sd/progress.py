"""Progress: a function make(total) -> bar, as `console.progress_bar` gives it, or nothing.

A bar has the part of tqdm's interface that Silent has; total None stands for a number that is not
known before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Silent:
    """A bar that nobody sees."""

    def __init__(self, total: int | None = None):
        self.total, self.n = total, 0

    def update(self, n: int = 1) -> None:
        self.n += n

    def set_description(self, text: str, refresh: bool = True) -> None:
        pass

    def set_postfix(self, refresh: bool = True, **values: Any) -> None:
        pass

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        pass

    def close(self) -> None:
        pass

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def progress_of(make: Callable[[int | None], Any] | None, total: int | None) -> Any:
    """The bar that `make` makes, or a silent one."""
    return Silent(total) if make is None else make(total)
