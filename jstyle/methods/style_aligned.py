"""Style Aligned (Hertz, Voynov, Fruchter, Cohen-Or, CVPR 2024, arXiv:2312.02133).

In self-attention every picture looks at the reference too:

    Q' = AdaIN(Q, Q_r),  K' = [AdaIN(K, K_r), K_r],  V' = [V, V_r]

AdaIN per head and channel over the tokens. The reference is the first picture of the batch, which
stays as it would be alone, or a given one, inverted with DDIM and evaluated at the level of every
step. As in the authors' code, the rows that guidance leads away from look at the reference's own,
its keys may be scaled and its scores shifted, and group norms may be taken over both pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..config import parse_window
from .base import Progress
from .inverted import OfInversions
from .vocabulary import Injected, Inverted, Prompted, require_flag, require_number

if TYPE_CHECKING:
    import numpy as np

    from ..inversion import Inversion
    from ..sd.hooks import AttentionCall
    from ..sd.startup import jt

ADAIN = ("q", "k", "v")
NONE = "none"
EPS = 1e-5


@dataclass(frozen=True)
class StyleAlignedConfig(Injected, Prompted, Inverted):
    """Options of Style Aligned. The defaults are the paper's.

    Args:
        adain: Which of queries, keys and values get the reference's statistics: letters of "qkv",
            or "none".
        share_norms: Take the statistics of group norms over the picture and the reference.
        score_scale: What the reference's keys are multiplied with; below 1 it is looked at less.
        score_shift: What is added to the logits of the reference's tokens; above 0 it is looked at
            more.

    Raises ValueError naming the value and what is allowed.
    """

    adain: str = "qk"
    share_norms: bool = True
    score_scale: float = 1.0
    score_shift: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        letters = "" if self.adain == NONE else self.adain
        if not isinstance(letters, str) or not self.adain or set(letters) - set(ADAIN):
            raise ValueError(f'adain must be letters of "qkv" or "{NONE}", got {self.adain!r}')
        require_flag("share_norms", self.share_norms)
        for name in ("score_scale", "score_shift"):
            require_number(name, getattr(self, name))


class StyleAligned(OfInversions):
    name = "style-aligned"
    does = "attention shared with a reference, whose statistics queries and keys take"
    source = "arXiv:2312.02133"
    Config = StyleAlignedConfig
    reference = "style"
    needs_reference = False
    pools = True

    @classmethod
    def evaluations(cls, cfg: StyleAlignedConfig) -> dict[str, int]:
        return dict.fromkeys((*cls.roles, "result"), cfg.steps)

    @classmethod
    def samplers(cls, referenced: bool) -> tuple[str, ...] | None:
        return ("ddim",) if referenced else None

    def prepare(
        self,
        role: str,
        picture: np.ndarray,
        cfg: StyleAlignedConfig,
        progress: Progress | None = None,
    ) -> Inversion:
        from .painting import invert

        return invert(self.sd, picture, cfg.invert_prompt, cfg.steps, progress)

    def apply(
        self,
        prepared: Mapping[str, Any],
        cfg: StyleAlignedConfig,
        progress: Progress | None = None,
    ) -> jt.Var:
        from .painting import contexts, paint, start_of

        start, style = start_of(prepared, cfg), prepared.get("style")
        words = contexts(self.sd, start, cfg.negative)
        if not cfg.weight:
            return self.sd.decode(paint(self.sd, start, words, progress))
        beside = None
        if style is not None:
            beside = self._beside(style, words[1], cfg)
        with self._shared(cfg, style):
            z = paint(self.sd, start, words, progress, beside)
        return self.sd.decode(z)

    def _beside(self, style: Inversion, negative: jt.Var | None, cfg: StyleAlignedConfig):
        from .sharing import beside

        own = self.sd.encode_text([cfg.invert_prompt])
        return beside(lambda t, abar: style.trail[t], own, negative, parse_window(cfg.window))

    @contextmanager
    def _shared(self, cfg: StyleAlignedConfig, style: Inversion | None) -> Iterator[None]:
        from ..injection import resolve_sites
        from ..sd.hooks import around, around_attention
        from ..sd.layers import GroupNorm
        from .sharing import Sharing

        pooled = 1 if style is None else style.pooled
        window = parse_window(cfg.window)
        sharing = Sharing(pooled, style is None, window, lambda group: cfg.weight)
        unet = self.sd.unet

        def attention(call: AttentionCall, q, k, v):
            def changed(own, theirs):
                return _attend(call, own, theirs, cfg)

            return sharing.mixed(call.facts, (q, k, v), call, changed, axis=1)

        def norm(call, x):
            def changed(own, theirs):
                return _normed(call, own[0], theirs[0])

            return sharing.mixed(unet.facts, (x,), call, changed, axis=2)

        with ExitStack() as stack:
            sites = resolve_sites(cfg.sites, unet.attention_sites())
            stack.enter_context(around_attention(unet, sites, attention))
            for module in unet.modules() if cfg.share_norms else ():
                if isinstance(module, GroupNorm):
                    stack.enter_context(around(module, "execute", norm))
            yield


def _attend(
    call: AttentionCall, own: Sequence, theirs: Sequence, cfg: StyleAlignedConfig
) -> jt.Var:
    """Attention of the followers' (q, k, v) (B, tokens, heads, head_dim) to both."""
    from .sharing import adain

    parts = zip(ADAIN, own, theirs, strict=True)
    q, k, v = (adain(x, y, (1,), EPS, 1) if name in cfg.adain else x for name, x, y in parts)
    return attend_shifted(
        call, q, (k, theirs[1] * cfg.score_scale), (v, theirs[2]), cfg.score_shift
    )


def attend_shifted(call: Callable, q: jt.Var, keys: tuple, values: tuple, shift: float) -> jt.Var:
    """Attention to two sets of tokens, `shift` being added to the logits of the second."""
    from ..sd.startup import jt

    k, v = jt.concat(keys, 1), jt.concat(values, 1)
    if shift == 0.0:
        return call(q, k, v)
    dim = q.shape[-1]  # logits are scaled by dim ** -0.5; one more channel carries the shift
    zero, one = (jt.full((*x.shape[:3], 1), value) for x, value in ((keys[0], 0.0), (q, 1.0)))
    carried = jt.full((*keys[1].shape[:3], 1), shift * dim**0.5)
    q, k = jt.concat([q, one], 3), jt.concat([k, jt.concat([zero, carried], 1)], 3)
    v = jt.concat([v, v[..., :1] * 0.0], 3)
    return call(q, k, v)[..., :dim]


def _normed(call, x: jt.Var, reference: jt.Var) -> jt.Var:
    """The norm of x (B, C, H, W) with statistics over both pictures."""
    from ..sd.startup import jt

    return call(jt.concat([x, reference], 2))[:, :, : x.shape[2]]


METHOD = StyleAligned
