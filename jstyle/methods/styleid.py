"""StyleID (Chung, Hyun, Heo, CVPR 2024, arXiv:2312.09008) as a method; it is in pipeline.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..config import PRESETS, StyleConfig
from .base import Progress
from .inverted import OfInversions

if TYPE_CHECKING:
    import numpy as np

    from ..pipeline import Inversion
    from ..sd.startup import jt

PARTS = {"content": "q", "style": "kv"}  # which parts of attention each picture gives


class StyleID(OfInversions):
    name = "styleid"
    does = "the style's keys and values and the content's queries in self-attention"
    source = "arXiv:2312.09008"
    Config = StyleConfig
    presets = PRESETS
    default_preset = "paper"
    pools = True
    free = frozenset({"features"})

    def __init__(self, sd, scratch=None):
        super().__init__(sd, scratch)
        from ..pipeline import JStyleID

        self.styler = JStyleID(sd, scratch)

    @classmethod
    def evaluations(cls, cfg: StyleConfig) -> dict[str, int]:
        return dict.fromkeys((*cls.roles, "result"), cfg.steps)

    def settle(
        self,
        cfg: StyleConfig,
        shape: Sequence[int],
        held: Mapping[str, int],
        tell: Callable[[str], object] = lambda line: None,
    ) -> StyleConfig:
        """Where the features are kept that are held at once."""
        if not cfg.inject or cfg.features != "auto":
            return cfg
        bytes_of = self.styler.feature_bytes
        needed = sum(held[role] * bytes_of(cfg, shape, PARTS[role]) for role in self.roles)
        working = self.styler.working_bytes(shape, max(held.values()))
        return self.styler.decide(cfg, needed, tell, working)

    def prepare(
        self, role: str, picture: np.ndarray, cfg: StyleConfig, progress: Progress | None = None
    ) -> Inversion:
        parts = PARTS[role] if cfg.inject else ""
        return self.styler.invert(picture, cfg, parts, progress)

    def apply(self, prepared: Any, cfg: StyleConfig, progress: Progress | None = None) -> jt.Var:
        return self.styler.transfer(*(prepared[role] for role in self.roles), cfg, progress)


METHOD = StyleID
