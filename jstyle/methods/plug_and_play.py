"""Plug-and-play (Tumanyan, Geyer, Bagon, Dekel, CVPR 2023): a prompt's picture with the layout of a
source.

The source's residual features replace the result's in one block of the decoder, and its queries and
keys, that is the map of attention but not what it gathers, in the self-attentions from there on.
Both only at the noisier timesteps. Source: arXiv:2211.12572, section 4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..sd.facts import CONTENT
from .base import Noise
from .recorded import Hooks, Kept, Recorded, Size, Track, Window, require_size
from .vocabulary import Injected, Prompted, require_text, window_of

if TYPE_CHECKING:
    from ..mixing import Sources
    from ..sd.hooks import AttentionCall
    from ..sd.startup import jt

BLOCK = r"(?:down_blocks\.\d+|mid_block|up_blocks\.\d+)\.resnets\.\d+"


@dataclass(frozen=True)
class PlugAndPlayConfig(Injected, Prompted, Kept):
    """Options of plug-and-play. The defaults are the paper's.

    Args:
        sites: Self-attentions that get the source's queries and keys: "all", "decoder:4-11", or
            full names, separated by commas.
        window: "LO:HI" restricts that to timesteps LO <= t <= HI (0 is the clean end, 999 the
            noisy one, 0:999 is always).
        blocks: Residual blocks that get the source's features, such as "up_blocks.1.resnets.1",
            separated by commas; "" for none.
        blocks_window: The same as window, for the blocks.
        weight: How much of the source is taken, from 0 (none: the plain picture) to 1.
    """

    sites: str = "decoder:4-11"
    window: tuple[int, int] | str | None = "500:999"
    blocks: str = "up_blocks.1.resnets.1"
    blocks_window: tuple[int, int] | str | None = "200:999"

    def __post_init__(self):
        super().__post_init__()
        require_text("blocks", self.blocks)
        for name in self.block_names:
            if not re.fullmatch(BLOCK, name):
                raise ValueError(
                    f'blocks must be names such as "up_blocks.1.resnets.1", got {name!r}'
                )
        object.__setattr__(self, "blocks_window", window_of("blocks_window", self.blocks_window))

    @property
    def block_names(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.blocks.split(",") if name.strip())


class PlugAndPlay(Recorded):
    name = "plug-and-play"
    does = "a prompt's picture with the content's residual features, queries and keys"
    source = "arXiv:2211.12572"
    Config = PlugAndPlayConfig
    roles = (CONTENT,)
    reference = CONTENT

    def tracks(self, role: str, cfg: PlugAndPlayConfig) -> Sequence[Track]:
        return [Track(self.sites(cfg), "qk", cfg.window)]

    def windows(self, cfg: PlugAndPlayConfig) -> Sequence[Window]:
        return [cfg.window, cfg.blocks_window] if cfg.block_names else [cfg.window]

    def recorders(self, role: str, cfg: PlugAndPlayConfig, bank: Any) -> Hooks:
        yield from super().recorders(role, cfg, bank)
        for name in cfg.block_names:
            yield self._around(name, _Record(self.sd.unet, name, bank, cfg.blocks_window))

    def hooks(
        self, cfg: PlugAndPlayConfig, sources: Sources, start: Noise, inverted: Mapping
    ) -> Hooks:
        from ..sd.hooks import around_attention

        yield around_attention(self.sd.unet, self.sites(cfg), _QueriesAndKeys(sources, cfg))
        for name in cfg.block_names:
            yield self._around(name, _Features(self.sd.unet, name, sources, cfg))

    def check(self, cfg: PlugAndPlayConfig, inverted: Mapping, size: Size) -> None:
        require_size(CONTENT, inverted[CONTENT], size, "the layout is the content's")

    def feature_bytes(self, role: str, cfg: PlugAndPlayConfig, shape: Sequence[int]) -> int:
        return super().feature_bytes(role, cfg, shape) + self._block_bytes(cfg, shape)

    def _block_bytes(self, cfg: PlugAndPlayConfig, shape: Sequence[int]) -> int:
        from ..storage import ITEM_BYTES, level_of

        times, levels = self.times(cfg, cfg.blocks_window), self.sd.unet.config.block_out_channels
        numbers = 0
        for name in cfg.block_names:
            channels = self.block(name).conv2.weight.shape[0]
            side = self.sd.vae_scale << level_of(name, len(levels))
            numbers += channels * (shape[2] // side) * (shape[3] // side)
        return numbers * times * ITEM_BYTES[cfg.feature_dtype]

    def block(self, name: str) -> Any:
        """The residual block of the network called `name`. Raises ValueError listing the names."""
        unet = self.sd.unet
        stages = {f"down_blocks.{i}": x for i, x in enumerate(unet.down_blocks)}
        stages |= {"mid_block": unet.mid_block}
        stages |= {f"up_blocks.{i}": x for i, x in enumerate(unet.up_blocks)}
        blocks = {
            f"{stage}.resnets.{i}": resnet
            for stage, block in stages.items()
            for i, resnet in enumerate(block.resnets)
        }
        if name not in blocks:
            raise ValueError(f"no residual block {name!r}; valid are {', '.join(blocks)}")
        return blocks[name]

    def _around(self, name: str, hook: Any) -> Any:
        """The hook around what a residual block adds to its input."""
        from ..sd.hooks import around

        return around(self.block(name).conv2, "execute", hook)


class _Record:
    """Keeps what a residual block adds to its input."""

    def __init__(self, unet: Any, name: str, bank: Any, window: Window):
        self.unet, self.name, self.bank, self.window = unet, name, bank, window

    def __call__(self, call: Any, x: jt.Var) -> jt.Var:
        out, t = call(x), self.unet.facts.t
        if self.window is None or self.window[0] <= t <= self.window[1]:
            self.bank.begin(t)
            self.bank["h", self.name, t] = out
        return out


class _Features:
    """What a residual block adds to its input is the source's."""

    def __init__(self, unet: Any, name: str, sources: Sources, cfg: PlugAndPlayConfig):
        self.unet, self.name, self.sources, self.cfg = unet, name, sources, cfg

    def __call__(self, call: Any, x: jt.Var) -> jt.Var:
        out, facts, src = call(x), self.unet.facts, self.sources
        if not src.inside(facts.t, self.cfg.blocks_window):
            return out
        first = src.first(facts)
        source = src.of(CONTENT, "h", self.name, facts, out, first)
        return src.put(out, first, src.blend(self.cfg.weight, source, lambda: out[first:]))


class _QueriesAndKeys:
    """The map of self-attention is the source's, what it gathers is the result's own."""

    def __init__(self, sources: Sources, cfg: PlugAndPlayConfig):
        self.sources, self.cfg = sources, cfg

    def __call__(self, call: AttentionCall, q: jt.Var, k: jt.Var, v: jt.Var) -> jt.Var:
        facts, src = call.facts, self.sources
        if not src.inside(facts.t, self.cfg.window):
            return call(q, k, v)
        first = src.first(facts)
        return call(self._of(call, "q", q, first), self._of(call, "k", k, first), v)

    def _of(self, call: AttentionCall, part: str, x: jt.Var, first: int) -> jt.Var:
        src = self.sources
        source = src.of(CONTENT, part, call.site, call.facts, x, first)
        return src.put(x, first, src.blend(self.cfg.weight, source, lambda: x[first:]))


METHOD = PlugAndPlay
