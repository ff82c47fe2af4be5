"""Score a submission: which metrics can be computed, one after the other, and the report."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..sd.files import writable_folder
from ..sd.progress import progress_of
from .cache import FeatureCache
from .layout import Contest, check_result, raise_problems
from .scorers import SCORERS, WORDS, Metric, Pictures, Scores
from .total import ARTFID, METRICS, PROTOCOLS, total
from .weights import MissingWeights, default_folder, locate_all


class MetricError(ValueError):
    """Metrics that do not exist; one line."""


@dataclass(frozen=True)
class Settings:
    """weights: the folder of the published files. words: CLIP_R's list, or None for the one among
    the weights, else the organiser's, which is shipped. cache: the folder of features, None keeps
    none."""

    metrics: tuple[str, ...] = METRICS
    corrected: bool = False
    weights: Path = field(default_factory=default_folder)
    words: Path | None = None
    cache: Path | None = None
    device: str = "auto"


@dataclass(frozen=True)
class Ready:
    """A metric that can be computed, with its weights' files and its words."""

    name: str
    files: tuple[Path, ...]
    words: tuple[str, ...] = ()


def choose(metrics: str | None, protocol: str = "contest") -> tuple[str, ...]:
    """The metrics of a protocol, or those named: "hist,dino". Raises MetricError."""
    if protocol not in PROTOCOLS:
        allowed = ", ".join((*PROTOCOLS, ARTFID))
        raise MetricError(f"protocol must be one of {allowed}, got {protocol!r}")
    if metrics is None:
        return PROTOCOLS[protocol]
    names = tuple(dict.fromkeys(name.strip() for name in metrics.split(",")))
    odd = [name for name in names if name not in PROTOCOLS[protocol]]
    if odd:
        allowed = ", ".join(PROTOCOLS[protocol])
        raise MetricError(f"no metric {odd[0]!r} in {protocol}; there are {allowed}")
    return names


def score(
    contest: Contest, result: str | os.PathLike, settings: Settings, bar: Callable | None = None
) -> dict:
    """The report on a submission: a value or None for each metric, the total, what is missing.

    bar(total) makes a progress bar that counts pictures. Raises ContestError with every problem of
    the submission, and what reading damaged weights raises.
    """
    raise_problems(str(result), check_result(result, contest))
    return Judge(contest, settings).score(result, bar)


class Judge:
    """Scores submissions to one contest, which have been checked, one after the other.

    keep: networks stay loaded from one submission to the next; otherwise each is gone when its
    metric is done. Raises WriteError or TargetError for a cache that cannot be written.
    """

    def __init__(self, contest: Contest, settings: Settings, keep: bool = False):
        self.contest, self.settings = contest, settings
        if settings.cache is not None:
            writable_folder(settings.cache)
        self.ready, self.missing = prepare(settings)
        self._kept: dict[str, Any] | None = {} if keep else None

    @property
    def needs_device(self) -> bool:
        return any(SCORERS[one.name].needs for one in self.ready)

    def load(self) -> None:
        """Load all networks now, if they are kept. Raises what damaged weights raise."""
        if self._kept is not None:
            with self._device():
                for one in self.ready:
                    make = _maker(one, self.settings.corrected, self._kept)
                    make()

    def score(self, result: str | os.PathLike, bar: Callable | None = None) -> dict:
        """The report on a submission, as `score` gives it."""
        pictures = Pictures(self.contest, Path(result), FeatureCache(self.settings.cache))
        found: dict[str, Scores] = {}
        with self._device(), _progress(bar, self.ready, pictures) as progress:
            pictures.done = progress.update
            for one in self.ready:
                found[one.name] = compute(one, self.settings.corrected, pictures, self._kept)
        return report(self.contest, self.settings, found, self.missing)

    def _device(self) -> AbstractContextManager:
        return on_device(self.settings.device) if self.needs_device else nullcontext()


def prepare(settings: Settings) -> tuple[list[Ready], dict[str, str]]:
    """The metrics that can be computed, and for each of the others what is missing.

    Raises WordsError for a bad word list.
    """
    ready, missing = [], {}
    for name in settings.metrics:
        scorer = SCORERS[name]
        try:
            files = locate_all(scorer.needs, settings.weights)
            words = _words(settings) if scorer.words else ()
        except MissingWeights as error:
            missing[name] = str(error)
        else:
            ready.append(Ready(name, files, words))
    return ready, missing


def _words(settings: Settings) -> tuple[str, ...]:
    from .metrics.clip_r import SHIPPED, read_words

    return read_words(words_file(settings) or SHIPPED)


def words_file(settings: Settings) -> Path | None:
    """The user's own list, given or among the weights; None where there is none."""
    if settings.words is not None:
        return settings.words
    own = settings.weights / WORDS
    return own if own.is_file() else None


def compute(
    ready: Ready, corrected: bool, pictures: Pictures, kept: dict[str, Any] | None = None
) -> Scores:
    """One metric; its network is gone afterwards, or stays in `kept`."""
    scorer = SCORERS[ready.name]
    make = _maker(ready, corrected, kept)
    variant = ["corrected"] if corrected and scorer.corrects else []
    metric = Metric(scorer.features or ready.name, make, ready.files, pictures, *variant)
    return scorer.score(metric, pictures)


def _maker(ready: Ready, corrected: bool, kept: dict[str, Any] | None) -> Callable[[], Any]:
    """make() -> the metric with its network; from `kept`, if it was made before."""

    def make() -> Any:
        if kept is not None and ready.name in kept:
            return kept[ready.name]
        made = SCORERS[ready.name].make(ready.files, corrected, ready.words)
        if kept is not None:
            kept[ready.name] = made
        return made

    return make


def report(
    contest: Contest, settings: Settings, found: dict[str, Scores], missing: dict[str, str]
) -> dict:
    """What --json writes; `why` says of each missing metric what it lacks."""
    values = {name: found[name].total if name in found else None for name in settings.metrics}
    styles: dict[str, dict[str, float]] = {style.name: {} for style in contest.styles}
    for name in found:
        for style, value in found[name].styles.items():
            styles[style][name] = value
    return {
        "total": total(values),
        **values,
        "missing": list(missing),
        "why": missing,
        "corrected": settings.corrected,
        "images": contest.num_prompts,
        "styles": styles,
    }


def on_device(device: str) -> AbstractContextManager:
    """Start Jittor on "cpu", "cuda", or with "auto" on the better that is there."""
    from ..sd import runtime

    return runtime.use(device)


def _progress(bar: Callable | None, ready: Sequence[Ready], pictures: Pictures):
    generated, references = len(pictures.all_generated), len(pictures.all_references)
    total = sum(generated + references * SCORERS[one.name].references for one in ready)
    return progress_of(bar, total)
