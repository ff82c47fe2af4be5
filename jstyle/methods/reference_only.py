"""Reference-only (the preprocessors "reference_only", "reference_adain" and "reference_adain+attn"
of the ControlNet extension of Stable Diffusion's web interface, 2023).

The reference is noised to the level of the result and evaluated beside it, with the result's words.

    attention   chosen self-attentions look at the reference's tokens as well:
                K' = [K, K_r], V' = [V, V_r]
    adain       what the inner blocks of the network give takes the reference's mean and deviation,
                per channel, over height and width

Style fidelity is how far the rows that guidance leads away from stay as they would be: with 1 only
the conditional rows see the reference, so guidance leads towards it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..config import parse_window
from ..sd.limits import SEED, require_whole
from .base import Progress
from .inverted import OfInversions
from .vocabulary import Injected, Inverted, Prompted, require_share

if TYPE_CHECKING:
    import numpy as np

    from ..inversion import Inversion
    from ..sd.startup import jt
    from .base import Noise

MODES = ("attention", "adain", "both")
EPS = 1e-6  # of a variance


@dataclass(frozen=True)
class ReferenceOnlyConfig(Injected, Prompted, Inverted):
    """Options of reference-only.

    Args:
        mode: "attention", "adain" or "both": where results meet the reference.
        fidelity: How far the rows that guidance leads away from stay without the reference, from 0
            to 1; more means nearer to the reference. Without guidance there are none.
        noise_seed: Of the noise under which the reference lies.

    Raises ValueError naming the value and what is allowed.
    """

    mode: str = "attention"
    fidelity: float = 0.5
    noise_seed: int = 0

    def __post_init__(self):
        super().__post_init__()
        if self.mode not in MODES:
            raise ValueError(
                f"mode must be {', '.join(MODES[:-1])} or {MODES[-1]}, got {self.mode!r}"
            )
        require_share("fidelity", self.fidelity)
        require_whole("noise_seed", self.noise_seed, 0, SEED)


class ReferenceOnly(OfInversions):
    name = "reference-only"
    does = "attention to a noised reference, or its statistics, in the layers that are chosen"
    source = "the ControlNet web extension's reference_only and reference_adain"
    Config = ReferenceOnlyConfig
    reference = "style"
    pools = True

    @classmethod
    def evaluations(cls, cfg: ReferenceOnlyConfig) -> dict[str, int]:
        return {"content": cfg.steps, "style": 0, "result": cfg.steps}

    @classmethod
    def samplers(cls, referenced: bool) -> None:
        return None

    def prepare(
        self,
        role: str,
        picture: np.ndarray,
        cfg: ReferenceOnlyConfig,
        progress: Progress | None = None,
    ) -> Inversion:
        from .painting import encode, invert

        if role == "style":
            return encode(self.sd, picture, cfg.steps)
        return invert(self.sd, picture, cfg.invert_prompt, cfg.steps, progress)

    def apply(
        self,
        prepared: Mapping[str, Any],
        cfg: ReferenceOnlyConfig,
        progress: Progress | None = None,
    ) -> jt.Var:
        from .painting import contexts, paint, start_of

        start, style = start_of(prepared, cfg), prepared["style"]
        words = contexts(self.sd, start, cfg.negative)
        if not cfg.weight:
            return self.sd.decode(paint(self.sd, start, words, progress))
        with self._sharing(cfg, style.pooled):
            beside = self._beside(style, start, words, cfg)
            z = paint(self.sd, start, words, progress, beside)
        return self.sd.decode(z)

    def _beside(self, style: Inversion, start: Noise, words, cfg: ReferenceOnlyConfig) -> Callable:
        """The references under noise, one group of them for all results or one for each."""
        from ..sd.noise import gaussian
        from ..sd.schedule import add_noise
        from ..sd.startup import jt
        from .painting import CLEAN
        from .sharing import beside

        clean, conditional = style.trail[CLEAN], words[0]
        each, pooled = clean.shape[0] // style.pooled, style.pooled
        groups = max(each, conditional.shape[0])
        if groups > each:
            clean = clean.repeat(groups, 1, 1, 1)
        if pooled > 1 and conditional.shape[0] > 1:
            conditional = jt.concat(
                [conditional[i : i + 1] for i in range(groups) for _ in range(pooled)]
            )
        noise = jt.array(gaussian(clean.shape[1:], cfg.noise_seed)).unsqueeze(0)

        def latents(t: float, abar: float) -> jt.Var:
            return add_noise(clean, noise, abar)

        return beside(latents, conditional, words[1], parse_window(cfg.window))

    @contextmanager
    def _sharing(self, cfg: ReferenceOnlyConfig, pooled: int) -> Iterator[None]:
        from ..injection import resolve_sites
        from ..sd.hooks import around, around_attention
        from ..sd.startup import jt
        from .sharing import Sharing, adain

        def weight(group) -> float:
            return cfg.weight * (1.0 if group.conditional else 1.0 - cfg.fidelity)

        unet, sharing = self.sd.unet, Sharing(pooled, False, parse_window(cfg.window), weight)

        def attention(call, q, k, v):
            def changed(own, theirs):
                k, v = (jt.concat([own[i], theirs[i]], 1) for i in (1, 2))
                return call(own[0], k, v)

            return sharing.mixed(call.facts, (q, k, v), call, changed, axis=1)

        def features(call, *args):
            def changed(own, theirs):
                return adain(own[0], theirs[0], (2, 3), EPS, 0)

            return sharing.mixed(unet.facts, (call(*args),), lambda x: x, changed, axis=2)

        with ExitStack() as stack:
            if cfg.mode != "adain":
                sites = resolve_sites(cfg.sites, unet.attention_sites())
                stack.enter_context(around_attention(unet, sites, attention))
            for module in inner_layers(unet) if cfg.mode != "attention" else ():
                stack.enter_context(around(module, "execute", features))
            yield


def inner_layers(unet: Any) -> list:
    """What gives the features that take statistics: the lower half of the network, as the extension
    has it at its weight 1: of n down blocks the last ones from n / 2 + 1 on, the middle block, and
    the first up blocks before n / 2, each after every (resnet, attention)."""
    count = len(unet.up_blocks)
    down = [block for i, block in enumerate(unet.down_blocks) if 2 * i > count]
    up = [block for i, block in enumerate(unet.up_blocks) if 2 * i < count]
    layers = [layer for block in (*down, *up) for layer in block.attentions or block.resnets]
    return [*layers, unet.mid_block]


METHOD = ReferenceOnly
