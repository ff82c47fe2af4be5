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
from ..config import StyleConfig
from ..sd import image
from . import outputs
from .inputs import Model, Picture, Started, find_model, find_pictures, start

log = logging.getLogger("jstyle")


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
) -> Summary:
    """Stylise every content in every style. `bar(total)` makes a tqdm-like progress bar.

    loras: FILE or FILE:WEIGHT each; tell(line) is given a line about each.

    Raises ImageError, HubError, ConfigError or ValueError before anything is written, OSError if
    the output cannot be. Pictures finished before an error or Ctrl-C stay.
    """
    contents, styles = find_pictures(content), find_pictures(style)
    targets = name_results(contents, styles, out, inputs=(content, style))
    with outputs.writable(next(iter(targets.values())).parent):
        found = find_model(model, variant, loras)
        pairs = [Pair(c, s, path, result_key(c, s, cfg, found)) for (c, s), path in targets.items()]
        todo = [pair for pair in pairs if not outputs.is_finished(pair.out, pair.key)]
        summary = Summary(skipped=len(pairs) - len(todo))
        if todo:
            with start(found, device, tell) as started:
                run_pairs(started, found, todo, cfg, bar, summary)
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
    """A hash of everything that the result depends on."""
    facts = [
        __version__,
        content.sha256,
        style.sha256,
        asdict(cfg),
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
) -> None:
    """Make the results of `pairs`, adding to `summary` as they are finished.

    The side with more images is walked through one by one; the inversions of the other side are
    kept for all its turns, so every image is inverted once and the fewest features are held.
    """
    from ..pipeline import JStyleID
    from .spill import InversionStore

    styler = JStyleID(started.sd)
    contents, styles = {p.content for p in pairs}, {p.style for p in pairs}
    kept_role = "style" if len(contents) >= len(styles) else "content"
    times = {"start": started.start_seconds, "load": started.load_seconds}
    summary.seconds = {**times, "inversion": 0.0, "sampling": 0.0}
    evaluations = cfg.steps * (len(contents) + len(styles) + len(pairs))
    with (
        InversionStore(len(styles if kept_role == "style" else contents)) as store,
        bar(evaluations) as progress,
    ):

        def advance(done: int, total: int):
            progress.update()

        inverter = _Inverter(styler, cfg, advance, store, kept_role)
        for pair in _in_rows(pairs, kept_role):
            progress.set_postfix_str(pair.out.name, refresh=False)
            noise_c, noise_s, inversion = inverter(pair)
            before = perf_counter()
            result = styler.transfer(noise_c, noise_s, cfg, advance)
            pixels = image.to_uint8(result)[0]
            sampling = perf_counter() - before
            seconds = {**times, "inversion": inversion, "sampling": sampling}
            outputs.write_result(pair.out, pixels, _record(pair, cfg, model, started, seconds))
            log.info("wrote %s", pair.out)
            summary.written.append(pair.out)
            summary.seconds["sampling"] += sampling
        summary.seconds["inversion"] = sum(inverter.seconds.values())


class _Inverter:
    """Inverts each image of a run once, remembering the seconds that each took."""

    def __init__(self, styler, cfg: StyleConfig, progress, store, kept_role: str):
        self.styler, self.cfg, self.progress = styler, cfg, progress
        self.store, self.kept_role = store, kept_role
        self.current: tuple = (None, None)
        self.seconds: dict[tuple[str, Picture], float] = {}

    def __call__(self, pair: Pair):
        """(content's inversion, style's inversion, seconds that both took when they were made)"""
        content, style = self._of("content", pair.content), self._of("style", pair.style)
        seconds = self.seconds["content", pair.content] + self.seconds["style", pair.style]
        return content, style, seconds

    def _of(self, role: str, picture: Picture):
        if role == self.kept_role:
            if picture not in self.store:
                self.store.keep(picture, self._invert(role, picture))
            return self.store[picture]
        if self.current[0] != picture:
            self.current = (None, None)  # let go of the last one's features first
            self.current = picture, self._invert(role, picture)
        return self.current[1]

    def _invert(self, role: str, picture: Picture):
        before = perf_counter()
        parts = ("q" if role == "content" else "kv") if self.cfg.inject else ""
        pixels = self.styler.load(picture.path, self.cfg)
        inversion = self.styler.invert(pixels, self.cfg, parts, self.progress)
        self.seconds[role, picture] = perf_counter() - before
        return inversion


def _in_rows(pairs: list[Pair], kept_role: str) -> list[Pair]:
    """The pairs ordered so that each image of the side that is not kept has its turns in a row."""
    walked = "content" if kept_role == "style" else "style"
    turns = {getattr(pair, walked): i for i, pair in enumerate(pairs)}
    return sorted(pairs, key=lambda pair: turns[getattr(pair, walked)])


def _record(
    pair: Pair, cfg: StyleConfig, model: Model, started: Started, seconds: dict[str, float]
) -> dict:
    from ..sd import runtime

    return {
        "command": "stylize",
        "content": pair.content.facts,
        "style": pair.style.facts,
        "config": asdict(cfg),
        "model": model.facts,
        "device": started.device,
        "versions": runtime.versions(),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "key": pair.key,
    }
