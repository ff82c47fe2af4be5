"""Each metric as a score of a contest: what it needs, how it is made, how features become scores.

Nothing here imports Jittor, or a network, before a metric is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import histogram
from .cache import FeatureCache, features_of, fingerprint, identity
from .layout import Contest, Style, result_path

WORDS = "clip_r_prompts.txt"  # where the list of CLIP_R is looked for among the weights


class Scores(NamedTuple):
    """`styles`: style -> value, {} for a metric that knows no single styles."""

    total: float
    styles: dict[str, float]


@dataclass
class Pictures:
    """A contest's pictures, and where to keep what is known of them.

    done: told how many more pictures a metric has finished.
    """

    contest: Contest
    result: Path
    cache: FeatureCache
    done: Callable[[int], object] = field(default=lambda count: None)

    def generated(self, style: Style) -> list[Path]:
        return [result_path(self.result, style.name, prompt) for prompt in style.prompts]

    @property
    def all_generated(self) -> list[Path]:
        return [path for style in self.contest.styles for path in self.generated(style)]

    @property
    def all_references(self) -> list[Path]:
        return [path for style in self.contest.styles for path in style.references]


class Metric:
    """A metric that is made when features are first needed that the cache does not have."""

    def __init__(self, name: str, make: Callable, files: Sequence[Path], pictures: Pictures, *more):
        """name: of the features, which two metrics may share. more: what else they depend on."""
        self.key = f"{name}-{identity(name, [fingerprint(path) for path in files], *more)}"
        self.pictures = pictures
        self._make = make
        self._made = None

    @property
    def made(self) -> Any:
        if self._made is None:
            self._made = self._make()
        return self._made

    def of(self, paths: Sequence[Path]) -> np.ndarray:
        """float32 (len(paths), ...)"""
        return self.cached(paths, lambda batch: self.made.features(batch), self.key)

    def cached(self, paths: Sequence[Path], compute: Callable, key: str) -> np.ndarray:
        return features_of(paths, compute, self.pictures.cache, key, self.pictures.done)


class Scorer(NamedTuple):
    """home: where the metric's class is. needs: names of weights, which it takes in this order.
    score: of its features. features: their name where another metric has the same ones."""

    home: str
    needs: tuple[str, ...]
    score: Callable[[Metric, Pictures], Scores]
    features: str | None = None
    references: bool = True  # are read as well
    corrects: bool = False  # differs with --corrected
    words: bool = False  # needs CLIP_R's word list

    def make(self, files: Sequence[Path], corrected: bool, words: Sequence[str]) -> Any:
        """The metric, with its network loaded."""
        module, name = self.home.split(":")
        more: dict[str, Any] = {"corrected": corrected} if self.corrects else {}
        more |= {"words": words} if self.words else {}
        return getattr(import_module(module, __package__), name)(*files, **more)


# ---- how features become scores


def _styles(pictures: Pictures, score_of: Callable[[Style], float]) -> Scores:
    """A value for every style, and their mean."""
    styles = {style.name: float(score_of(style)) for style in pictures.contest.styles}
    return Scores(float(np.mean(list(styles.values()))), styles)


def _with_references(style_score: Callable) -> Callable[[Metric, Pictures], Scores]:
    """style_score(generated, references) of a style's features."""

    def score(metric: Metric, pictures: Pictures) -> Scores:
        def of_style(style: Style) -> float:
            return style_score(metric.of(pictures.generated(style)), metric.of(style.references))

        return _styles(pictures, of_style)

    return score


def _hist(metric: Metric, pictures: Pictures) -> Scores:
    return _with_references(histogram.style_score)(metric, pictures)


def _cosines(metric: Metric, pictures: Pictures) -> Scores:
    from .metrics.cosine import mean_pairwise

    return _with_references(mean_pairwise)(metric, pictures)


def _lpips(metric: Metric, pictures: Pictures) -> Scores:
    """Features are too large to be kept; the distances to the style's references are."""
    from .metrics.lpips import distances

    def of_style(style: Style) -> float:
        contents = [pictures.cache.content(path) for path in style.references]
        known: list[np.ndarray] = []

        def to_references(batch: np.ndarray) -> np.ndarray:
            if not known:
                known.extend(_features_one_by_one(metric, style.references))
            return distances(metric.made.features(batch), known)

        key = f"{metric.key}-{identity(contents)}"
        found = metric.cached(pictures.generated(style), to_references, key)
        pictures.done(len(style.references))
        return found.mean(dtype=np.float64)

    return _styles(pictures, of_style)


def _features_one_by_one(metric: Metric, paths: Sequence[Path]) -> list[np.ndarray]:
    from .pictures import read_rgb

    return [metric.made.features(read_rgb(path)[None])[0] for path in paths]


def _fid(metric: Metric, pictures: Pictures) -> Scores:
    from .metrics.fid import frechet_distance

    references, generated = metric.of(pictures.all_references), metric.of(pictures.all_generated)
    return Scores(frechet_distance(references, generated), {})


def _clip_r(metric: Metric, pictures: Pictures) -> Scores:
    from .metrics.clip_r import label_of, recall

    hits = {}
    for style in pictures.contest.styles:
        labels = [label_of(prompt) for prompt in style.prompts]
        hits[style.name] = metric.made.hits(metric.of(pictures.generated(style)), labels)
    return Scores(recall(list(hits.values())), {k: float(v.mean()) for k, v in hits.items()})


def _clip_iqa(metric: Metric, pictures: Pictures) -> Scores:
    return _styles(
        pictures,
        lambda style: metric.made.quality(metric.of(pictures.generated(style))).mean(),
    )


def _clip_t(metric: Metric, pictures: Pictures) -> Scores:
    from .metrics.dreambooth import text_score

    def of_style(style: Style) -> float:
        texts = metric.made.texts(style.prompts)
        return text_score(metric.of(pictures.generated(style)), texts)

    return _styles(pictures, of_style)


LARGE, SMALL = ("clip-vit-large-patch14",), ("clip-vit-base-patch32",)
SCORERS = {
    "dino": Scorer(".metrics.dino:Dino", ("dinov2-base",), _cosines),
    "hist": Scorer(".histogram:Histogram", (), _hist, corrects=True),
    "lpips": Scorer(".metrics.lpips:Lpips", ("squeezenet1_1", "lpips-squeeze"), _lpips),
    "fid": Scorer(".metrics.fid:Fid", ("inception",), _fid),
    "clip_r": Scorer(".metrics.clip_r:ClipRecall", LARGE, _clip_r, references=False, words=True),
    "clip_iqa": Scorer(
        ".metrics.clip_iqa:ClipIqa", ("clip-rn50",), _clip_iqa, references=False, corrects=True
    ),
    "dino_vits16": Scorer(".metrics.dreambooth:DinoSubject", ("dino-vits16",), _cosines),
    "clip_i": Scorer(".metrics.dreambooth:ClipImage", SMALL, _cosines),
    "clip_t": Scorer(
        ".metrics.dreambooth:ClipText", SMALL, _clip_t, features="clip_i", references=False
    ),
}
