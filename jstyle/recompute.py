"""Style injection without recorded features: content, style and result in one evaluation.

The inversion leaves the latents that the network saw. Sampling puts them before the result in the
batch, so that every site finds the content's queries and the style's keys and values there: two
more images per evaluation, and nothing to keep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from .features import in_window
from .injection import inject
from .inversion import Inversion
from .sd.attention import edit_attention
from .sd.startup import jt


class ReplayInjector:
    """The attention edit of a batch of `contents` content, then `styles` style, then result rows.

    The result's rows are injected as StyleInjector does, the others stay. dtype: to which the
    features are rounded as if they had been kept.
    """

    def __init__(self, contents: int, styles: int, gamma: Callable, tau: float, dtype: str):
        self.contents, self.styles = contents, styles
        self.gamma, self.tau, self.dtype, self.t = gamma, tau, dtype, None

    def at(self, t: int):
        self.t = int(t)

    def __call__(self, site: str, q: jt.Var, k: jt.Var, v: jt.Var):
        first, rest = self.contents, self.contents + self.styles
        q_c = self._kept(q[:first])
        k_s, v_s = self._kept(k[first:rest]), self._kept(v[first:rest])
        injected = inject(q_c, k_s, v_s, q[rest:], self.gamma(self.t), self.tau)
        return tuple(
            jt.concat([own[:rest], new]) for own, new in zip((q, k, v), injected, strict=True)
        )

    def _kept(self, x: jt.Var) -> jt.Var:
        return x if self.dtype == "float32" else x.cast(self.dtype).float32()


def resample(
    sd,
    z: jt.Var,
    content: Inversion,
    style: Inversion,
    context: jt.Var,
    sites: Sequence[str],
    injector: ReplayInjector,
    window: tuple[int, int] | None,
) -> Iterator[tuple[int, jt.Var]]:
    """The loop of sd.denoise with `content` and `style` in the batch; yields (t, z) per step.

    z: (B, 4, h, w) start; context: (1, tokens, dim). Timesteps outside `window` evaluate the
    result alone.
    Raises ValueError where the latents differ in size: they share one batch.
    """
    sizes = [tuple(x.shape[2:]) for x in (content.latent, style.latent)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            "features = recompute evaluates content and style together: their latents must have "
            f"one size, got {sizes[0]} and {sizes[1]}"
        )
    for t in map(int, sd.schedule.timesteps(content.num_steps)):
        beside = [content.trail[t], style.trail[t]] if in_window(t, window) else []
        injector.at(t)
        with jt.no_grad(), edit_attention(sd.unet, sites if beside else (), injector):
            rows = jt.concat([*beside, z])
            out = sd.unet(rows, t, context.expand(rows.shape[0], *context.shape[1:]))
            z = sd.schedule.step(out[rows.shape[0] - z.shape[0] :], z, t, content.num_steps)
            z.sync()
        yield t, z
