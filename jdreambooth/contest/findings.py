"""What the folder of a contest run holds, style by style, for people to look at. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jstyle.score.histogram import hist_scores
from jstyle.score.layout import Contest, ContestError, Style, read_contest
from jstyle.score.total import METRICS
from jstyle.sd import image
from jstyle.sd.files import InputError
from jstyle.sd.reading import read_object

from ..pick import RECORD as PICKED
from ..plots import read_metrics
from ..runs import METRICS as LOSSES
from .folders import Out, Record
from .manifest import read_manifest

TOTAL = "total"


class ScoresError(ValueError):
    """A file that is not what `jstyle score --json` writes; one line."""


@dataclass(frozen=True)
class Picture:
    """One prompt. path: the picture as it stands in the last stage, None if there is none yet;
    before: the one that was refined into it. text and seed: what it was painted from."""

    prompt: str
    path: Path | None = None
    before: Path | None = None
    text: str = ""
    seed: int | None = None


@dataclass(frozen=True)
class Found:
    """One style. losses: name -> values over the steps. picked: pick.json, with the count that was
    used as "used". scores: metric -> value. style_image: of the refinement."""

    style: Style
    pictures: tuple[Picture, ...]
    losses: Mapping[str, np.ndarray] = field(default_factory=dict)
    saved: tuple[int, ...] = ()
    picked: Mapping = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    style_image: str | None = None

    @property
    def made(self) -> int:
        return sum(picture.path is not None for picture in self.pictures)


def collect(record: Record, scores: Mapping | None = None) -> list[Found]:
    """Every style that the run has begun, by name, with the scores of `read_scores`.

    Without those, HIST is computed for the styles that are finished. Raises ContestError if the
    contest's own folder cannot be read.
    """
    begun = {path.name for path in record.out.style("-").parent.glob("*") if path.is_dir()}
    contest = read_contest(record.root)
    return [
        _find(record, contest, style, scores) for style in contest.styles if style.name in begun
    ]


def _find(record: Record, contest: Contest, style: Style, scores: Mapping | None) -> Found:
    out, options = record.out, record.config.style(style.name)
    stages = ("generate",) if options.refine is None else ("refine", "generate")
    pictures = tuple(_picture(out, style.name, prompt, stages) for prompt in style.prompts)
    refined = read_manifest(out.stage(style.name, "refine")) if options.refine else None
    trained = options.train is not None
    return Found(
        style,
        pictures,
        _losses(out.stage(style.name, "train") / LOSSES) if trained else {},
        tuple(options.train.save_steps) if trained else (),
        _pick(out.stage(style.name, "pick")) if options.pick is not None else {},
        _hist(contest, style, out) if scores is None else scores["styles"].get(style.name, {}),
        refined.facts.get("style_image") if refined is not None else None,
    )


def _picture(out: Out, style: str, prompt: str, stages: tuple[str, ...]) -> Picture:
    paths = [out.stage(style, stage) / f"{prompt}.png" for stage in stages]
    there = [path for path in paths if path.is_file()]
    if not there:
        return Picture(prompt)
    about = image.recorded_in(there[0])
    before = there[1] if len(there) > 1 else None
    return Picture(prompt, there[0], before, about.get("text", ""), about.get("seed"))


def _losses(path: Path) -> dict[str, np.ndarray]:
    try:
        return read_metrics(path)
    except (OSError, ValueError):  # not begun
        return {}


def _pick(folder: Path) -> dict:
    manifest = read_manifest(folder)
    if manifest is None or not manifest.done:
        return {}
    found = read_object(folder / PICKED)
    return {**found, "used": manifest.facts["step"]}


def _hist(contest: Contest, style: Style, out: Out) -> dict[str, float]:
    """HIST needs neither weights nor time; {} while pictures are missing or cannot be read."""
    try:
        return {"hist": hist_scores(Contest(contest.root, (style,)), out.result)[style.name]}
    except ContestError:
        return {}


def read_scores(path: str | Path) -> dict:
    """What `jstyle score --json` wrote: {"total", metric, ..., "styles": {name: {metric}}}.

    Raises ScoresError.
    """
    try:
        found = read_object(path)
        for values in (found, *found["styles"].values()):
            for name in (TOTAL, *METRICS):
                if values.get(name) is not None:
                    float(values[name])
    except InputError as error:
        raise ScoresError(str(error)) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ScoresError(f"{path}: is not what `jstyle score --json` writes") from None
    return found
