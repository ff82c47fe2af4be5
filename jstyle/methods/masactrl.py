"""MasaCtrl (Cao, Wang, Qi, Shan, Qie, Zheng, ICCV 2023): a prompt's picture with the contents of a
source.

After the first steps, which lay the picture out, and from one layer of the network on, the queries
of self-attention look at the source's keys and values. With a subject, a word of both prompts, its
places are told from the rest by the cross-attention to that word, in the source and in the result,
and each looks only at its own kind in the source. Source: arXiv:2304.08465, sections 4.1 and 4.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..sd.facts import CONTENT, RESULT
from .base import Noise
from .recorded import Hooks, Kept, Recorded, Track
from .vocabulary import Injected, Prompted, require_share, require_text

if TYPE_CHECKING:
    from ..mixing import Sources
    from ..sd.hooks import AttentionCall
    from ..sd.startup import jt
    from ..subject import Masks


@dataclass(frozen=True)
class MasaCtrlConfig(Injected, Prompted, Kept):
    """Options of MasaCtrl. The defaults are the authors': from layer 10 of 16 on and from step 4
    of 50 on.

    Args:
        sites: Self-attentions that look at the source, separated by commas: "all", "decoder:6-11"
            (from layer 10 on), or full names.
        window: "LO:HI" restricts that to timesteps LO <= t <= HI (0 is the clean end, 999 the
            noisy one; 0:901 is from step 4 of 50 on, 0:999 always).
        weight: How much of what is found in the source is taken, from 0 (none: the plain picture)
            to 1.
        prompt: What the result is to show.
        invert_prompt: What the source shows, for its way to noise.
        subject: A word of prompt and of invert_prompt, whose places and the rest are kept apart.
        mask_threshold: Where the cross-attention to the subject, scaled to 0 to 1, is at least
            this, there it is.
    """

    sites: str = "decoder:6-11"
    window: tuple[int, int] | str | None = "0:901"
    subject: str = ""
    mask_threshold: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        require_text("subject", self.subject)
        require_share("mask_threshold", self.mask_threshold)


class MasaCtrl(Recorded):
    name = "masactrl"
    does = "a prompt's picture that looks at the content's keys and values, apart for a subject"
    source = "arXiv:2304.08465"
    Config = MasaCtrlConfig
    roles = (CONTENT,)
    reference = CONTENT

    def tracks(self, role: str, cfg: MasaCtrlConfig) -> Sequence[Track]:
        return [Track(self.sites(cfg), "kv", cfg.window)]

    def recorders(self, role: str, cfg: MasaCtrlConfig, bank: Any) -> Hooks:
        from ..sd.hooks import around_attention
        from ..subject import Shares, map_sites, places

        yield from super().recorders(role, cfg, bank)
        if cfg.subject:
            words = places(self.sd.tokenizer, cfg.invert_prompt, cfg.subject)
            record = Shares({CONTENT: (words,)}, cfg.window, bank)
            yield around_attention(self.sd.unet, map_sites(self.sd.unet), record)

    def hooks(
        self, cfg: MasaCtrlConfig, sources: Sources, start: Noise, inverted: Mapping
    ) -> Hooks:
        from ..sd.hooks import around_attention
        from ..subject import Masks, Shares, map_sites, places

        masks = None
        if cfg.subject:
            of = [places(self.sd.tokenizer, prompt, cfg.subject) for prompt in start.prompts]
            source = places(self.sd.tokenizer, cfg.invert_prompt, cfg.subject)
            shares = Shares({RESULT: of, CONTENT: (source,)}, cfg.window)
            sizes = {RESULT: start.latent.shape[2:], CONTENT: inverted[CONTENT].latent.shape[2:]}
            masks = Masks(sources, shares, sizes, cfg.mask_threshold)
            yield around_attention(self.sd.unet, map_sites(self.sd.unet), shares)
        yield around_attention(self.sd.unet, self.sites(cfg), _Mutual(sources, cfg, masks))


class _Mutual:
    """Self-attention of the results: their queries look at the source's keys and values."""

    def __init__(self, sources: Sources, cfg: MasaCtrlConfig, masks: Masks | None):
        self.sources, self.cfg, self.masks = sources, cfg, masks

    def __call__(self, call: AttentionCall, q: jt.Var, k: jt.Var, v: jt.Var) -> jt.Var:
        facts, src = call.facts, self.sources
        if not src.inside(facts.t, self.cfg.window):
            return call(q, k, v)
        first = src.first(facts)
        k_s = src.put(k, first, src.of(CONTENT, "k", call.site, facts, k, first))
        v_s = src.put(v, first, src.of(CONTENT, "v", call.site, facts, v, first))
        if self.masks is not None and self.masks.ready(facts):
            out = self.masks.attend(call, q, k_s, v_s, first)
        else:
            out = call(q, k_s, v_s)
        return src.blend(self.cfg.weight, out, lambda: call(q, k, v))


METHOD = MasaCtrl
