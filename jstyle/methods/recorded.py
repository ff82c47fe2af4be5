"""What methods share that record source pictures on their way to noise, and use that on the way
back. Starts no backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from ..config import FEATURE_DTYPES, FEATURES
from .base import NOISE, Noise, Progress
from .inverted import OfInversions
from .vocabulary import Inverted

if TYPE_CHECKING:
    import numpy as np

    from ..features import FeatureBank
    from ..inversion import Inversion
    from ..mixing import Sources
    from ..sd.startup import jt

Window = tuple[int, int] | None
Hooks = Iterable[AbstractContextManager]
Size = tuple[int, int]  # (height, width) of latents


@dataclass(frozen=True)
class Kept(Inverted):
    """What methods have that record features.

    Args:
        feature_dtype: How recorded features are kept, "float32" or "float16" (half the memory;
            moves the result by a few 1e-4 of its norm).
        features: Where recorded features are kept: "memory", "disk" (a temporary file),
            "recompute" (nowhere: the sources are evaluated again beside the result) or "auto", by
            what is free. The picture is the same (recompute: within 1e-4).
    """

    feature_dtype: str = "float32"
    features: str = "auto"

    def __post_init__(self):
        super().__post_init__()
        for name, names in (("feature_dtype", FEATURE_DTYPES), ("features", FEATURES)):
            if getattr(self, name) not in names:
                allowed = ", ".join(names[:-1]) + f" or {names[-1]}"
                raise ValueError(f"{name} must be {allowed}, got {getattr(self, name)!r}")


class Track(NamedTuple):
    """Parts of attention, letters of "qkv", that are recorded at some sites and timesteps."""

    sites: tuple[str, ...]
    parts: str
    window: Window


class Injecting(OfInversions):
    """A method with the options of Injected."""

    def windows(self, cfg: Any) -> Sequence[Window]:
        """The timesteps at which sampling needs the sources."""
        return [cfg.window]

    def sites(self, cfg: Any) -> tuple[str, ...]:
        from ..injection import resolve_sites

        return resolve_sites(cfg.sites, self.sd.unet.attention_sites())

    def times(self, cfg: Any, window: Window) -> int:
        """How many of the sampling timesteps are in a window."""
        steps = self.sd.schedule.timesteps(cfg.steps)
        lo, hi = window or (0, steps[0])
        return int(((steps >= lo) & (steps <= hi)).sum())

    def uses(self, cfg: Any) -> bool:
        """Whether anything is changed at any timestep."""
        return cfg.weight > 0 and any(self.times(cfg, window) for window in self.windows(cfg))

    def settle(
        self,
        cfg: Any,
        shape: Sequence[int],
        held: Mapping[str, int],
        tell: Callable[[str], object] = lambda line: None,
    ) -> Any:
        if not self.uses(cfg):
            tell(f"{self.name}: its weight or windows leave nothing to change")
        return cfg


class Recorded(Injecting):
    """A method whose sources are inverted; what they leave is an Inversion each.

    The features of timestep t are those of the evaluation at t on the way to noise, as StyleID has
    them: they cost no evaluations, and N contents and M styles share N + M inversions. `trail` has
    the latents that the network saw there, which take next to nothing: from them the features can
    be computed again.
    """

    free = frozenset({"features"})

    def tracks(self, role: str, cfg: Any) -> Sequence[Track]:
        """What is recorded of a picture's attention; nothing where sampling does not need it."""
        raise NotImplementedError

    def recorders(self, role: str, cfg: Any, bank: FeatureBank) -> Hooks:
        """The hooks of an inversion: those of `tracks`, and others."""
        from ..features import Recorder
        from ..sd.hooks import around_attention

        for sites, parts, window in self.tracks(role, cfg):
            yield around_attention(self.sd.unet, sites, Recorder(bank, parts, window))

    def hooks(
        self, cfg: Any, sources: Sources, start: Noise, inverted: Mapping[str, Inversion]
    ) -> Hooks:
        """The hooks of sampling; they are not asked for where cfg.weight is 0."""
        raise NotImplementedError

    def check(self, cfg: Any, inverted: Mapping[str, Inversion], size: Size) -> None:
        """Raise ValueError for sources that do not fit results of this size."""

    def start(self, prepared: Mapping[str, Any], cfg: Any) -> Noise:
        """Where the results start, and how they are sampled."""
        from .painting import start_of

        return start_of(prepared, cfg)

    def paint(
        self,
        start: Noise,
        cfg: Any,
        inverted: Mapping[str, Inversion],
        progress: Progress | None,
        beside: Callable | None,
    ) -> jt.Var:
        """The latents at the end of the walk from `start`, with the hooks in place."""
        from .painting import contexts, paint

        return paint(self.sd, start, contexts(self.sd, start, cfg.negative), progress, beside)

    @classmethod
    def evaluations(cls, cfg: Any) -> dict[str, int]:
        return dict.fromkeys((*cls.roles, "result"), cfg.steps)

    def settle(
        self,
        cfg: Any,
        shape: Sequence[int],
        held: Mapping[str, int],
        tell: Callable[[str], object] = lambda line: None,
    ) -> Any:
        """Where the features are kept that are held at once."""
        from ..storage import choose

        cfg = super().settle(cfg, shape, held, tell)
        if cfg.features != "auto" or not self.uses(cfg):
            return cfg
        needed = sum(count * self.feature_bytes(role, cfg, shape) for role, count in held.items())
        chosen, why = choose(needed, self.scratch)
        tell(why)
        return replace(cfg, features=chosen)

    def prepare(
        self, role: str, picture: np.ndarray, cfg: Any, progress: Progress | None = None
    ) -> Inversion:
        from ..features import FeatureBank
        from ..storage import DiskBank
        from .painting import invert

        cfg = self.settle(cfg, picture.shape, {role: 1})
        dtype = cfg.feature_dtype
        bank = DiskBank(dtype, self.scratch) if cfg.features == "disk" else FeatureBank(dtype)
        recorded = cfg.features != "recompute" and self.uses(cfg)
        with ExitStack() as stack:
            for hook in self.recorders(role, cfg, bank) if recorded else ():
                stack.enter_context(hook)
            found = invert(self.sd, picture, cfg.invert_prompt, cfg.steps, progress)
        bank.settle()
        levels = list(found.trail)
        seen = {t: found.trail[before] for before, t in pairwise(levels)}
        return replace(found, features=bank, trail=seen)

    def apply(
        self, prepared: Mapping[str, Any], cfg: Any, progress: Progress | None = None
    ) -> jt.Var:
        from ..mixing import Sources

        start, used = self.start(prepared, cfg), self.uses(cfg)
        inverted = {role: x for role, x in prepared.items() if role != NOISE}
        held = {role: x.features for role, x in inverted.items() if _holds(x)}
        beside = None
        with ExitStack() as stack:
            if used:
                size = tuple(start.latent.shape[2:])
                self.check(cfg, inverted, size)
                beside = self._beside(cfg, inverted, held, size)
                sources = Sources(held, cfg.feature_dtype)
                for hook in self.hooks(cfg, sources, start, inverted):
                    stack.enter_context(hook)
            z = self.paint(start, cfg, inverted, progress, beside)
        return self.sd.decode(z)

    def _beside(self, cfg: Any, inverted: Mapping[str, Inversion], held: Any, size: Size):
        """What a denoiser evaluates beside the results: sources of which nothing was recorded."""
        from ..features import in_window
        from ..sd.denoiser import Beside

        again = {role: x for role, x in inverted.items() if role not in held}
        again = {role: x for role, x in again.items() if self.tracks(role, cfg)}
        for role, x in again.items():
            require_size(role, x, size, "features = recompute")
        context = self.sd.encode_text([cfg.invert_prompt])

        def beside(t: float, abar: float) -> list[Beside]:
            if not any(in_window(t, window) for window in self.windows(cfg)):
                return []
            return [Beside(role, x.trail[t], context) for role, x in again.items()]

        return beside if again else None

    def feature_bytes(self, role: str, cfg: Any, shape: Sequence[int]) -> int:
        """Bytes of what one picture (1, 3, H, W) leaves."""
        from ..storage import feature_bytes

        unet, scale = self.sd.unet.config, self.sd.vae_scale
        size = shape[2] // scale, shape[3] // scale
        return sum(
            feature_bytes(unet, sites, parts, self.times(cfg, window), size, cfg.feature_dtype)
            for sites, parts, window in self.tracks(role, cfg)
        )


def _holds(inversion: Inversion) -> bool:
    """Whether features were recorded."""
    bank: Any = inversion.features
    return any(len(part) for part in getattr(bank, "banks", (bank,)))


def require_size(role: str, inversion: Inversion, size: Size, why: str) -> None:
    """Raise ValueError unless an inversion's latents are of the result's size (h, w)."""
    found = tuple(inversion.latent.shape[2:])
    if found != size:
        raise ValueError(
            f"{why}: the {role} and the result must have one size, got latents of "
            f"{found[0]} x {found[1]} and {size[0]} x {size[1]}"
        )
