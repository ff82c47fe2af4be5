"""Who says which pictures are better, while there is no leaderboard to ask.

The contest's score is a part for the style times a part for the content. With the published weights
of all six metrics both are the contest's own; without them the style's part is HIST, and the
content's is how well the untrained model recognises the prompt. Loads no backbone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jstyle.sd.limits import PER_PICTURE, require_whole

from ..recipe import PLACE

SCORE, FULL, HIST, RECOGNISED = BY = ("score", "full", "hist", "recognised")
TOLD = {
    FULL: "the contest's formula with the published weights",
    SCORE: "HIST times recognition by the untrained model",
    HIST: "HIST alone",
    RECOGNISED: "recognition by the untrained model alone",
}


@dataclass(frozen=True)
class JudgeConfig:
    """How pictures are judged.

    Args:
        by: "score": the contest's formula where all its weights are there, else HIST times the
            recognition by the untrained model; "full": the formula or nothing; "hist" or
            "recognised": one of these two alone.
        draws: Noises per picture and text, for what the untrained model takes a picture for.
        seed: Of these noises.
        ask: What the untrained model is asked, with {prompt}.

    Raises ValueError naming the option, its value and what is allowed.
    """

    by: str = SCORE
    draws: int = 4
    seed: int = 0
    ask: str = f"a {PLACE}"

    def __post_init__(self):
        if self.by not in BY:
            raise ValueError(f"by must be one of {', '.join(BY)}, got {self.by!r}")
        require_whole("draws", self.draws, 1, PER_PICTURE)
        require_whole("seed", self.seed, 0, 2**31)
        if PLACE not in self.ask:
            raise ValueError(f"ask must contain {PLACE}, got {self.ask!r}")


class Judged(NamedTuple):
    """Pictures with their two parts, each (N,); parts: name -> (N,) of what they are made of."""

    style: np.ndarray
    content: np.ndarray
    parts: dict[str, np.ndarray]

    @property
    def value(self) -> float:
        """Of all of them: the product of the means, as the contest's score is built."""
        return float(self.style.mean() * self.content.mean())

    @property
    def gains(self) -> np.ndarray:
        """What each picture adds to that product, (N,): the formula's derivative at the means."""
        return self.style * self.content.mean() + self.content * self.style.mean()


def join(parts: list[Judged]) -> Judged:
    """Several sets as one."""
    names = parts[0].parts
    return Judged(
        np.concatenate([one.style for one in parts]),
        np.concatenate([one.content for one in parts]),
        {name: np.concatenate([one.parts[name] for one in parts]) for name in names},
    )


def settled(cfg: JudgeConfig) -> tuple[str, list]:
    """Which of TOLD judges here, and what names its weights; none for the others.

    Raises MissingWeights for "full" without all of them.
    """
    if cfg.by not in (SCORE, FULL):
        return cfg.by, []
    from jstyle.score.cache import fingerprint
    from jstyle.score.run import Settings, prepare
    from jstyle.score.weights import MissingWeights

    ready, missing = prepare(Settings())
    if missing and cfg.by == FULL:
        raise MissingWeights("by full: " + "; ".join(f"{m} {why}" for m, why in missing.items()))
    if missing:
        return SCORE, []
    return FULL, [[one.name, [fingerprint(path) for path in one.files]] for one in ready]
