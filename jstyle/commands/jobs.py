"""The pictures that `generate` is asked for, one by one, before a model is there."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..sd.limits import PICTURES, require_whole
from ..sd.prompts import check_prompt
from ..sd.prompts.parse import WEBUI, parse_caption
from . import outputs
from .inputs import Model, Picture
from .prompt_list import Line, read_list
from .referenced import After
from .wildcards import Wildcards

if TYPE_CHECKING:
    from .generate import Request


@dataclass(frozen=True)
class Job:
    """One picture: prompt, seed, negative, height and width, as StableDiffusion.generate has them,
    and where to. asked: the prompt before wildcards were drawn, where there were some.
    references: of this picture, instead of those of the command."""

    words: dict[str, Any]
    path: Path
    asked: str | None = None
    references: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Group:
    """Pictures that are painted with the same preparations. after: as the request has it, with
    their references, which pictures are the files of."""

    jobs: list[Job]
    after: After | None
    pictures: Sequence[Picture] = ()

    def key(self, job: Job, asked: Request, model: Model) -> str:
        """A hash of everything that a result depends on."""
        facts = [__version__, "generate", job.words, asked.how.told(), model.key]
        if self.after is not None:
            facts += [self.after.facts(()), [picture.sha256 for picture in self.pictures]]
            if not self.pictures:
                facts.append(self.jobs[0].words)  # the first picture leads the others
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def make_groups(asked: Request) -> list[Group]:
    """All pictures in the order of the prompts; with a method, those of the same references, size
    and negative prompt go together.

    Raises InputError, ImageError or ValueError for what cannot be.
    """
    jobs, after = make_jobs(asked), asked.after
    if after is None:
        if any(job.references is not None for job in jobs):
            raise ValueError(f"{asked.listed}: references need --method")
        return [Group(jobs, None)]
    found: dict[tuple, list[Job]] = {}
    for job in jobs:
        if asked.how.syntax == WEBUI:  # one text for all steps; the references are told it as well
            parse_caption(job.words["prompt"])
            parse_caption(job.words["negative"])
        same = (job.references, *(job.words[name] for name in ("negative", "height", "width")))
        found.setdefault(same, []).append(job)
    groups = []
    for (references, *_), own in found.items():
        its = after if references is None else replace(after, references=references)
        groups.append(Group(own, its, its.pictures()))
    return groups


def make_jobs(asked: Request) -> list[Job]:
    """All pictures, their texts read and their names given. Raises InputError or ValueError."""
    lines = [Line(prompt) for prompt in asked.prompts]
    lines += [] if asked.listed is None else read_list(asked.listed)
    lines = [line for line in lines for _ in range(asked.count)]
    require_whole("the number of pictures", len(lines), 0, PICTURES)
    wildcards = None if asked.wildcards is None else Wildcards(asked.wildcards)
    told = [_words(asked, line, i) for i, line in enumerate(lines)]
    for words in told:
        if wildcards is not None:
            texts = [words["prompt"], words["negative"]]
            words["prompt"], words["negative"] = wildcards.drawn(texts, words["seed"])
        check_prompt(words["prompt"], asked.how.syntax)
        check_prompt(words["negative"], asked.how.syntax, negative=True)
    prompts, names = [words["prompt"] for words in told], _names(lines, asked.count)
    return [
        Job(words, path, line.prompt if line.prompt != words["prompt"] else None, line.references)
        for words, path, line in zip(
            told, name_pictures(prompts, asked.out, names), lines, strict=True
        )
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
