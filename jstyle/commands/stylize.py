"""`jstyle stylize`: N contents x M styles, each image inverted once, finished results skipped."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

from .. import __version__
from ..config import RESULTS_TOGETHER
from ..methods import DEFAULT, Method, find_method
from ..sd import hub, image
from ..sd.files import output_folder
from ..sd.limits import TOGETHER, require_whole
from ..sd.number_types import require_dtype
from ..sd.targets import stylized_name
from . import outputs
from .inputs import Model, Picture, Started, find_model, find_pictures, start

log = logging.getLogger("jstyle")


@dataclass(frozen=True)
class Request:
    """What is asked of `stylize`. content, style: a picture or a folder of pictures each; out: a
    folder, or a PNG's name for one result.

    method: a name of METHODS; cfg: its options. batch: results that are sampled together, at most.
    loras: FILE or FILE:WEIGHT each. overwrite: also replace files that are no results of ours, but
    no inputs. Raises ValueError for a batch out of bounds.
    """

    content: str
    style: str
    out: str
    cfg: Any
    method: str = DEFAULT
    batch: int = RESULTS_TOGETHER
    model: str | hub.Source = "tiny"
    loras: Sequence[str] = ()
    device: str = "auto"
    dtype: str = "auto"
    overwrite: bool = False

    def __post_init__(self):
        require_dtype(self.dtype)
        require_whole("batch", self.batch, 1, TOGETHER)


@dataclass(frozen=True)
class Pair:
    """One result to make: which content in which style, where to, and what it depends on."""

    content: Picture
    style: Picture
    out: Path
    key: str


@dataclass
class Summary:
    """What a run did. `seconds` has "start", "load", "inversion" and "sampling"."""

    written: list[Path] = field(default_factory=list)
    skipped: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


def stylize(asked: Request, bar: Callable, tell: Callable[[str], None] = log.info) -> Summary:
    """Stylise every content in every style. `bar(total)` makes a tqdm-like progress bar; tell(line)
    is given a line about each LoRA, and one about where recorded features are kept.

    Raises ImageError, HubError, ConfigError or ValueError before anything is written, OSError if
    the output cannot be. Pictures finished before an error or Ctrl-C stay.
    """
    kind, cfg = find_method(asked.method), asked.cfg
    contents, styles = find_pictures(asked.content), find_pictures(asked.style)
    targets = name_results(contents, styles, asked.out, inputs=(asked.content, asked.style))
    read = [picture.path for picture in (*contents, *styles)]
    outputs.require_free(targets.values(), asked.overwrite, read)
    with output_folder(next(iter(targets.values())).parent):
        found = find_model(asked.model, None, asked.loras, asked.dtype, asked.device)
        pairs = make_pairs(targets, kind, cfg, found)
        todo = [pair for pair in pairs if not outputs.is_finished(pair.out, pair.key)]
        summary = Summary(skipped=len(pairs) - len(todo))
        if todo:
            with start(found, asked.device, tell) as started:
                run_pairs(started, found, todo, kind, cfg, bar, summary, tell, asked.batch)
    return summary


def name_results(
    contents: list[Picture], styles: list[Picture], out: str, inputs: tuple[str, ...] = ()
) -> dict[tuple[Picture, Picture], Path]:
    """Where each pair's result goes: CONTENT_stylized_STYLE.png, or `out` itself if a PNG's name.

    Raises ValueError if a single name is given for several results, if two results would have the
    same name, or if the results would land among the inputs.
    """
    pairs = list(product(contents, styles))
    if outputs.names_file(out):
        if len(pairs) > 1:
            raise ValueError(
                f"{out}: one file name for {len(contents)} contents x {len(styles)} styles; "
                "give a folder"
            )
        return {pairs[0]: Path(out)}
    for folder in inputs:
        if Path(folder).is_dir() and Path(folder).resolve() == Path(out).resolve():
            raise ValueError(f"{out}: is also a folder of inputs; give another folder")
    targets, taken = {}, {}
    for c, s in pairs:
        path = Path(out) / stylized_name(c.path, s.path)
        if path in taken:
            other_c, other_s = taken[path]
            clash = (c, other_c) if c != other_c else (s, other_s)
            raise ValueError(
                f"{clash[1].path} and {clash[0].path} would both give {path}; rename one of them"
            )
        taken[path], targets[c, s] = (c, s), path
    return targets


def make_pairs(targets: dict, method: type[Method], cfg: Any, model: Model) -> list[Pair]:
    """The results to make, each with the hash of all that it depends on."""
    return [
        Pair(c, s, path, result_key(c, s, method, cfg, model)) for (c, s), path in targets.items()
    ]


def result_key(
    content: Picture, style: Picture, method: type[Method], cfg: Any, model: Model
) -> str:
    """A hash of everything that the result depends on: not of where features were kept."""
    settings = method.settings(cfg)
    if method.name != DEFAULT:
        settings["method"] = method.name
    facts = [__version__, content.sha256, style.sha256, settings, model.key]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def run_pairs(
    started: Started,
    model: Model,
    pairs: list[Pair],
    method: type[Method],
    cfg: Any,
    bar: Callable,
    summary: Summary,
    tell: Callable[[str], None] = log.info,
    batch: int = RESULTS_TOGETHER,
) -> None:
    """Make the results of `pairs`, adding to `summary` as they are finished.

    The side with more images is walked through; what was prepared of the other side is kept for all
    its turns, so every image is prepared once and the fewest features are held. Up to `batch`
    results are sampled together: those of one image's turn or, where the other side has only one
    image, of as many turns.
    """
    painter = method(started.sd, scratch=pairs[0].out.parent)
    counts = {role: len({getattr(pair, role) for pair in pairs}) for role in method.roles}
    walked = "content" if counts["content"] >= counts["style"] else "style"
    groups = _groups(pairs, walked, batch)
    cfg = _settled(painter, cfg, groups, {**counts, walked: _most(walked, groups)}, tell)
    times = {"start": started.start_seconds, "load": started.load_seconds}
    summary.seconds = {**times, "inversion": 0.0, "sampling": 0.0}
    costs = method.evaluations(cfg)
    total = sum(costs[role] * count for role, count in counts.items())
    with bar(total + costs["result"] * len(pairs)) as progress:
        prepare = _Prepared(painter, cfg, lambda *_: progress.update(), walked)
        for together in groups:
            progress.set_postfix_str(together[0].out.name, refresh=False)
            sides = prepare(together)
            before, rows = perf_counter(), len(together)
            result = painter.apply(sides, cfg, lambda *_, n=rows: progress.update(n))
            pictures = image.to_uint8(result)
            del sides  # lets go of the walked images' features before the next are recorded
            sampling = (perf_counter() - before) / rows
            for pair, pixels in zip(together, pictures, strict=True):
                seconds = {**times, "inversion": prepare.seconds_of(pair), "sampling": sampling}
                record = _record(pair, method, cfg, model, started, seconds)
                outputs.write_result(pair.out, pixels, record)
                log.info("wrote %s", pair.out)
                summary.written.append(pair.out)
                summary.seconds["sampling"] += sampling
        summary.seconds["inversion"] = sum(prepare.seconds.values())


def _groups(pairs: list[Pair], walked: str, batch: int) -> list[list[Pair]]:
    """The pairs in groups of at most `batch`, ordered so that each image of the walked side has its
    turns in a row."""
    rows: dict[Picture, list[Pair]] = {}
    for pair in pairs:
        rows.setdefault(getattr(pair, walked), []).append(pair)
    turns = list(rows.values())
    if all(len(row) == 1 for row in turns):
        turns = [[pair for row in turns for pair in row]]
    return [row[i : i + batch] for row in turns for i in range(0, len(row), batch)]


def _most(walked: str, groups: list[list[Pair]]) -> int:
    """How many images of the walked side are held at once."""
    return max(len({getattr(pair, walked) for pair in group}) for group in groups)


def _settled(painter: Method, cfg, groups, held: dict[str, int], tell):
    shape = painter.load(groups[0][0].content.path, cfg).shape
    return painter.settle(cfg, shape, held, tell)


class _Prepared:
    """Prepares each image of a run once, remembering the seconds that each took."""

    def __init__(self, painter: Method, cfg, progress, walked: str):
        self.painter, self.cfg, self.progress, self.walked = painter, cfg, progress, walked
        self.held: dict[tuple[str, Picture], object] = {}
        self.seconds: dict[tuple[str, Picture], float] = {}

    def __call__(self, together: list[Pair]) -> dict[str, object]:
        """Role -> what these pairs need of it, as a batch."""
        needed = {(self.walked, getattr(pair, self.walked)) for pair in together}
        self.held = {k: v for k, v in self.held.items() if k[0] != self.walked or k in needed}
        sides = {}
        for role in self.painter.roles:
            pictures = [getattr(pair, role) for pair in together]
            sides[role] = self.painter.join([self._of(role, picture) for picture in pictures])
        return sides

    def seconds_of(self, pair: Pair) -> float:
        """What preparing both sides took when it was done."""
        return sum(self.seconds[role, getattr(pair, role)] for role in self.painter.roles)

    def _of(self, role: str, picture: Picture):
        if (role, picture) not in self.held:
            self.held[role, picture] = self._prepare(role, picture)
        return self.held[role, picture]

    def _prepare(self, role: str, picture: Picture):
        before = perf_counter()
        pixels = self.painter.load(picture.path, self.cfg)
        prepared = self.painter.prepare(role, pixels, self.cfg, self.progress)
        self.seconds[role, picture] = perf_counter() - before
        return prepared


def _record(
    pair: Pair,
    method: type[Method],
    cfg,
    model: Model,
    started: Started,
    seconds: dict[str, float],
) -> dict:
    from ..sd import runtime

    return {
        "command": "stylize",
        "method": method.name,
        "content": pair.content.facts,
        "style": pair.style.facts,
        "config": method.settings(cfg),
        **{name: getattr(cfg, name) for name in sorted(method.free)},
        "model": model.facts,
        "device": started.device,
        "versions": runtime.versions(),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "key": pair.key,
    }
