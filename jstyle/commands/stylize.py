"""`jstyle stylize`: N contents x M styles, each image inverted once, finished results skipped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from ..config import EACH, NEAREST, RESULTS_TOGETHER
from ..methods import DEFAULT, Method, find_method
from ..sd import hub, image
from ..sd.facts import STYLE
from ..sd.files import output_folder
from ..sd.limits import TOGETHER, require_whole
from . import outputs
from .inputs import Model, Picture, Started, find_model, find_pictures, start
from .pairs import Pair, check_choice, combine, make_pairs, name_results

log = logging.getLogger("jstyle")


@dataclass(frozen=True)
class Request:
    """What is asked of `stylize`. content, style: a picture or a folder of pictures each; out: a
    folder, or a PNG's name for one result.

    style: None for a method that takes none. style_choice: one of CHOICES. method: a name of
    METHODS; cfg: its options. batch: results that are sampled together, at most.
    loras: FILE or FILE:WEIGHT each. overwrite: also replace files that are no results of ours, but
    no inputs. Raises ValueError for a batch out of bounds.
    """

    content: str
    style: str | None
    out: str
    cfg: Any
    style_choice: str = EACH
    method: str = DEFAULT
    batch: int = RESULTS_TOGETHER
    model: str | hub.Source = "tiny"
    loras: Sequence[str] = ()
    device: str = "auto"
    overwrite: bool = False

    def __post_init__(self):
        require_whole("batch", self.batch, 1, TOGETHER)


@dataclass
class Summary:
    """What a run did. `seconds` has "start", "load", "inversion" and "sampling"."""

    written: list[Path] = field(default_factory=list)
    skipped: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


def stylize(asked: Request, bar: Callable, tell: Callable[[str], None] = log.info) -> Summary:
    """Stylise every content. `bar(total)` makes a tqdm-like progress bar; tell(line) is given a
    line about each LoRA, each style that the model chose, and where recorded features are kept.

    Raises ImageError, HubError, ConfigError or ValueError before anything is written, OSError if
    the output cannot be. Pictures finished before an error or Ctrl-C stay.
    """
    kind, cfg, choice = find_method(asked.method), asked.cfg, asked.style_choice
    check_choice(choice, kind)
    contents, styles = find_pictures(asked.content), _styles(asked, kind)
    wanted = combine(contents, styles, choice)
    inputs = (asked.content,) if asked.style is None else (asked.content, asked.style)
    paths = name_results(wanted, asked.out, inputs, choice if styles else kind.name)
    outputs.require_free(paths, asked.overwrite, [p.path for p in (*contents, *styles)])
    with output_folder(paths[0].parent):
        found = find_model(asked.model, loras=asked.loras)
        pairs = make_pairs(wanted, paths, kind, cfg, found, choice)
        todo = [pair for pair in pairs if not outputs.is_finished(pair.out, pair.key)]
        summary = Summary(skipped=len(pairs) - len(todo))
        if todo:
            with start(found, asked.device, tell) as started:
                todo = _chosen(todo, kind(started.sd), cfg, tell)
                run_pairs(started, found, todo, kind, cfg, bar, summary, tell, asked.batch)
    return summary


def _styles(asked: Request, method: type[Method]) -> list[Picture]:
    if (STYLE in method.roles) == (asked.style is not None):
        return [] if asked.style is None else find_pictures(asked.style)
    if asked.style is None:
        raise ValueError(f"method {method.name} needs a style: a picture or a folder of them")
    raise ValueError(f"method {method.name} takes no style, got {asked.style}")


def _chosen(pairs: list[Pair], painter: Method, cfg: Any, tell) -> list[Pair]:
    """The pairs with one style each, where the model is to choose it."""
    if not any(pair.nearest for pair in pairs):
        return pairs
    from ..methods.nearest import features, nearest

    pictures = dict.fromkeys(picture for pair in pairs for picture in (pair.content, *pair.styles))
    seen = {picture: features(painter.sd, painter.load(picture.path, cfg)) for picture in pictures}
    found = []
    for pair in pairs:
        style = pair.styles[nearest(seen[pair.content], [seen[s] for s in pair.styles])]
        tell(f"{pair.content.path}: {style.path} is the nearest style")
        found.append(replace(pair, styles=(style,)))
    return found


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
    counts = {role: len({p for pair in pairs for p in pair.of(role)}) for role in method.roles}
    walked = max(method.roles, key=lambda role: len({pair.of(role) for pair in pairs}))
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
    rows: dict[tuple[Picture, ...], list[Pair]] = {}
    for pair in pairs:
        rows.setdefault(pair.of(walked), []).append(pair)
    turns = list(rows.values())
    if all(len(row) == 1 for row in turns):
        turns = [[pair for row in turns for pair in row]]
    return [row[i : i + batch] for row in turns for i in range(0, len(row), batch)]


def _most(walked: str, groups: list[list[Pair]]) -> int:
    """How many images of the walked side are held at once."""
    return max(len({p for pair in group for p in pair.of(walked)}) for group in groups)


def _settled(painter: Method, cfg, groups, held: dict[str, int], tell):
    from ..methods.painting import tell_window

    tell_window(cfg, painter.sd.schedule.timesteps(cfg.steps), tell)
    shape = painter.load(groups[0][0].content.path, cfg).shape
    return painter.settle(cfg, shape, held, tell)


class _Prepared:
    """Prepares each image of a run once, remembering the seconds that each took."""

    def __init__(self, painter: Method, cfg, progress, walked: str):
        self.painter, self.cfg, self.progress, self.walked = painter, cfg, progress, walked
        self.held: dict[tuple[str, Picture], object] = {}
        self.pooled: dict[tuple[str, tuple[Picture, ...]], object] = {}
        self.seconds: dict[tuple[str, Picture], float] = {}

    def __call__(self, together: list[Pair]) -> dict[str, object]:
        """Role -> what these pairs need of it, as a batch."""
        needed = {(self.walked, picture) for pair in together for picture in pair.of(self.walked)}
        self.held = {k: v for k, v in self.held.items() if k[0] != self.walked or k in needed}
        self.pooled = {k: v for k, v in self.pooled.items() if k[0] != self.walked}
        sides = {}
        for role in self.painter.roles:
            parts = [self._side(role, pair.of(role)) for pair in together]
            sides[role] = self.painter.join(parts)
        return sides

    def seconds_of(self, pair: Pair) -> float:
        """What preparing its pictures took when it was done."""
        return sum(self.seconds[role, p] for role in self.painter.roles for p in pair.of(role))

    def _side(self, role: str, pictures: tuple[Picture, ...]):
        prepared = [self._of(role, picture) for picture in pictures]
        if len(prepared) == 1:
            return prepared[0]
        if (role, pictures) not in self.pooled:
            self.pooled[role, pictures] = self.painter.pool(prepared)
        return self.pooled[role, pictures]

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
        **{role: pair.facts(role) for role in method.roles},
        **({"style_choice": NEAREST} if pair.nearest else {}),
        "config": method.settings(cfg),
        **{name: getattr(cfg, name) for name in sorted(method.free)},
        "model": model.facts,
        "device": started.device,
        "versions": runtime.versions(),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "key": pair.key,
    }
