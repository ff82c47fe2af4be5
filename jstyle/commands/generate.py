"""`jstyle generate`: pictures from prompts."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ..sd import hub, image
from ..sd.files import output_folder
from ..sd.limits import SEED, SIDE_PX, require_whole
from ..sd.samplers.options import Sampling
from . import outputs
from .inputs import Model, Picture, Started, find_model, start
from .referenced import After, Referenced

if TYPE_CHECKING:
    import numpy as np

    from ..sd.pipeline import StableDiffusion
    from ..sd.samplers import Plan

log = logging.getLogger("jstyle")


@dataclass(frozen=True)
class Request:
    """What is asked of `generate`: one picture per prompt; prompt i has the seed seed + i.

    out: a PNG's name for one prompt, otherwise a folder with 000_PROMPT.png, 001_PROMPT.png, ...
    height, width: pixels; None: the model's own. after: references and a method that paints after
    them; None: the prompts alone. loras: FILE or FILE:WEIGHT each. overwrite: also
    replace files that are no results of ours. Raises ValueError for a number out of bounds.
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

    def __post_init__(self):
        require_whole("seed", self.seed, 0, SEED)
        for name in ("height", "width"):
            if getattr(self, name) is not None:
                require_whole(name, getattr(self, name), 1, SIDE_PX)

    @property
    def words(self) -> dict[str, Any]:
        """Options of StableDiffusion.generate, the same for every prompt."""
        names = ("negative", "height", "width")
        return arguments(self.how, **{name: getattr(self, name) for name in names})


def generate(asked: Request, bar: Callable, tell: Callable[[str], None] = log.info) -> list[Path]:
    """Write one picture per prompt, each with its record. `bar(total)` makes a tqdm-like progress
    bar; tell(line) is given a line about each LoRA, and one about a sampler that was not named.

    Raises HubError or ValueError for bad input, OSError if it cannot write.
    """
    prompts, how, after = asked.prompts, asked.how, asked.after
    targets = name_pictures(prompts, asked.out)
    references = [] if after is None else after.pictures()
    outputs.require_free(targets, asked.overwrite, [picture.path for picture in references])
    with ExitStack() as stack:
        stack.enter_context(output_folder(targets[0].parent))
        found = find_model(asked.model, loras=asked.loras)
        started = stack.enter_context(start(found, asked.device, tell))
        if after is not None:
            how = after.sampling(how, tell)
        plan = started.sd.plan(how.steps, how.sampler, how.sigmas, how.eta)
        if how.sampler is None:
            tell_own_sampler(started.sd, tell)
        asked = replace(asked, how=how)
        paint, total = _painter(started.sd, asked, references, plan, tell)
        about = {} if after is None else after.facts(references)
        named = sampler_named(started.sd, how)
        with bar(total) as progress:
            for i, (prompt, path) in enumerate(zip(prompts, targets, strict=True)):
                before = perf_counter()
                pixels = paint(i, lambda *_: progress.update())
                seconds = {"load": started.load_seconds, "generate": perf_counter() - before}
                config = {"prompt": prompt, "seed": asked.seed + i, **asked.words, **named}
                record = _record({**config, **about}, found, started, seconds)
                outputs.write_result(path, pixels, record)
    return targets


def _painter(
    sd: StableDiffusion,
    asked: Request,
    references: Sequence[Picture],
    plan: Plan,
    tell: Callable[[str], None],
) -> tuple[Callable[[int, Callable], np.ndarray], int | None]:
    """paint(i, progress) -> the picture of prompt i, uint8 (H, W, 3), and the evaluations of all of
    them, if they are known."""
    each = plan.evaluations
    if asked.after is not None:
        found = Referenced(
            sd, asked.after, references, asked.how, asked.words, asked.prompts, asked.seed
        )
        found.settle(plan.timesteps, tell)
        return found.paint, found.evaluations(each)

    def paint(i: int, progress: Callable) -> np.ndarray:
        given = {"seed": asked.seed + i, "progress": progress, **asked.words}
        return image.to_uint8(sd.generate(asked.prompts[i], **given))[0]

    return paint, None if each is None else each * len(asked.prompts)


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


def name_pictures(prompts: Sequence[str], out: str) -> list[Path]:
    """One path per prompt. Raises ValueError without prompts or for one name and many prompts."""
    if not prompts:
        raise ValueError("give at least one --prompt")
    if outputs.names_file(out):
        if len(prompts) > 1:
            raise ValueError(f"{out}: one file name for {len(prompts)} prompts; give a folder")
        return [Path(out)]
    slugs = (re.sub(r"[^a-z0-9]+", "_", prompt.lower()).strip("_")[:60] for prompt in prompts)
    return [Path(out) / f"{i:03d}_{slug or 'empty'}.png" for i, slug in enumerate(slugs)]
