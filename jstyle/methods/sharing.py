"""References that are evaluated in the same batch as the results that look at them.

The references stand before the results (sd/denoiser.py, Beside) or are the first picture of a
batch, which leads the others. A hook finds out which row is what from the facts of the evaluation;
the references themselves are never changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..features import in_window
from ..sd.denoiser import Beside
from ..sd.facts import RESULT, STYLE, Facts
from ..sd.startup import jt


class Group(NamedTuple):
    """Rows of one kind of guidance: neighbours in the batch."""

    references: slice
    followers: slice
    conditional: bool


class Sharing:
    """Who looks at whom. pooled: references of one result; led: the first picture is the reference;
    window: timesteps at which they look; weight(group): how much of the change is made."""

    def __init__(
        self,
        pooled: int,
        led: bool,
        window: tuple[int, int] | None,
        weight: Callable[[Group], float],
    ):
        self.pooled, self.led, self.window, self.weight = pooled, led, window, weight

    def groups(self, facts: Facts) -> list[Group]:
        """The rows of an evaluation; none where nobody looks at anybody."""
        if not in_window(facts.t, self.window):
            return []
        found = []
        for conditional in (False, True):
            results = facts.where(RESULT, conditional)
            leaders = results[:1] if self.led else facts.where(STYLE, conditional)
            followers = results[1:] if self.led else results
            if leaders and followers:
                found.append(Group(_slice(leaders), _slice(followers), conditional))
        return found

    def mixed(
        self, facts: Facts, rows: tuple[jt.Var, ...], plain: Callable, changed: Callable, axis: int
    ) -> jt.Var:
        """plain(*rows) with the followers changed(own rows, their references' rows).

        rows: of the whole batch; changed gets two tuples, in which references of one result are
        one row, one after the other along `axis`.
        """
        groups = self.groups(facts)
        if not groups:
            return plain(*rows)
        parts = {}
        for group in groups:
            own = tuple(x[group.followers] for x in rows)
            theirs = tuple(self._taken(x, group, axis) for x in rows)
            parts[group.references.start] = plain(*(x[group.references] for x in rows))
            parts[group.followers.start] = _blended(
                self.weight(group),
                lambda own=own: plain(*own),
                lambda: changed(own, theirs),  # noqa: B023
            )
        return jt.concat([parts[start] for start in sorted(parts)])

    def _taken(self, x: jt.Var, group: Group, axis: int) -> jt.Var:
        """(followers, ...) of the references' rows, which serve one follower each or all."""
        rows, count = x[group.references], group.followers.stop - group.followers.start
        if self.pooled > 1:
            each = rows.shape[0] // self.pooled
            apart = rows.reshape(each, self.pooled, *rows.shape[1:])
            rows = jt.concat([apart[:, i] for i in range(self.pooled)], axis)
        return rows if rows.shape[0] == count else rows.expand(count, *rows.shape[1:])


def _blended(weight: float, plain: Callable, changed: Callable) -> jt.Var:
    if weight == 0.0:
        return plain()
    if weight == 1.0:
        return changed()
    before = plain()
    return before + weight * (changed() - before)


def _slice(rows: list[int]) -> slice:
    return slice(rows[0], rows[-1] + 1)


def adain(x: jt.Var, reference: jt.Var, axes: tuple[int, ...], eps: float, ddof: int) -> jt.Var:
    """x with the mean and deviation, over `axes`, of the reference; deviation sqrt(var + eps)."""
    (mean, std), (mean_r, std_r) = (_moments(y, axes, eps, ddof) for y in (x, reference))
    return (x - mean) / std * std_r + mean_r


def _moments(x: jt.Var, axes: tuple[int, ...], eps: float, ddof: int) -> tuple[jt.Var, jt.Var]:
    mean = x.mean(axes, keepdims=True)
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    centred = x - mean
    var = (centred * centred).sum(axes, keepdims=True) / max(count - ddof, 1)
    return mean, jt.sqrt(var + eps)


def beside(
    latents: Callable[[float, float], jt.Var],
    conditional: jt.Var,
    negative: jt.Var | None,
    window: tuple[int, int] | None,
) -> Callable[[float, float], list[Beside]]:
    """What a denoiser evaluates before the results: the references latents(t, abar) with their own
    words and, with guidance, with the negative ones; nothing outside of the window."""

    def found(t: float, abar: float) -> list[Beside]:
        if not in_window(t, window):
            return []
        z = latents(t, abar)
        both = [] if negative is None else [Beside(STYLE, z, negative, conditional=False)]
        return [*both, Beside(STYLE, z, conditional)]

    return found
