"""`jstyle generate`: pictures from prompts, one or many; finished results are skipped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from ..sd import hub, image
from ..sd.files import output_folder
from ..sd.limits import PER_PICTURE, SEED, SIDE_PX, require_whole
from ..sd.samplers.options import Sampling
from . import outputs
from .inputs import Model, Started, find_model, start
from .jobs import Group, Job, make_groups
from .referenced import After, Referenced

if TYPE_CHECKING:
    import numpy as np

    from ..sd.pipeline import StableDiffusion

log = logging.getLogger("jstyle")


@dataclass(frozen=True)
class Request:
    """What is asked of `generate`: pictures of all prompts; picture i has the seed seed + i.

    out: a PNG's name for one picture, otherwise a folder with 000_PROMPT.png, 001_PROMPT.png, ...
    height, width: pixels; None: the model's own. after: references and a method that paints after
    them; None: the prompts alone. loras: FILE or FILE:WEIGHT each. overwrite: also replace files
    that are no results of ours. listed: a file of further prompts, see prompt_list.py. wildcards: a
    folder, see wildcards.py. count: pictures of each prompt.
    Raises ValueError for a number out of bounds.
    """

    prompts: Sequence[str]
    out: str
    how: Sampling = field(default_factory=Sampling)
    seed: int = 0
    negative: str = ""
    height: int | None = None
    width: int | None = None
    after: After | None = None
    model: str | hub.Source = "tiny"
    loras: Sequence[str] = ()
    device: str = "auto"
    overwrite: bool = False
    listed: str | None = None
    wildcards: str | None = None
    count: int = 1

    def __post_init__(self):
        require_whole("seed", self.seed, 0, SEED)
        require_whole("count", self.count, 1, PER_PICTURE)
        for name in ("height", "width"):
            if getattr(self, name) is not None:
                require_whole(name, getattr(self, name), 1, SIDE_PX)


class Done(NamedTuple):
    """skipped: how many results were finished before."""

    written: list[Path]
    skipped: int


def generate(asked: Request, bar: Callable, tell: Callable[[str], None] = log.info) -> Done:
    """Write all pictures, each with its record. `bar(total)` makes a tqdm-like progress bar;
    tell(line) is given a line about each LoRA, and one about a sampler that was not named.

    Raises HubError or ValueError for bad input, before anything is written, OSError if it cannot
    write. Pictures finished before an error or Ctrl-C stay.
    """
    groups = make_groups(asked)
    paths = [job.path for group in groups for job in group.jobs]
    inputs = [picture.path for group in groups for picture in group.pictures]
    outputs.require_free(paths, asked.overwrite, inputs)
    with ExitStack() as stack:
        stack.enter_context(output_folder(paths[0].parent))
        found = find_model(asked.model, loras=asked.loras)
        keys = {job.path: group.key(job, asked, found) for group in groups for job in group.jobs}
        todo = {path for path, key in keys.items() if not outputs.is_finished(path, key)}
        if not todo:
            return Done([], len(paths))
        started = stack.enter_context(start(found, asked.device, tell))
        tell = _once(tell)
        due = [group for group in groups if any(job.path in todo for job in group.jobs)]
        _require_sizes(started.sd, due)
        painters = [_painter(started.sd, asked.how, group, todo, tell) for group in due]
        totals = [painter.evaluations for painter in painters]
        with bar(None if None in totals else sum(filter(None, totals))) as progress:
            for group in due:
                painter = painters.pop(0)  # and with it go the features that it holds
                for i, job in enumerate(group.jobs):
                    if job.path in todo:
                        before = perf_counter()
                        pixels = painter.paint(i, lambda *_: progress.update())
                        took = {"load": started.load_seconds, "generate": perf_counter() - before}
                        config = _config(started.sd, painter.how, group, job)
                        record = _record(config, found, started, took)
                        outputs.write_result(job.path, pixels, {**record, "key": keys[job.path]})
    return Done([path for path in paths if path in todo], len(paths) - len(todo))


class Painter(NamedTuple):
    """paint(i, progress) -> the picture of a group's job, uint8 (H, W, 3). evaluations: of all that
    are due, None where they are not known before."""

    how: Sampling
    paint: Callable[[int, Callable], np.ndarray]
    evaluations: int | None


def _painter(
    sd: StableDiffusion, how: Sampling, group: Group, todo: set[Path], tell: Callable
) -> Painter:
    if group.after is not None:
        how = group.after.sampling(how, tell)
    plan = sd.plan(how.steps, how.sampler, how.sigmas, how.eta)
    if how.sampler is None:
        tell_own_sampler(sd, tell)
    count, each = sum(job.path in todo for job in group.jobs), plan.evaluations
    if group.after is not None:
        words = [job.words for job in group.jobs]
        found = Referenced(sd, group.after, group.pictures, how, words)
        found.settle(plan.timesteps, tell)
        return Painter(how, found.paint, found.evaluations(each, count))

    def paint(i: int, progress: Callable) -> np.ndarray:
        options = arguments(how, **group.jobs[i].words, progress=progress)
        return image.to_uint8(sd.generate(**options))[0]

    return Painter(how, paint, None if each is None else each * count)


def _once(tell: Callable[[str], None]) -> Callable[[str], None]:
    """Tells a line only the first time."""
    told: set[str] = set()

    def once(line: str) -> None:
        if line not in told:
            told.add(line)
            tell(line)

    return once


def _require_sizes(sd: StableDiffusion, groups: Sequence[Group]) -> None:
    """Raise ValueError for any picture's size before the first one is painted."""
    for job in (job for group in groups for job in group.jobs):
        sides = (job.words["height"], job.words["width"])
        sd.check_size(*(sd.picture_size if side is None else side for side in sides))


def _config(sd: StableDiffusion, how: Sampling, group: Group, job: Job) -> dict:
    """For the record of a picture."""
    first = {name: job.words[name] for name in ("prompt", "seed")}
    rest = {name: value for name, value in job.words.items() if name not in first}
    config = {**first, **arguments(how, **rest), **sampler_named(sd, how)}
    if group.after is not None:
        config |= group.after.facts(group.pictures)
    return config if job.asked is None else {**config, "drawn_from": job.asked}


def tell_own_sampler(sd: StableDiffusion, tell: Callable[[str], None]) -> None:
    """A line where the model's scheduler file asks for another sampler than DDIM."""
    own = sd.own_sampler
    if own.sampler != "ddim":
        notes = "".join(f"; {note}" for note in own.notes)
        tell(f"sampler {own.sampler}, as the model's scheduler file says{notes}")


def arguments(how: Sampling, **words: Any) -> dict[str, Any]:
    """Those of StableDiffusion.generate: how to sample, and `words`."""
    options = {**how.told(), **words, "num_steps": how.steps}
    del options["steps"]
    return options


def sampler_named(sd: StableDiffusion, how: Sampling) -> dict[str, str | None]:
    """For records: the sampler that was used, where `how` leaves it to the model."""
    resolved = sd.resolved(how)
    return {"sampler": resolved.sampler, "sigmas": resolved.sigmas}


def _record(config: dict, model: Model, started: Started, seconds: dict[str, float]) -> dict:
    from ..sd import runtime

    return {
        "command": "generate",
        "config": config,
        "model": model.facts,
        "device": started.device,
        "versions": runtime.versions(),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }
