"""When a run has learned enough, and when too much: the rule of `jdreambooth pick`, its table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from jstyle.sd.limits import PER_PICTURE, require_whole
from jstyle.sd.samplers.options import FIELDS, Sampling

from .recipe import PLACE, Recipe

RECOGNISES = 0.5  # share of its own pictures that a model must recognise to be asked about others
LEAST_DIVERSITY = 0.2  # diversity before training, below which nothing is left to lose
HARDLY = 0.9  # of the style distance before training: next to nothing is learned
STYLE, SCORE = "style", "score"


@dataclass(frozen=True)
class PickConfig(Sampling):
    """What is painted for the measures, and when a saved count is healthy.

    Args:
        seeds: Pictures per prompt, at least 2.
        seed: Of the first of them; the others count on.
        template: What is made of a prompt, such as "{prompt} in style_05".
        draws: Noise draws per picture and text, for what the untrained model takes it for.
        least_recognised: Of the pictures recognised before training, this share must stay so.
        least_diversity: Of the diversity before training, this share must be left.
        most_copies: Share of the pictures that may be copies of training pictures.
        by: What healthy counts compete in: "style", the distance to the references, or "score", a
            stand-in for a contest's score: HIST times the share of pictures that are recognised.
        style_margin: A smaller count wins if its style distance is higher by this at most; by
            score, if it lacks at most this share of the highest.

    Raises ValueError naming the option, its value and what is allowed.
    """

    steps: int = 25
    seeds: int = 2
    seed: int = 0
    template: str = PLACE
    draws: int = 4
    least_recognised: float = 0.7
    least_diversity: float = 0.6
    most_copies: float = 0.2
    by: str = STYLE
    style_margin: float = 0.05

    def __post_init__(self):
        super().__post_init__()
        require_whole("seeds", self.seeds, 2, PER_PICTURE)
        require_whole("draws", self.draws, 1, PER_PICTURE)
        for name in ("least_recognised", "least_diversity", "most_copies", "style_margin"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if self.by not in (STYLE, SCORE):
            raise ValueError(f"by must be {STYLE} or {SCORE}, got {self.by!r}")
        self.recipe()

    def recipe(self) -> Recipe:
        how = {name: getattr(self, name) for name in FIELDS}
        return Recipe(seed=self.seed, template=self.template, **how)


@dataclass(frozen=True)
class Measured:
    """One saved count (step 0: before training). `colour` and `texture` are style distances to the
    references; own and training: shares taken for their prompt, for a training caption; hist: the
    contest's agreement of colours with the references, at most 1."""

    step: int
    colour: float
    texture: float
    own: float
    training: float
    diversity: float
    nearest: float
    copied: float
    hist: float


class Verdict(NamedTuple):
    """step: the recommended count, or None. style: step -> style distance in parts of that before
    training. collapsed: step -> why, for the counts that are not healthy. note: for the user."""

    step: int | None
    style: dict[int, float]
    collapsed: dict[int, list[str]]
    note: str


def judge(measured: list[Measured], cfg: PickConfig) -> Verdict:
    """Recommend the best healthy count: the nearest to the style, or the one that scores most.

    measured[0] is the model before training. A count is healthy if enough of its pictures are still
    recognised, if prompts still differ enough, and if few pictures are copies. Of those within
    style_margin of the best the smallest wins. Style distance is the mean of colour and texture,
    each in parts of its value before training. Recognition is left out where the untrained model
    does not recognise its own pictures.
    """
    before, *counts = measured
    style = {
        row.step: (_part(row.colour, before.colour) + _part(row.texture, before.texture)) / 2
        for row in measured
    }
    reasons = {row.step: _reasons(row, before, cfg) for row in counts}
    collapsed = {step: why for step, why in reasons.items() if why}
    healthy = [row for row in counts if row.step not in collapsed]
    notes = _doubts(before)
    if not healthy:
        notes.insert(0, f"all counts have collapsed; save below {counts[0].step}")
        return Verdict(None, style, collapsed, "; ".join(notes))
    if cfg.by == SCORE:
        step, hardly = _highest_score(healthy, before, cfg.style_margin)
    else:
        best = min(style[row.step] for row in healthy)
        step = min(r.step for r in healthy if style[r.step] <= best + cfg.style_margin)
        hardly = style[step] > HARDLY
    if hardly:
        notes.insert(0, "the style is hardly learned yet; train for more steps")
    elif step == max(row.step for row in counts) and len(counts) > 1:
        notes.insert(0, "the last count is the best; more steps may be better still")
    return Verdict(step, style, collapsed, "; ".join(notes))


def _highest_score(healthy: list[Measured], before: Measured, margin: float) -> tuple[int, bool]:
    """The count to recommend by score, and whether even that has no more colours than before."""
    asked = before.own >= RECOGNISES
    score = {row.step: row.hist * (row.own if asked else 1.0) for row in healthy}
    best = max(score.values())
    step = min(s for s, value in score.items() if value >= best - margin * abs(best))
    return step, next(row.hist for row in healthy if row.step == step) <= before.hist


def _doubts(before: Measured) -> list[str]:
    """What the model before training cannot serve as a scale for."""
    if before.diversity < LEAST_DIVERSITY:
        return ["the prompts hardly mattered before training either; give some the model knows"]
    if before.own < RECOGNISES:
        return [f"recognition is left out: {before.own:.0%} of the untrained pictures have it"]
    return []


def _part(value: float, before: float) -> float:
    return value / before if before > 1e-9 else 1.0


def _reasons(row: Measured, before: Measured, cfg: PickConfig) -> list[str]:
    why = []
    if before.own >= RECOGNISES and row.own < cfg.least_recognised * before.own:
        drawn = f", {row.training:.0%} look like training captions" if row.training > 0 else ""
        why.append(f"only {row.own:.0%} show what was asked for{drawn}")
    if row.diversity < cfg.least_diversity * before.diversity:
        why.append("prompts give the same picture")
    if row.copied > cfg.most_copies:  # nan, for one training picture, is no reason
        why.append(f"{row.copied:.0%} are copies of training pictures")
    return why


def table(measured: list[Measured], verdict: Verdict) -> str:
    """The measures of every count as lines of text, and the recommendation."""
    heads = ("step", "style", "colour", "texture", "recognised", "as trained", "diversity")
    heads += ("nearest", "copies", "HIST")
    lines = ["  ".join(f"{head:>{max(6, len(head))}}" for head in heads)]
    for row in measured:
        cells = (str(row.step), f"{verdict.style[row.step]:.2f}", f"{row.colour:.3f}")
        cells += (f"{row.texture:.3f}", f"{row.own:.0%}", f"{row.training:.0%}")
        copies = "-" if math.isnan(row.copied) else f"{row.copied:.0%}"
        cells += (f"{row.diversity:.2f}", f"{row.nearest:.2f}", copies, f"{row.hist:.3f}")
        text = "  ".join(f"{c:>{max(6, len(h))}}" for c, h in zip(cells, heads, strict=True))
        why = "; ".join(verdict.collapsed.get(row.step, ()))
        mark = "untrained" if row is measured[0] else f"collapsed: {why}" if why else ""
        mark = "<- recommended" if row.step == verdict.step else mark
        lines.append(f"{text}  {mark}".rstrip())
    last = "no count is recommended" if verdict.step is None else f"recommended: {verdict.step}"
    return "\n".join([*lines, last + (f" ({verdict.note})" if verdict.note else "")])
