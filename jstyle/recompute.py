"""Style injection without recorded features: content, style and result in one evaluation.

The inversion leaves the latents that the network saw. Sampling puts them before the result in the
batch, so that every site finds the content's queries and the style's keys and values there: two
more images per evaluation, and nothing to keep.
"""

from __future__ import annotations

from collections.abc import Callable

from .features import in_window, timestep
from .injection import inject, of_rows
from .inversion import Inversion
from .sd.denoiser import Beside
from .sd.facts import CONTENT, STYLE
from .sd.hooks import AttentionCall
from .sd.startup import jt


class ReplayInjector:
    """The hook of a batch of content, then style, then result rows.

    The result's rows are injected as StyleInjector does, the others stay. dtype: to which the
    features are rounded as if they had been kept. pooled: style rows that serve one result.
    """

    def __init__(self, gamma: Callable[[float], float], tau: float, dtype: str, pooled: int = 1):
        self.gamma, self.tau, self.dtype, self.pooled = gamma, tau, dtype, pooled

    def __call__(self, call: AttentionCall, q: jt.Var, k: jt.Var, v: jt.Var) -> jt.Var:
        t, first = timestep(call), len(call.facts.where(CONTENT))
        if not first:  # outside of the window the result is evaluated alone
            return call(q, k, v)
        rest = first + len(call.facts.where(STYLE))
        results = call.facts.rows[rest:]
        q_c = of_rows(self._kept(q[:first]), results)
        k_s, v_s = (of_rows(self._style(x[first:rest]), results) for x in (k, v))
        injected = inject(q_c, k_s, v_s, q[rest:], self.gamma(t), self.tau)
        own = [x[:rest] for x in (q, k, v)]
        if self.pooled > 1:  # their tokens are more than the others'
            return jt.concat([call(*own), call(*injected)])
        return call(*(jt.concat(parts) for parts in zip(own, injected, strict=True)))

    def _style(self, x: jt.Var) -> jt.Var:
        """Rows of keys or values, those of one result's styles as tokens of one row."""
        return self._kept(x).reshape(x.shape[0] // self.pooled, -1, *x.shape[2:])

    def _kept(self, x: jt.Var) -> jt.Var:
        return x if self.dtype == "float32" else x.cast(self.dtype).float32()


def replayed(
    content: Inversion, style: Inversion, context: jt.Var, window: tuple[int, int] | None
) -> Callable[[float, float], list[Beside]]:
    """What a denoiser evaluates beside the result at a timestep: both inversions' latents.

    context: (1, tokens, dim), with which they were inverted.
    Raises ValueError where the latents differ in size: they share one batch.
    """
    sizes = [tuple(next(iter(x.trail.values())).shape[2:]) for x in (content, style)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            "features = recompute evaluates content and style together: their latents must have "
            f"one size, got {sizes[0]} and {sizes[1]}"
        )

    def beside(t: float, abar: float) -> list[Beside]:
        if not in_window(t, window):
            return []
        trails = ((CONTENT, content.trail), (STYLE, style.trail))
        return [Beside(kind, trail[t], context) for kind, trail in trails]

    return beside
