"""`jstyle stylize`: N contents x M styles, each image inverted once, finished results skipped."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from time import perf_counter

from .. import __version__
from ..config import RESULTS_TOGETHER, StyleConfig
from ..sd import image
from ..sd.limits import TOGETHER, require_whole
from . import outputs
from .inputs import Model, Picture, Started, find_model, find_pictures, start

log = logging.getLogger("jstyle")

ROLES = {"content": "q", "style": "kv"}  # and which parts of attention each gives


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


def stylize(
    content: str,
    style: str,
    out: str,
    cfg: StyleConfig,
    bar: Callable,
    model: str = "tiny",
    variant: str | None = None,
    device: str = "auto",
    loras: Sequence[str] = (),
    tell: Callable[[str], None] = log.info,
    batch: int = RESULTS_TOGETHER,
) -> Summary:
    """Stylise every content in every style. `bar(total)` makes a tqdm-like progress bar.

    loras: FILE or FILE:WEIGHT each; tell(line) is given a line about each, and one about where
    recorded features are kept. batch: results that are sampled together, at most.

    Raises ImageError, HubError, ConfigError or ValueError before anything is written, OSError if
    the output cannot be. Pictures finished before an error or Ctrl-C stay.
    """
    require_whole("batch", batch, 1, TOGETHER)
    contents, styles = find_pictures(content), find_pictures(style)
    targets = name_results(contents, styles, out, inputs=(content, style))
    with outputs.writable(next(iter(targets.values())).parent):
        found = find_model(model, variant, loras)
        pairs = [Pair(c, s, path, result_key(c, s, cfg, found)) for (c, s), path in targets.items()]
        todo = [pair for pair in pairs if not outputs.is_finished(pair.out, pair.key)]
        summary = Summary(skipped=len(pairs) - len(todo))
        if todo:
            with start(found, device, tell) as started:
                run_pairs(started, found, todo, cfg, bar, summary, tell, batch)
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
        if any(Path(out).resolve() == p.path.resolve() for p in (*contents, *styles)):
            raise ValueError(f"{out}: is also an input; give another name")
        return {pairs[0]: Path(out)}
    for folder in inputs:
        if Path(folder).is_dir() and Path(folder).resolve() == Path(out).resolve():
            raise ValueError(f"{out}: is also a folder of inputs; give another folder")
    targets, taken = {}, {}
    for c, s in pairs:
        path = Path(out) / f"{c.path.stem}_stylized_{s.path.stem}.png"
        if path in taken:
            other_c, other_s = taken[path]
            clash = (c, other_c) if c != other_c else (s, other_s)
            raise ValueError(
                f"{clash[1].path} and {clash[0].path} would both give {path}; rename one of them"
            )
        taken[path], targets[c, s] = (c, s), path
    return targets


def result_key(content: Picture, style: Picture, cfg: StyleConfig, model: Model) -> str:
    """A hash of everything that the result depends on: not of where features were kept."""
    facts = [
        __version__,
        content.sha256,
        style.sha256,
        _settings(cfg),
        model.key,
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def run_pairs(
    started: Started,
    model: Model,
    pairs: list[Pair],
    cfg: StyleConfig,
    bar: Callable,
    summary: Summary,
    tell: Callable[[str], None] = log.info,
    batch: int = RESULTS_TOGETHER,
) -> None:
    """Make the results of `pairs`, adding to `summary` as they are finished.

    The side with more images is walked through; the inversions of the other side are kept for all
    its turns, so every image is inverted once and the fewest features are held. Up to `batch`
    results are sampled together: those of one image's turn or, where the other side has only one
    image, of as many turns.
    """
    from ..pipeline import JStyleID

    styler = JStyleID(started.sd, scratch=pairs[0].out.parent)
    counts = {role: len({getattr(pair, role) for pair in pairs}) for role in ROLES}
    walked = "content" if counts["content"] >= counts["style"] else "style"
    groups = _groups(pairs, walked, batch)
    cfg = _decide_features(styler, cfg, groups, counts, walked, tell)
    times = {"start": started.start_seconds, "load": started.load_seconds}
    summary.seconds = {**times, "inversion": 0.0, "sampling": 0.0}
    with bar(cfg.steps * (sum(counts.values()) + len(pairs))) as progress:
        inverter = _Inverter(styler, cfg, lambda *_: progress.update(), walked)
        for together in groups:
            progress.set_postfix_str(together[0].out.name, refresh=False)
            sides = inverter(together)
            before, rows = perf_counter(), len(together)
            result = styler.transfer(*sides, cfg, lambda *_, n=rows: progress.update(n))
            pictures = image.to_uint8(result)
            del sides  # lets go of the walked images' features before the next are recorded
            sampling = (perf_counter() - before) / rows
            for pair, pixels in zip(together, pictures, strict=True):
                seconds = {**times, "inversion": inverter.seconds_of(pair), "sampling": sampling}
                outputs.write_result(pair.out, pixels, _record(pair, cfg, model, started, seconds))
                log.info("wrote %s", pair.out)
                summary.written.append(pair.out)
                summary.seconds["sampling"] += sampling
        summary.seconds["inversion"] = sum(inverter.seconds.values())


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


def _decide_features(styler, cfg: StyleConfig, groups, counts, walked: str, tell) -> StyleConfig:
    """`cfg` with the place of all features that are held at once: those of every kept image and
    of the walked ones of a group."""
    if not cfg.inject or cfg.features != "auto":
        return cfg
    shape = styler.load(groups[0][0].content.path, cfg).shape
    most = max(len({getattr(pair, walked) for pair in group}) for group in groups)
    held = {**counts, walked: most}
    needed = sum(held[role] * styler.feature_bytes(cfg, shape, ROLES[role]) for role in ROLES)
    return styler.decide(cfg, needed, tell)


class _Inverter:
    """Inverts each image of a run once, remembering the seconds that each took."""

    def __init__(self, styler, cfg: StyleConfig, progress, walked: str):
        self.styler, self.cfg, self.progress, self.walked = styler, cfg, progress, walked
        self.held: dict[tuple[str, Picture], object] = {}
        self.seconds: dict[tuple[str, Picture], float] = {}

    def __call__(self, together: list[Pair]) -> list:
        """[contents, styles] of these pairs, each one joined inversion."""
        from ..inversion import join

        needed = {(self.walked, getattr(pair, self.walked)) for pair in together}
        self.held = {k: v for k, v in self.held.items() if k[0] != self.walked or k in needed}
        return [join([self._of(role, getattr(pair, role)) for pair in together]) for role in ROLES]

    def seconds_of(self, pair: Pair) -> float:
        """What both inversions took when they were made."""
        return sum(self.seconds[role, getattr(pair, role)] for role in ROLES)

    def _of(self, role: str, picture: Picture):
        if (role, picture) not in self.held:
            self.held[role, picture] = self._invert(role, picture)
        return self.held[role, picture]

    def _invert(self, role: str, picture: Picture):
        before = perf_counter()
        parts = ROLES[role] if self.cfg.inject else ""
        pixels = self.styler.load(picture.path, self.cfg)
        inversion = self.styler.invert(pixels, self.cfg, parts, self.progress)
        self.seconds[role, picture] = perf_counter() - before
        return inversion


def _settings(cfg: StyleConfig) -> dict:
    """All that a picture depends on."""
    return {name: value for name, value in asdict(cfg).items() if name != "features"}


def _record(
    pair: Pair, cfg: StyleConfig, model: Model, started: Started, seconds: dict[str, float]
) -> dict:
    from ..sd import runtime

    return {
        "command": "stylize",
        "content": pair.content.facts,
        "style": pair.style.facts,
        "config": _settings(cfg),
        "features": cfg.features,
        "model": model.facts,
        "device": started.device,
        "versions": runtime.versions(),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "key": pair.key,
    }
