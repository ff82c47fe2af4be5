"""What the folder of a contest run holds, style by style, for people to look at. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from jstyle.score.layout import ContestError, Style, read_contest
from jstyle.score.total import METRICS
from jstyle.sd import image
from jstyle.sd.files import InputError
from jstyle.sd.reading import read_object

from ..pick import RECORD as PICKED
from ..plots import read_metrics
from ..runs import METRICS as LOSSES
from .chosen import plan_of
from .closeness import Close, Yardstick
from .folders import Out, Record
from .manifest import read_manifest

TOTAL = "total"
CHOOSE, CHOICE = "choose", "choice.json"  # the stage that takes the best of several candidates


class ScoresError(ValueError):
    """A file that is not what `jstyle score --json` writes; one line."""


@dataclass(frozen=True)
class Candidate:
    """One of several pictures of a prompt. scores: name -> what the judge gave it."""

    path: Path
    seed: int | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    chosen: bool = False


@dataclass(frozen=True)
class Picture:
    """One prompt. path: the picture as it stands in the last stage, None if there is none yet;
    before: the one that was refined into it; last: whether it is of the last stage. text and seed:
    what it was painted from. close: how it stands to the references. candidates: those it was taken
    from, and why it was."""

    prompt: str
    path: Path | None = None
    before: Path | None = None
    last: bool = False
    text: str = ""
    seed: int | None = None
    close: Close | None = None
    candidates: tuple[Candidate, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Found:
    """One style. losses: name -> values over the steps. picked: pick.json, with the count that was
    used as "used". scores: metric -> value. style_image: of the refinement. plan: section of the
    configuration -> what it says, and why, where the machine chose."""

    style: Style
    pictures: tuple[Picture, ...]
    losses: Mapping[str, np.ndarray] = field(default_factory=dict)
    saved: tuple[int, ...] = ()
    picked: Mapping = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    style_image: str | None = None
    plan: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def made(self) -> int:
        return sum(picture.path is not None for picture in self.pictures)

    @property
    def copies(self) -> int:
        """How many pictures may be copies of a reference."""
        return sum(picture.close is not None and picture.close.copied for picture in self.pictures)


def collect(record: Record, scores: Mapping | None = None) -> list[Found]:
    """Every style that the run has begun, by name, with the scores of `read_scores`.

    Without those, HIST is computed for the styles that are finished. Raises ContestError if the
    contest's own folder cannot be read.
    """
    begun = {path.name for path in record.out.style("-").parent.glob("*") if path.is_dir()}
    contest = read_contest(record.root)
    return [_find(record, style, scores) for style in contest.styles if style.name in begun]


def _find(record: Record, style: Style, scores: Mapping | None) -> Found:
    out, options = record.out, record.config.style(style.name)
    used = {"refine": options.refines, CHOOSE: options.choose is not None}
    stages = [*(stage for stage in (CHOOSE, "refine") if used[stage]), "generate"]
    pictures = _pictures(out, style, stages)
    refined = read_manifest(out.stage(style.name, "refine")) if options.refines else None
    trained = options.train is not None
    picked = _pick(out.stage(style.name, "pick")) if options.pick is not None else {}
    return Found(
        style,
        pictures,
        _losses(out.stage(style.name, "train") / LOSSES) if trained else {},
        tuple(options.train.save_steps) if trained else (),
        picked,
        _hist(pictures) if scores is None else scores["styles"].get(style.name, {}),
        refined.facts.get("style_image") if refined is not None else None,
        plan_of(options, picked),
    )


def _pictures(out: Out, style: Style, stages: list[str]) -> tuple[Picture, ...]:
    """stages: that make pictures, the last one first."""
    choices = _choices(out.stage(style.name, CHOOSE)) if CHOOSE in stages else {}
    made = [stage for stage in stages if stage != CHOOSE]
    try:
        yardstick = Yardstick(style.references)
    except ContestError:
        yardstick = None
    found = []
    for prompt in style.prompts:
        candidates, why = _candidates(out.stage(style.name, made[0]), choices.get(prompt))
        chosen = next((one.path.name for one in candidates if one.chosen), None)
        inside = {stage: f"{prompt}.png" for stage in stages}
        if chosen is not None:  # the stages before have it among the candidates
            inside |= {stage: f"{prompt}/{chosen}" for stage in made}
        paths = {stage: out.stage(style.name, stage) / name for stage, name in inside.items()}
        picture = _picture(prompt, paths, yardstick)
        found.append(replace(picture, candidates=candidates, why=why))
    return tuple(found)


def _picture(prompt: str, paths: dict[str, Path], yardstick: Yardstick | None) -> Picture:
    """paths: stage -> where its picture is, the last stage first."""
    there = [path for path in paths.values() if path.is_file()]
    if not there:
        return Picture(prompt)
    shown, about = there[0], image.recorded_in(there[0])
    before = paths["generate"] if "refine" in paths and shown != paths["generate"] else None
    return Picture(
        prompt,
        shown,
        before if before in there else None,
        shown == next(iter(paths.values())),
        str(about.get("text", "")),
        about.get("seed"),
        yardstick.close(shown) if yardstick is not None else None,
    )


def _choices(folder: Path) -> Mapping:
    """prompt -> its candidates and why one was taken, as choice.json has them; {} without one."""
    try:
        found = read_object(folder / CHOICE).get("prompts")
    except InputError:
        return {}
    return found if isinstance(found, dict) else {}


def _candidates(folder: Path, choice: object) -> tuple[tuple[Candidate, ...], str]:
    """Those whose pictures are there."""
    rows = choice.get("candidates") if isinstance(choice, dict) else None
    found = []
    for row in rows if isinstance(rows, list) else ():
        path = folder / str(row.get("file")) if isinstance(row, dict) else folder
        if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
            scores = {name: v for name, v in row.items() if isinstance(v, float)}
            found.append(Candidate(path, row.get("seed"), scores, row.get("chosen") is True))
    why = choice.get("why") if isinstance(choice, dict) else None
    return tuple(found), why if isinstance(why, str) else ""


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


def _hist(pictures: tuple[Picture, ...]) -> dict[str, float]:
    """HIST of a style, the mean of its pictures'; {} while some are missing or cannot be read."""
    if not all(picture.last and picture.close is not None for picture in pictures):
        return {}
    return {"hist": float(np.mean([picture.close.hist for picture in pictures]))}


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
