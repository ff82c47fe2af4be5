"""The judge at work: pictures of one style -> their parts of the score. See judging.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jstyle.score import histogram
from jstyle.score.layout import Contest, Style
from jstyle.score.pictures import read_rgb
from jstyle.score.total import content_part, style_part
from jstyle.sd import image

from ..captions import subject
from ..recipe import PLACE
from .judging import FULL, HIST, RECOGNISED, JudgeConfig, Judged, settled

if TYPE_CHECKING:
    from jstyle.sd.pipeline import StableDiffusion


def words_of(style: Style, more: Sequence[str] = ()) -> list[str]:
    """What the untrained model chooses among: prompts, what references show, and `more`."""
    shown = [subject(path) for path in style.references]
    words = {word.casefold(): word for word in reversed([*style.prompts, *more, *shown])}
    return sorted(words.values(), key=str.casefold)


def judge(
    sd: StableDiffusion,
    style: Style,
    paths: Sequence[Path],
    prompts: Sequence[str],
    words: Sequence[str],
    cfg: JudgeConfig,
    advance: Callable[[], None] = lambda: None,
) -> Judged:
    """Judge pictures of one style. sd: the untrained model; prompts: one for each picture, all of
    them among `words`. advance() is called once per picture and draw."""
    by, _ = settled(cfg)
    if by == FULL:
        return _by_formula(style, paths, prompts)
    ones = np.ones(len(paths))
    parts = {}
    if by != RECOGNISED:
        parts["hist"] = _hist(paths, style.references)
    if by != HIST:
        parts["recognised"] = _recognised(sd, paths, prompts, words, cfg, advance)
    return Judged(parts.get("hist", ones), parts.get("recognised", ones), parts)


def _hist(paths: Sequence[Path], references: Sequence[Path]) -> np.ndarray:
    """HIST of every picture on its own; their mean is that of the style."""
    metric = histogram.Histogram()
    theirs = np.stack([metric.of(read_rgb(path)) for path in references])
    return np.array([histogram.style_score(metric.of(read_rgb(p))[None], theirs) for p in paths])


def _recognised(sd, paths, prompts, words, cfg: JudgeConfig, advance) -> np.ndarray:
    from ..pick import explain

    texts = [cfg.ask.replace(PLACE, word.lower()) for word in words]
    places = {word.casefold(): i for i, word in enumerate(words)}
    own = np.array([places[prompt.casefold()] for prompt in prompts])
    latents = np.concatenate([_latent(sd, path) for path in paths])
    errors = explain(sd, latents, texts, cfg.draws, advance, cfg.seed)
    return certainty(errors, own)


def _latent(sd: StableDiffusion, path: Path) -> np.ndarray:
    from jstyle.sd.startup import jt

    return sd.encode_image(jt.array(image.from_uint8(read_rgb(path)[None]))).numpy()


def certainty(errors: np.ndarray, own: np.ndarray) -> np.ndarray:
    """errors (N, K): how badly each of K texts explains each picture; own (N,): its column ->
    (N,) in [0, 1]: the share of the other texts that explain it worse, squared, so that a picture
    of anything counts a third and not a half."""
    mine = np.take_along_axis(errors, own[:, None], 1)
    worse = (errors > mine).sum(1) / max(1, errors.shape[1] - 1)
    return worse**2


def _by_formula(style: Style, paths: Sequence[Path], prompts: Sequence[str]) -> Judged:
    """The six metrics, with every picture as a style of its own; FID is of all of them."""
    from jstyle.score.cache import FeatureCache, default_folder
    from jstyle.score.run import Settings, compute, prepare
    from jstyle.score.scorers import Pictures

    class OneByOne(Pictures):
        def generated(self, style: Style) -> list[Path]:
            return [paths[int(style.name)]]

    each = [Style(str(i), style.references, (prompt,)) for i, prompt in enumerate(prompts)]
    contest = Contest(Path(), tuple(each))
    pictures = OneByOne(contest, Path(), FeatureCache(default_folder()))
    parts = {}
    for one in prepare(Settings())[0]:
        found = compute(one, False, pictures)
        values = [found.styles.get(s.name, found.total) for s in each]
        parts[one.name] = np.array(values, float)
    rows = [{name: float(values[i]) for name, values in parts.items()} for i in range(len(paths))]
    looks = [style_part(row["dino"], row["hist"], row["lpips"]) for row in rows]
    shows = [content_part(row["clip_r"], row["fid"], row["clip_iqa"]) for row in rows]
    return Judged(np.array(looks), np.array(shows), parts)
