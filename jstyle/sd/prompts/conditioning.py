"""What pictures are told at each step, as the denoiser asks for it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ..startup import jt
from .encode import encode, lengthened
from .parse import Part, parse
from .schedule import Stage, schedule, stage_at

if TYPE_CHECKING:
    from ..pipeline import StableDiffusion


class Told(NamedTuple):
    """Rows of one step. context: (rows, tokens, dim), or one row for all pictures; pictures,
    weights: whose each row is and how much it counts, None where every picture has one of 1."""

    context: jt.Var
    pictures: tuple[int, ...] | None = None
    weights: tuple[float, ...] | None = None

    def spread(self, batch: int) -> Told:
        """For that many pictures, where it is about one. Raises ValueError for another number."""
        if self.pictures is None or self.pictures[-1] + 1 == batch:
            return self
        if self.pictures[-1] > 0:
            told = f"{self.pictures[-1] + 1} prompts for {batch} latents; give 1 or {batch}"
            raise ValueError(told)
        each = len(self.pictures)
        pictures = tuple(i for i in range(batch) for _ in range(each))
        return Told(self.context.repeat(batch, 1, 1), pictures, self.weights * batch)


class Conditioning:
    """`at(position)` -> Told, for the steps of a walk counted from 0.

    composed: whether a picture has several rows, or one of a weight that is not 1; these say
    something only against what guidance leads away from. changes: whether steps differ.
    """

    composed = changes = False

    def at(self, position: int) -> Told:
        raise NotImplementedError

    def key(self, position: int) -> Hashable:
        """The same for steps that are told the same."""
        return 0


class Fixed(Conditioning):
    """The same for all steps: context (B, tokens, dim), or one row for all."""

    def __init__(self, context: jt.Var):
        self.told = Told(context)

    def at(self, position: int) -> Told:
        return self.told


@dataclass(frozen=True)
class Strand:
    """One part of AND of one picture: its stages, which row each has, and the rows' contexts
    (rows, tokens, dim)."""

    weight: float
    stages: tuple[Stage, ...]
    rows: tuple[int, ...]
    contexts: jt.Var

    def row(self, position: int) -> int:
        return self.rows[stage_at(self.stages, position)]


class Scheduled(Conditioning):
    """Strands of one picture or several."""

    def __init__(self, strands: Sequence[Sequence[Strand]]):
        """strands: those of every picture."""
        tokens = max(s.contexts.shape[1] for own in strands for s in own)
        self.strands = [s for own in strands for s in own]
        self._contexts = [lengthened(s.contexts, tokens) for s in self.strands]
        self.composed = any(len(own) > 1 or own[0].weight != 1.0 for own in strands)
        self.changes = any(len(set(s.rows)) > 1 for s in self.strands)
        self._pictures = tuple(i for i, own in enumerate(strands) for _ in own)
        self._weights = tuple(s.weight for s in self.strands)
        self._kept: dict[Hashable, Told] = {}

    def key(self, position: int) -> tuple[int, ...]:
        return tuple(s.row(position) for s in self.strands)

    def at(self, position: int) -> Told:
        key = self.key(position)
        if key not in self._kept:
            rows = [context[i : i + 1] for i, context in zip(key, self._contexts, strict=True)]
            context = rows[0] if len(rows) == 1 else jt.concat(rows)
            whose = (self._pictures, self._weights) if self.composed else (None, None)
            self._kept[key] = Told(context, *whose)
        return self._kept[key]


def as_conditioning(context: jt.Var | Conditioning) -> Conditioning:
    return context if isinstance(context, Conditioning) else Fixed(context)


def condition(
    sd: StableDiffusion,
    prompts: Sequence[str],
    steps: int,
    clip_skip: int = 1,
    negative: bool = False,
) -> Scheduled:
    """What pictures of these prompts are told over that many steps.

    Raises PromptError for a prompt that cannot be read, ValueError for a layer that is not there.
    """
    known: dict[str, list[Strand]] = {}
    with jt.no_grad():
        for text in prompts:
            if text not in known:
                parts = parse(text, negative)
                known[text] = [_strand(sd, part, steps, clip_skip) for part in parts]
    return Scheduled([known[text] for text in prompts])


def _strand(sd: StableDiffusion, part: Part, steps: int, clip_skip: int) -> Strand:
    stages = schedule(part, steps)
    texts = list(dict.fromkeys(stage.said for stage in stages))
    rows = tuple(texts.index(stage.said) for stage in stages)
    counts = [rows.count(i) for i in range(len(texts))]
    contexts = encode(sd.text_encoder, sd.tokenizer, texts, counts, clip_skip)
    return Strand(part.weight, stages, rows, contexts)
