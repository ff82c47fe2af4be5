"""Prompts painted after reference pictures, by a method: what `generate` does with --method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..methods import find_method, from_noise
from ..methods.base import NOISE, Method, Noise
from ..sd import image
from ..sd.samplers.options import Sampling
from .inputs import Picture, find_pictures

if TYPE_CHECKING:
    from ..sd.pipeline import StableDiffusion

OF_GENERATE = ("prompt", "negative", "guidance", "steps", "size_px")  # in a record by themselves


@dataclass(frozen=True)
class After:
    """After what prompts are painted. method: a name of METHODS; cfg: its options, of which
    generate's own (steps, guidance, negative) are taken from there; references: pictures or folders
    of them."""

    method: str
    cfg: Any
    references: tuple[str, ...] = ()

    def pictures(self) -> list[Picture]:
        """The references, checked. Raises ImageError or ValueError."""
        method = find_method(self.method)
        if method.reference is None:
            raise ValueError(
                f"method {self.method} paints no prompts after a reference; these do: "
                f"{', '.join(from_noise())}"
            )
        found = [picture for path in self.references for picture in find_pictures(path)]
        if not found and method.needs_reference:
            raise ValueError(f"method {self.method} needs a --reference")
        if len(found) > 1 and not method.pools:
            raise ValueError(f"method {self.method} takes one reference, got {len(found)}")
        return found

    def sampling(self, how: Sampling, tell: Callable[[str], object]) -> Sampling:
        """`how` with a sampler that the method works with. Raises ValueError for another."""
        allowed = find_method(self.method).samplers(bool(self.references))
        if allowed is None or how.sampler in allowed:
            return how
        if how.sampler is not None:
            names = " or ".join(allowed)
            raise ValueError(f"method {self.method} works with sampler {names}, got {how.sampler}")
        tell(f"sampler {allowed[0]}, which method {self.method} works with")
        return replace(how, sampler=allowed[0])

    def facts(self, pictures: Sequence[Picture]) -> dict:
        """For records."""
        settings = find_method(self.method).settings(self.cfg)
        own = {name: value for name, value in settings.items() if name not in OF_GENERATE}
        return {"method": self.method, "reference": [p.facts for p in pictures], "options": own}


class Referenced:
    """Paints one prompt after another. The references are prepared when the first is painted;
    without any, the first prompt's picture leads the others."""

    def __init__(
        self,
        sd: StableDiffusion,
        after: After,
        pictures: Sequence[Picture],
        how: Sampling,
        words: Sequence[dict[str, Any]],
    ):
        """words: prompt, seed, negative, height and width of each picture, as generate has them;
        the last three are the same for all."""
        self.sd, self.how, self.pictures = sd, how, pictures
        self.prompts, self.seeds = ([one[n] for one in words] for n in ("prompt", "seed"))
        self.painter: Method = find_method(after.method)(sd)
        same = {"steps": how.steps, "guidance": how.guidance, "negative": words[0]["negative"]}
        own = {field.name for field in fields(after.cfg)}
        self.cfg = replace(after.cfg, **{n: v for n, v in same.items() if n in own})
        self.size = tuple(words[0][n] or sd.picture_size for n in ("height", "width"))
        self.prepared: Any = None

    def settle(self, timesteps: Sequence[float], tell: Callable[[str], object]) -> None:
        """Decide what depends on the machine, and tell what will have no effect."""
        from ..methods.painting import tell_window

        tell_window(self.cfg, timesteps, tell)
        if not self.pictures and len(self.prompts) == 1:
            tell("a single prompt without a --reference: its picture leads no other")
        held = {self.painter.reference: len(self.pictures)}
        self.cfg = self.painter.settle(self.cfg, (1, 3, *self.size), held, tell)

    def evaluations(self, each: int | None, count: int) -> int | None:
        """All that are counted for so many pictures, each of which takes a sampler `each`."""
        costs = self.painter.evaluations(self.cfg)
        before = costs[self.painter.reference] * len(self.pictures)
        return None if each is None else before + each * count

    def paint(self, i: int, progress: Callable[[int, int], object]) -> np.ndarray:
        """The picture of prompt i, uint8 (H, W, 3)."""
        if self.pictures and self.prepared is None:
            self.prepared = self._prepare(progress)
        rows = [i] if self.pictures or i == 0 else [0, i]
        sides: dict[str, Any] = {NOISE: self._noise(rows)}
        if self.pictures:
            sides[self.painter.reference] = self.prepared
        return image.to_uint8(self.painter.apply(sides, self.cfg, progress))[-1]

    def _noise(self, rows: list[int]) -> Noise:
        from ..sd.startup import jt

        seeds = tuple(self.seeds[i] for i in rows)
        latents = [self.sd.noise(1, seed, *self.size, self.how.rng) for seed in seeds]
        return Noise(jt.concat(latents), tuple(self.prompts[i] for i in rows), seeds, self.how)

    def _prepare(self, progress):
        role = self.painter.reference
        each = [
            self.painter.prepare(role, image.load(p.path, self.size), self.cfg, progress)
            for p in self.pictures
        ]
        return each[0] if len(each) == 1 else self.painter.pool(each)
