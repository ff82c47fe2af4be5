"""An appearance encoder without training: the reference's keys and values, from a copy of the
network that sees it clean, joined to the result's own.

    out = softmax([Q K^T / sqrt(d), Q K_r^T / sqrt(d) + log weight]) [V, V_r]

As in MagicAnimate (Xu and others, arXiv:2311.16498, section 3.2) and X&Fuse (Kirstain, Levy,
Polyak, arXiv:2307.10157), which train the copy; here it has the network's own weights. All
attentions of the decoder blur the result, the last three alone do not; below t = 200 the reference
gives its appearance and leaves the pose free.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..config import parse_window
from ..sd.facts import CONTENT, STYLE
from .base import Progress
from .recorded import Injecting, require_size
from .vocabulary import Injected, Inverted, Prompted, require_flag

if TYPE_CHECKING:
    import numpy as np

    from ..inversion import Inversion
    from ..mixing import Sources
    from ..sd.hooks import AttentionCall
    from ..sd.startup import jt

CLEAN, SAME = "clean", "same"


@dataclass(frozen=True)
class AppearanceEncoderConfig(Injected, Prompted, Inverted):
    """Options of the appearance encoder.

    Args:
        sites: Self-attentions that the reference is joined to, separated by commas: "all",
            "decoder:3-11" or full names.
        weight: What the reference counts beside the result's own tokens, from 0 (nothing: the plain
            picture) to 1 (as much).
        encoder_at: The timestep that the copy of the network is told: "clean" (0; one evaluation
            per reference) or "same" as the result's (one beside every evaluation).
        both: Also the rows that guidance leads away from see the reference. Otherwise guidance
            leads towards it.
    """

    sites: str = "decoder:3-11"
    encoder_at: str = CLEAN
    both: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.encoder_at not in (CLEAN, SAME):
            raise ValueError(f"encoder_at must be {CLEAN} or {SAME}, got {self.encoder_at!r}")
        require_flag("both", self.both)


class AppearanceEncoder(Injecting):
    name = "appearance-encoder"
    does = "the clean style's keys and values from a copy of the network, joined to the result's"
    source = "arXiv:2311.16498 and arXiv:2307.10157"
    Config = AppearanceEncoderConfig
    presets = {
        "decoder": {},
        "sharp": {"sites": "decoder:9-11"},
        "free-pose": {"sites": "decoder:9-11", "window": "0:200"},
    }
    default_preset = "decoder"
    reference = STYLE

    @classmethod
    def evaluations(cls, cfg: AppearanceEncoderConfig) -> dict[str, int]:
        encoded = int(cfg.encoder_at == CLEAN and cfg.weight > 0)
        return {CONTENT: cfg.steps, STYLE: encoded, "result": cfg.steps}

    @classmethod
    def samplers(cls, referenced: bool) -> None:
        return None

    def prepare(
        self,
        role: str,
        picture: np.ndarray,
        cfg: AppearanceEncoderConfig,
        progress: Progress | None = None,
    ) -> Inversion:
        """A content walked to noise; a style as clean latents, with its keys and values."""
        from .painting import invert

        if role == CONTENT:
            return invert(self.sd, picture, cfg.invert_prompt, cfg.steps, progress)
        return self._encoded(picture, cfg, progress)

    def _encoded(self, picture: np.ndarray, cfg: AppearanceEncoderConfig, progress) -> Inversion:
        from ..features import FeatureBank, Recorder
        from ..sd.facts import Facts, Row, stated
        from ..sd.hooks import around_attention
        from ..sd.startup import jt
        from .painting import encode

        found, unet = encode(self.sd, picture, cfg.steps), self.sd.unet
        z, bank = found.latent, FeatureBank()
        rows = tuple(Row(i, True, STYLE) for i in range(z.shape[0]))
        if self.evaluations(cfg)[STYLE]:
            context = self._context(z.shape[0])
            with around_attention(unet, self.sites(cfg), Recorder(bank, "kv")), jt.no_grad():
                with stated(unet, Facts(0, 0, rows)):
                    unet(z, 0, context).sync()
            jt.sync_all()
            if progress is not None:
                progress(1, 1)
        return replace(found, features=bank)

    def apply(
        self,
        prepared: Mapping[str, Any],
        cfg: AppearanceEncoderConfig,
        progress: Progress | None = None,
    ) -> jt.Var:
        from ..mixing import Sources
        from ..sd.hooks import around_attention
        from .painting import contexts, paint, start_of

        start, beside = start_of(prepared, cfg), None
        words = contexts(self.sd, start, cfg.negative)
        with ExitStack() as stack:
            if self.uses(cfg):
                style, banks = prepared[STYLE], {}
                if cfg.encoder_at == CLEAN:
                    banks = {STYLE: style.features}
                else:
                    require_size(STYLE, style, tuple(start.latent.shape[2:]), "encoder_at same")
                    beside = self._beside(style, cfg)
                hook = _Join(Sources(banks), cfg)
                stack.enter_context(around_attention(self.sd.unet, self.sites(cfg), hook))
            z = paint(self.sd, start, words, progress, beside)
        return self.sd.decode(z)

    def _beside(self, style: Inversion, cfg: AppearanceEncoderConfig) -> Callable:
        from ..features import in_window
        from ..sd.denoiser import Beside

        window = parse_window(cfg.window)
        row = Beside(STYLE, style.latent, self._context(1))
        return lambda t, abar: [row] if in_window(t, window) else []

    def _context(self, batch: int) -> jt.Var:
        """Of the empty prompt: the reference has no words."""
        return self.sd.encode_text([""]).repeat(batch, 1, 1)


class _Join:
    """Self-attention over the result's own tokens and the reference's."""

    def __init__(self, sources: Sources, cfg: AppearanceEncoderConfig):
        self.sources, self.cfg, self.window = sources, cfg, parse_window(cfg.window)

    def __call__(self, call: AttentionCall, q: jt.Var, k: jt.Var, v: jt.Var) -> jt.Var:
        facts, src, cfg = call.facts, self.sources, self.cfg
        if not src.inside(facts.t, self.window):
            return call(q, k, v)
        first = src.first(facts, None if cfg.both else True)
        at = facts._replace(t=0) if cfg.encoder_at == CLEAN else facts
        k_r = src.of(STYLE, "k", call.site, at, k, first)
        v_r = src.of(STYLE, "v", call.site, at, v, first)
        return src.joined(call, (q, k, v), (k_r, v_r), first, math.log(cfg.weight))


METHOD = AppearanceEncoder
