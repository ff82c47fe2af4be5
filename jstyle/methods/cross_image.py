"""Cross-image attention (Alaluf, Garibi, Patashnik, Averbuch-Elor, Cohen-Or, SIGGRAPH 2024): the
structure of the content with the appearance of the style.

    w = softmax(Q_c K_s^T / sqrt(d)),   out = clip((w - mean) contrast + mean, 0, 1) V_s

In the decoder's self-attentions the queries are the content's and keys and values the style's; the
weights are contrasted, so that a token looks at few others. Guidance leads from the prediction
without this to the one with it, and after a step the latents get the mean and deviation of the
style's at the same level. Source: arXiv:2311.03335, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..sd.facts import CONTENT, STYLE
from .base import Noise, Progress
from .recorded import Hooks, Kept, Recorded, Track
from .vocabulary import Injected, require_flag, require_number, require_share, window_of

if TYPE_CHECKING:
    from ..inversion import Inversion
    from ..mixing import Sources
    from ..sd.hooks import AttentionCall
    from ..sd.startup import jt

MOST_CONTRAST = 100.0
PARTS = {CONTENT: "q", STYLE: "kv"}  # which parts of attention each picture gives


@dataclass(frozen=True)
class CrossImageConfig(Injected, Kept):
    """Options of cross-image attention. The defaults are the authors'.

    Args:
        sites: Self-attentions that look at the style, separated by commas: "all", "decoder:6-11"
            or full names.
        window: "LO:HI" restricts that to timesteps LO <= t <= HI (0 is the clean end, 999 the
            noisy one, 0:999 is always).
        weight: How much of the change is made, from 0 (none: the content's reconstruction) to 1.
        gamma: How much of the content's own queries is kept, from 0 (those of the picture that is
            made, which starts as the content, as in the authors' program) to 1 (as in their
            formula).
        contrast: What the weights of attention are led away from their mean by; 1 is without.
        appearance_guidance: Strength of the guidance towards the style's appearance; 1 is without,
            and twice as fast.
        init_adain: Give the latents the mean and deviation of the style's, after each step whose
            timestep is in both windows.
        adain_window: The timesteps of init_adain, "LO:HI".
        skip: Share of the noisiest steps that are left out, from 0 to 0.9: sampling starts from
            the content at the level that is left.
        invert_prompt: What the pictures show, for their way to noise and back.
    """

    sites: str = "decoder:6-11"
    window: tuple[int, int] | str | None = "0:580"
    gamma: float = 1.0
    contrast: float = 1.67
    appearance_guidance: float = 3.5
    init_adain: bool = True
    adain_window: tuple[int, int] | str | None = "0:480"
    skip: float = 0.32

    def __post_init__(self):
        super().__post_init__()
        require_share("gamma", self.gamma)
        require_share("contrast", self.contrast, MOST_CONTRAST)
        require_number("appearance_guidance", self.appearance_guidance)
        require_flag("init_adain", self.init_adain)
        require_share("skip", self.skip, 0.9)
        window = window_of("adain_window", self.adain_window)
        object.__setattr__(self, "adain_window", window)

    @property
    def skipped(self) -> int:
        """How many steps are left out."""
        return round(self.skip * self.steps)


class CrossImage(Recorded):
    name = "cross-image"
    does = "the content's queries look at the style's keys and values, contrasted and guided"
    source = "arXiv:2311.03335"
    Config = CrossImageConfig

    @classmethod
    def evaluations(cls, cfg: CrossImageConfig) -> dict[str, int]:
        return {**super().evaluations(cfg), "result": cfg.steps - cfg.skipped}

    def tracks(self, role: str, cfg: CrossImageConfig) -> Sequence[Track]:
        if role == CONTENT and cfg.gamma == 0:
            return []
        return [Track(self.sites(cfg), PARTS[role], cfg.window)]

    def hooks(
        self, cfg: CrossImageConfig, sources: Sources, start: Noise, inverted: Mapping
    ) -> Hooks:
        from ..sd.hooks import around_attention

        yield around_attention(self.sd.unet, self.sites(cfg), _Look(sources, cfg))

    def start(self, prepared: Mapping[str, Any], cfg: CrossImageConfig) -> Noise:
        """The contents' latents where the first step begins that is not left out."""
        from ..sd.samplers.options import Sampling
        from .painting import batch_of

        content = prepared[CONTENT]
        z, rows = content.latent, max(batch_of(x) for x in prepared.values())
        if cfg.skipped:
            z = content.trail[sorted(content.trail)[-cfg.skipped]]
        guidance = cfg.appearance_guidance if self.uses(cfg) else 1.0
        how = Sampling(cfg.steps, guidance, sampler="ddim")
        z = z.expand(rows, *z.shape[1:])
        return Noise(z, (cfg.invert_prompt,) * rows, tuple(range(rows)), how)

    def paint(
        self,
        start: Noise,
        cfg: CrossImageConfig,
        inverted: Mapping[str, Inversion],
        progress: Progress | None,
        beside: Callable | None,
    ) -> jt.Var:
        from ..mixing import Statistics
        from .painting import paint

        context = self.sd.encode_text([cfg.invert_prompt])
        words = context, None if start.how.guidance == 1.0 else context  # both with the same words
        levels = self._levels(inverted[STYLE], cfg) if self.uses(cfg) else {}
        given = Statistics(levels, cfg.weight)
        z = paint(self.sd, start, words, progress, beside, (given,), cfg.skipped)
        return given.after(z)

    def _levels(self, style: Inversion, cfg: CrossImageConfig) -> dict[float, jt.Var]:
        """Timestep -> the style's latents at the level where the step from there ends."""
        from ..features import in_window

        if not cfg.init_adain:
            return {}
        windows = cfg.window, cfg.adain_window
        return {t: z for t, z in style.trail.items() if all(in_window(t, w) for w in windows)}


class _Look:
    """Self-attention of the rows that guidance leads to: their queries look at the style."""

    def __init__(self, sources: Sources, cfg: CrossImageConfig):
        self.sources, self.cfg = sources, cfg

    def __call__(self, call: AttentionCall, q: jt.Var, k: jt.Var, v: jt.Var) -> jt.Var:
        facts, src, cfg = call.facts, self.sources, self.cfg
        if not src.inside(facts.t, cfg.window):
            return call(q, k, v)
        first = src.first(facts, conditional=True)
        mixed = q[first:]
        if cfg.gamma > 0:
            content = src.of(CONTENT, "q", call.site, facts, q, first)
            mixed = src.blend(cfg.gamma, content, lambda: q[first:])
        k_s = src.of(STYLE, "k", call.site, facts, k, first)
        v_s = src.of(STYLE, "v", call.site, facts, v, first)
        out = src.contrasted(mixed, k_s, v_s, cfg.contrast)
        if first == 0 and cfg.weight == 1:
            return out
        own = call(q, k, v)
        return src.put(own, first, src.blend(cfg.weight, out, lambda: own[first:]))


METHOD = CrossImage
