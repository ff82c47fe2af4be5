"""`jstyle generate`: pictures from prompts."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter

from ..sd import image
from ..sd.files import output_folder
from ..sd.limits import SEED, SIDE_PX, require_whole
from ..sd.samplers.options import Sampling
from . import outputs
from .inputs import find_model, start

log = logging.getLogger("jstyle")


def generate(
    prompts: list[str],
    out: str,
    how: Sampling,
    bar: Callable,
    seed: int = 0,
    negative: str = "",
    height: int | None = None,
    width: int | None = None,
    model: str = "tiny",
    variant: str | None = None,
    device: str = "auto",
    loras: Sequence[str] = (),
    tell: Callable[[str], None] = log.info,
    overwrite: bool = False,
) -> list[Path]:
    """Write one picture per prompt, each with its record; prompt i has the seed seed + i.

    out: a PNG's name for one prompt, otherwise a folder with 000_PROMPT.png, 001_PROMPT.png, ...
    loras: FILE or FILE:WEIGHT each; tell(line) is given a line about each, and one about a sampler
    that the model chose. overwrite: also replace files that are no results of ours.
    Raises HubError or ValueError for bad input, OSError if it cannot write.
    """
    require_whole("seed", seed, 0, SEED)
    for name, side in (("height", height), ("width", width)):
        if side is not None:
            require_whole(name, side, 1, SIDE_PX)
    targets = name_pictures(prompts, out)
    outputs.require_free(targets, overwrite)
    with ExitStack() as stack:
        stack.enter_context(output_folder(targets[0].parent))
        found = find_model(model, variant, loras)
        started = stack.enter_context(start(found, device, tell))
        from ..sd import runtime

        plan = started.sd.plan(how.steps, how.sampler, how.sigmas, how.eta)
        if how.sampler is None and plan.name != "ddim":
            notes = "".join(f"; {note}" for note in started.sd.own_sampler.notes)
            tell(f"sampler {plan.name}, as the model's scheduler file says{notes}")
        words = {"negative": negative, "height": height, "width": width}
        options = {**how.told(), **words, "num_steps": how.steps}
        del options["steps"]
        resolved = started.sd.resolved(how)
        named = {"sampler": resolved.sampler, "sigmas": resolved.sigmas}
        total = None if plan.evaluations is None else plan.evaluations * len(prompts)
        with bar(total) as progress:
            for i, (prompt, path) in enumerate(zip(prompts, targets, strict=True)):
                before = perf_counter()
                result = started.sd.generate(
                    prompt, seed=seed + i, progress=lambda *_: progress.update(), **options
                )
                pixels = image.to_uint8(result)[0]
                record = {
                    "command": "generate",
                    "config": {"prompt": prompt, "seed": seed + i, **options, **named},
                    "model": found.facts,
                    "device": started.device,
                    "versions": runtime.versions(),
                    "seconds": {
                        "load": round(started.load_seconds, 3),
                        "generate": round(perf_counter() - before, 3),
                    },
                }
                outputs.write_result(path, pixels, record)
    return targets


def name_pictures(prompts: list[str], out: str) -> list[Path]:
    """One path per prompt. Raises ValueError without prompts or for one name and many prompts."""
    if not prompts:
        raise ValueError("give at least one --prompt")
    if outputs.names_file(out):
        if len(prompts) > 1:
            raise ValueError(f"{out}: one file name for {len(prompts)} prompts; give a folder")
        return [Path(out)]
    slugs = (re.sub(r"[^a-z0-9]+", "_", prompt.lower()).strip("_")[:60] for prompt in prompts)
    return [Path(out) / f"{i:03d}_{slug or 'empty'}.png" for i, slug in enumerate(slugs)]
