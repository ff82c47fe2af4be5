"""What a worker is told about the search of one style. Can be pickled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jstyle.methods import DEFAULT

from .config import ContestConfig
from .judging import JudgeConfig
from .plans import NONE
from .task import Task

FOUND = "found.json"
TRIALS, SECONDS, WORK, RUNS = "trials", "seconds", "work", "runs"


@dataclass(frozen=True)
class Budget:
    """How much one style may take: trials, seconds, or work in evaluations of the network."""

    amount: float
    kind: str = TRIALS


@dataclass(frozen=True)
class Search:
    """How a style is searched. candidates and counts: how many seeds and saved counts every prompt
    has to choose from. methods: of refine, beside the configuration's own. words: prompt -> other
    words for it."""

    budget: Budget
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    trainings: int = 2
    candidates: int = 4
    counts: int = 2
    methods: tuple[str, ...] = (NONE, DEFAULT)
    words: Mapping[str, list[str]] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class SearchTask(Task):
    """A style to be searched. searched and held: other prompts than the style's own, for the trials
    and for what none of them may see. among: the words that recognition chooses among."""

    config: ContestConfig
    search: Search
    searched: tuple[str, ...]
    held: tuple[str, ...]
    among: tuple[str, ...]

    @property
    def found(self) -> Path:
        """The file that tells what the search came to."""
        return self.setup.out.style(self.name) / FOUND
