"""`jdreambooth generate`: pictures of a run for prompts, from noise or from a starting picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jstyle.sd import files, image, targets
from jstyle.sd.noise import InjectedNoise, gaussian
from jstyle.sd.progress import progress_of
from jstyle.sd.samplers.options import without_usual
from jstyle.sd.schedule import add_noise

from . import runs
from .names import safe_names
from .recipe import AVERAGE, Recipe

if TYPE_CHECKING:
    from jstyle.sd.pipeline import StableDiffusion
    from jstyle.sd.startup import jt

MANIFEST = "manifest.json"


def generate(
    run_folder: str | Path,
    prompts: list[str],
    out: str | Path,
    recipe: Recipe,
    at: int | None = None,
    device: str = "auto",
    bar: Callable | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write one PNG per prompt into `out`, and manifest.json with every picture's text and seed.

    at: a saved step of the run, None for the last. bar(total) makes a tqdm-like progress bar.
    overwrite: also replace files that are no results of ours. Finished pictures stay if it is
    interrupted. Raises RunError, ImageError or ValueError for bad input before anything is
    written, OSError if `out` cannot be.
    """
    run = runs.open_run(run_folder)
    recipe = recipe.read_as(run.config)
    recipe.check_texts(recipe.text(prompt) for prompt in prompts)
    step = run.result(at)
    starts, names = _start_paths(run, recipe.init), safe_names(prompts)
    wanted = [Path(out) / f"{name}.png" for name in names]
    targets.require_free([*wanted, Path(out) / MANIFEST], overwrite, starts)
    with files.output_folder(out) as folder, runs.on_device(device):
        sd = runs.load_model(run, step)
        size = runs.picture_size(run, sd)
        start = None if recipe.init is None else mean_picture(starts, size)
        about = {"step": step, "recipe": without_usual(asdict(recipe)), "size_px": size}
        rows, paths = [], []
        with progress_of(bar, len(prompts) * recipe.evaluations) as progress:
            for i, (prompt, name) in enumerate(zip(prompts, names, strict=True)):
                seed, text = recipe.seed + i, recipe.text(prompt)
                pixels = paint(sd, text, seed, recipe, size, start, advance=progress.update)
                row: dict[str, Any] = {
                    "file": f"{name}.png",
                    "prompt": prompt,
                    "text": text,
                    "seed": seed,
                }
                image.save_png(folder / row["file"], pixels, {**about, **row})
                rows.append(row)
                paths.append(folder / row["file"])
                files.write_json(
                    folder / MANIFEST, {"run": str(run.folder), **about, "pictures": rows}
                )
    return paths


def _start_paths(run: runs.Run, init: str | None) -> list[Path]:
    if init is None:
        return []
    paths = runs.reference_paths(run) if init == AVERAGE else [Path(init)]
    for path in paths:
        image.load(path, 8)  # complains about a bad one before the model is loaded
    return paths


def mean_picture(paths: list[Path], size_px: int) -> np.ndarray:
    """The pixel mean of images, each cropped and resized: float32 (1, 3, S, S) in [-1, 1]."""
    return np.mean([image.load(path, size_px) for path in paths], axis=0, dtype=np.float32)


def paint(sd: StableDiffusion, *how: Any, advance: Callable[[], None] | None = None) -> np.ndarray:
    """`make_picture` as uint8 (S, S, 3)."""
    return image.to_uint8(make_picture(sd, *how, advance=advance))[0]


def make_picture(
    sd: StableDiffusion,
    text: str,
    seed: int,
    recipe: Recipe,
    size_px: int,
    start: np.ndarray | None = None,
    advance: Callable[[], None] | None = None,
) -> jt.Var:
    """One picture (1, 3, S, S) in [-1, 1]. See `make_pictures`."""
    return make_pictures(sd, [text], [seed], recipe, size_px, start, advance)


def make_pictures(
    sd: StableDiffusion,
    texts: list[str],
    seeds: list[int],
    recipe: Recipe,
    size_px: int,
    start: np.ndarray | None = None,
    advance: Callable[[], None] | None = None,
) -> jt.Var:
    """A picture (B, 3, S, S) in [-1, 1] for each text and its seed, all of them in one batch.

    A batch of several may differ from one by one in the last bits, as its sums have another order.
    start: a picture like theirs, brought to the noise level from which recipe.strength of the steps
    are left (SDEdit, arXiv:2108.01073; the steps are counted as diffusers counts them). advance()
    is called for every picture's evaluation of the network. Raises ValueError for a size that does
    not fit.
    """
    from jstyle.sd.sampling import last
    from jstyle.sd.startup import jt

    sd.check_size(size_px, size_px)
    side = size_px // sd.vae_scale
    shape, skipped = (sd.unet.config.in_channels, side, side), 0
    z = np.stack([gaussian(shape, seed, recipe.rng) for seed in seeds])
    plan = sd.plan(recipe.steps, recipe.sampler, recipe.sigmas, recipe.eta)
    if start is not None:
        skipped = recipe.steps - recipe.steps_taken
        level = plan.levels.steps[skipped].here
        z = add_noise(sd.encode_image(jt.array(start)).numpy(), z, level.abar)
    context, negative = sd.condition(texts, recipe.negative, recipe, plan, skipped)
    z = jt.array(z)
    how = {**recipe.walk(), "negative_context": negative, "start": skipped}
    how["noise"] = InjectedNoise(seeds, recipe.rng)
    if advance is not None:
        how["evaluated"] = lambda: [advance() for _ in texts]
    return sd.decode(last(sd.sample(z, context, recipe.steps, **how), z))
