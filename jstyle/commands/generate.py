"""`jstyle generate`: pictures from prompts, one or many; finished results are skipped."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import __version__
from ..sd import hub, image
from ..sd.files import output_folder
from ..sd.limits import PER_PICTURE, PICTURES, SEED, SIDE_PX, require_whole
from ..sd.prompts import check_prompt
from ..sd.samplers.options import Sampling
from . import outputs
from .inputs import Model, Started, find_model, start
from .prompt_list import Line, read_list
from .wildcards import Wildcards

if TYPE_CHECKING:
    from ..sd.pipeline import StableDiffusion

log = logging.getLogger("jstyle")


@dataclass(frozen=True)
class Request:
    """What is asked of `generate`: pictures of all prompts; picture i has the seed seed + i.

    out: a PNG's name for one picture, otherwise a folder with 000_PROMPT.png, 001_PROMPT.png, ...
    height, width: pixels; None: the model's own. loras: FILE or FILE:WEIGHT each. overwrite: also
    replace files that are no results of ours. listed: a file of further prompts, see
    prompt_list.py. wildcards: a folder, see wildcards.py. count: pictures of each prompt.
    Raises ValueError for a number out of bounds.
    """

    prompts: Sequence[str]
    out: str
    how: Sampling = field(default_factory=Sampling)
    seed: int = 0
    negative: str = ""
    height: int | None = None
    width: int | None = None
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


@dataclass(frozen=True)
class Job:
    """One picture: the arguments of StableDiffusion.generate but for how to sample, and where to.
    asked: the prompt before wildcards were drawn, where there were some."""

    words: dict[str, Any]
    path: Path
    asked: str | None = None


class Done(NamedTuple):
    """skipped: how many results were finished before."""

    written: list[Path]
    skipped: int


def generate(asked: Request, bar: Callable, tell: Callable[[str], None] = log.info) -> Done:
    """Write all pictures, each with its record. `bar(total)` makes a tqdm-like progress bar;
    tell(line) is given a line about each LoRA, and one about a sampler that the model chose.

    Raises HubError or ValueError for bad input, before anything is written, OSError if it cannot
    write. Pictures finished before an error or Ctrl-C stay.
    """
    jobs, how = make_jobs(asked), asked.how
    outputs.require_free([job.path for job in jobs], asked.overwrite)
    with ExitStack() as stack:
        stack.enter_context(output_folder(jobs[0].path.parent))
        found = find_model(asked.model, loras=asked.loras)
        keys = {job.path: result_key(job, how, found) for job in jobs}
        todo = [job for job in jobs if not outputs.is_finished(job.path, keys[job.path])]
        if not todo:
            return Done([], len(jobs))
        started = stack.enter_context(start(found, asked.device, tell))
        plan = started.sd.plan(how.steps, how.sampler, how.sigmas, how.eta)
        _require_sizes(started.sd, todo)
        if how.sampler is None:
            tell_own_sampler(started.sd, tell)
        total = None if plan.evaluations is None else plan.evaluations * len(todo)
        with bar(total) as progress:
            for job in todo:
                _paint(job, how, found, started, keys[job.path], lambda *_: progress.update())
    return Done([job.path for job in todo], len(jobs) - len(todo))


def make_jobs(asked: Request) -> list[Job]:
    """The pictures that are asked for, all their texts read and their names given.

    Raises InputError or ValueError for what cannot be.
    """
    lines = [Line(prompt) for prompt in asked.prompts]
    lines += [] if asked.listed is None else read_list(asked.listed)
    lines = [line for line in lines for _ in range(asked.count)]
    require_whole("the number of pictures", len(lines), 0, PICTURES)
    wildcards = None if asked.wildcards is None else Wildcards(asked.wildcards)
    told = [_words(asked, line, i) for i, line in enumerate(lines)]
    given = [words["prompt"] for words in told]
    for words in told:
        if wildcards is not None:
            texts = [words["prompt"], words["negative"]]
            words["prompt"], words["negative"] = wildcards.drawn(texts, words["seed"])
        check_prompt(words["prompt"], asked.how.syntax)
        check_prompt(words["negative"], asked.how.syntax, negative=True)
    paths = name_pictures(
        [words["prompt"] for words in told], asked.out, _names(lines, asked.count)
    )
    return [
        Job(words, path, text if text != words["prompt"] else None)
        for words, path, text in zip(told, paths, given, strict=True)
    ]


def _words(asked: Request, line: Line, place: int) -> dict[str, Any]:
    """place: of the picture among all."""
    width, height = (asked.width, asked.height) if line.size is None else line.size
    seed = asked.seed + place if line.seed is None else line.seed + place % asked.count
    negative = asked.negative if line.negative is None else line.negative
    own = {"negative": negative, "height": height, "width": width}
    return {"prompt": line.prompt, "seed": seed, **own}


def _names(lines: Sequence[Line], count: int) -> list[str | None]:
    """Of the files, where they are given: each picture of one line has a number."""
    number = (lambda i: "") if count == 1 else (lambda i: f"_{i % count}")
    return [line.name and line.name + number(i) for i, line in enumerate(lines)]


def result_key(job: Job, how: Sampling, model: Model) -> str:
    """A hash of everything that the result depends on."""
    facts = [__version__, "generate", job.words, how.told(), model.key]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _require_sizes(sd: StableDiffusion, jobs: Sequence[Job]) -> None:
    """Raise ValueError for any picture's size before the first one is painted."""
    for job in jobs:
        sides = (job.words["height"], job.words["width"])
        sd.check_size(*(sd.picture_size if side is None else side for side in sides))


def _paint(
    job: Job, how: Sampling, model: Model, started: Started, key: str, progress: Callable
) -> None:
    before = perf_counter()
    first = {name: job.words[name] for name in ("prompt", "seed")}
    options = arguments(how, **{n: v for n, v in job.words.items() if n not in first})
    result = started.sd.generate(**first, progress=progress, **options)
    pixels = image.to_uint8(result)[0]
    seconds = {"load": started.load_seconds, "generate": perf_counter() - before}
    config = {**first, **options, **sampler_named(started.sd, how)}
    if job.asked is not None:
        config["drawn_from"] = job.asked
    record = _record(config, model, started, seconds)
    outputs.write_result(job.path, pixels, {**record, "key": key})


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


def name_pictures(
    prompts: Sequence[str], out: str, names: Sequence[str | None] | None = None
) -> list[Path]:
    """One path per prompt. names: without suffix, None for those that are named by their prompt.

    Raises ValueError without prompts, for one name and many prompts, for a name given twice.
    """
    if not prompts:
        raise ValueError("give at least one --prompt, or --prompts with a file of them")
    if outputs.names_file(out):
        if len(prompts) > 1:
            raise ValueError(f"{out}: one file name for {len(prompts)} pictures; give a folder")
        return [Path(out)]
    digits = max(3, len(str(len(prompts) - 1)))
    slugs = (re.sub(r"[^a-z0-9]+", "_", prompt.lower()).strip("_")[:60] for prompt in prompts)
    found = [f"{i:0{digits}d}_{slug or 'empty'}" for i, slug in enumerate(slugs)]
    found = [own or usual for own, usual in zip(names or [None] * len(found), found, strict=True)]
    taken: set[str] = set()
    for name in found:
        if name.casefold() in taken:
            raise ValueError(f"two pictures are named {name}; give one of them another name")
        taken.add(name.casefold())
    return [Path(out) / f"{name}.png" for name in found]
