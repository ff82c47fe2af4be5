"""`jdreambooth pick`: after how many steps to stop, measured on prompts that were not trained.

Every saved count paints the same prompts with the same seeds; so does the model before training,
which gives the scale. The untrained model also judges what the pictures show, since it knows the
prompts and not the style. The measures are those of measures.py; the rule is in verdict.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jstyle.sd import files, image
from jstyle.sd.noise import gaussian
from jstyle.sd.progress import progress_of
from jstyle.sd.prompts.parse import WEBUI, parse_caption
from jstyle.sd.samplers.options import Sampling, without_usual
from jstyle.sd.schedule import add_noise, target
from jstyle.sd.steps import step_name

from . import measures, runs
from .captions import STEM, subject
from .contest.colours import hist
from .generate import paint
from .names import safe_names
from .recipe import PLACE
from .verdict import Measured, PickConfig, Verdict, judge

if TYPE_CHECKING:
    from jstyle.sd.pipeline import StableDiffusion

FOLDER, RECORD, GRID = "pick", "pick.json", "grid.png"
WORDS = ("house", "tree", "boat", "cup", "chair", "car", "flower", "clock", "mountain", "key")
WORDS += ("bottle", "book", "guitar", "hat")
DEFAULT_PROMPTS = 8
MOST_CAPTIONS = 16  # of the training, that compete with the prompts in recognition
LEVELS = (0.3, 0.75)  # of the timesteps: where what a picture shows is decided
ROWS_AT_ONCE = 16


class PickError(ValueError):
    """Prompts or options that cannot show whether a run has collapsed; one line."""


class Report(NamedTuple):
    measured: list[Measured]
    verdict: Verdict
    record: Path
    grid: Path


def pick(
    run_folder: str | Path,
    prompts: list[str] | None = None,
    cfg: PickConfig | None = None,
    device: str = "auto",
    bar: Callable | None = None,
    out: str | Path | None = None,
    load: Callable[[runs.Run, int | None], StableDiffusion] = runs.load_model,
) -> Report:
    """Paint, measure and judge; writes RUN/pick with all pictures, a grid and pick.json.

    prompts: not trained ones; None makes some of the run's template. bar(total) makes a tqdm-like
    progress bar. out: another folder than RUN/pick. load(run, step) gives the model of a saved
    count, or with None the untrained one; it is done with one before it asks for the next.
    Raises RunError, PickError or ValueError for bad input.
    """
    cfg = cfg or PickConfig()
    run = runs.open_run(run_folder)
    run.result()
    cfg = cfg.read_as(run.config)
    texts = held_out_texts(run, prompts, cfg.template)
    if cfg.syntax == WEBUI:
        for text in texts:
            parse_caption(text)
    paths = runs.reference_paths(run)
    folder = run.folder / FOLDER if out is None else Path(out)
    counts = [0, *run.results]
    pictures = len(texts) * cfg.seeds
    total = len(counts) * pictures * (cfg.steps + cfg.draws)
    with (
        files.output_folder(folder),
        runs.on_device(device),
        progress_of(bar, total) as progress,
    ):
        painted = {}
        for step in reversed(counts):  # the untrained model last: it is needed again
            sd = None  # frees the one before
            sd = load(run, step or None)
            painted[step] = _paint_all(sd, run, texts, cfg, progress.update)
            _save(folder / step_name(step), painted[step], texts, cfg)
        measured = measure(sd, run, paths, painted, texts, cfg, progress.update)
    verdict = judge(measured, cfg)
    about = {"config": without_usual(asdict(cfg)), "prompts": texts}
    record = {**about, "measured": [asdict(m) for m in measured]}
    files.write_json(folder / RECORD, {**_plain(record), **_plain(verdict._asdict())})
    rows = [[painted[step][i, 0] for step in counts] for i in range(len(texts))]
    labels = ["untrained", *(f"step {step}" for step in counts[1:])]
    image.save_png(folder / GRID, np.asarray(image.grid(rows, labels, texts)))
    return Report(measured, verdict, folder / RECORD, folder / GRID)


def held_out_texts(run: runs.Run, prompts: list[str] | None, template: str = PLACE) -> list[str]:
    """What is painted: the prompts in the template, or common words in the run's own template.

    Raises PickError without prompts where the run has no template, for fewer than two prompts, and
    for a prompt that is a training caption.
    """
    trained = {caption.casefold() for caption in run.captions.values()}
    own = run.config.instance_prompt
    if prompts is None:
        if own is None or STEM not in own:
            raise PickError("give --prompts: texts that were not trained, in the style's words")
        seen = {word for name in run.captions for word in subject(Path(name)).casefold().split()}
        words = [word for word in WORDS if word not in seen][:DEFAULT_PROMPTS]
        texts = [own.replace(STEM, word) for word in words]
        if run.config.caption_case == "lower":
            texts = [text.lower() for text in texts]
    else:
        texts = [template.replace(PLACE, prompt) for prompt in prompts]
    for text in texts:
        if text.casefold() in trained:
            raise PickError(f"{text!r} is a training caption; give prompts that were not trained")
    if len(set(texts)) < max(2, len(texts)):
        raise PickError(f"give at least two different prompts, each once, got {texts}")
    return texts


def _paint_all(sd, run: runs.Run, texts, cfg: PickConfig, advance) -> np.ndarray:
    """uint8 (prompts, seeds, S, S, 3)."""
    size, recipe = runs.picture_size(run, sd), cfg.recipe()
    seeds = range(cfg.seed, cfg.seed + cfg.seeds)
    made = [[paint(sd, t, s, recipe, size, advance=advance) for s in seeds] for t in texts]
    return np.array(made)


def _save(folder: Path, pictures: np.ndarray, texts: list[str], cfg: PickConfig) -> None:
    files.writable_folder(folder)
    for name, text, row in zip(safe_names(texts), texts, pictures, strict=True):
        for i, pixels in enumerate(row):
            made = {"prompt": text, "seed": cfg.seed + i}
            image.save_png(folder / f"{name} {cfg.seed + i}.png", pixels, made)


def measure(
    sd: StableDiffusion,
    run: runs.Run,
    references: list[Path],
    painted: dict[int, np.ndarray],
    texts: list[str],
    cfg: PickConfig,
    advance: Callable[[], None],
) -> list[Measured]:
    """The measures of every count, ascending. sd: the untrained model; painted: uint8 pictures."""
    size = runs.picture_size(run, sd)
    theirs = np.concatenate([image.load(path, size) for path in references])
    style, training = measures.style(theirs), _encode(sd, theirs)
    colours = image.to_uint8(theirs)
    judged = [*texts, *_spread(sorted(set(run.captions.values())), MOST_CAPTIONS)]
    own = np.repeat(np.arange(len(texts)), cfg.seeds)
    rows = []
    for step in sorted(painted):
        pixels = painted[step].reshape(-1, *painted[step].shape[2:])
        ours = image.from_uint8(pixels)
        latents = _encode(sd, ours)
        gaps = measures.to_training(latents, training)
        errors = explain(sd, latents, judged, cfg.draws, advance, reading=cfg)
        rows.append(
            Measured(
                step,
                *measures.style_distance(measures.style(ours), style),
                *measures.recognition(errors, own),
                measures.diversity(latents.reshape(len(texts), cfg.seeds, *latents.shape[1:])),
                measures.nearest(gaps),
                measures.copied(gaps),
                hist(pixels, colours),
            )
        )
    return rows


def _encode(sd: StableDiffusion, images: np.ndarray) -> np.ndarray:
    from jstyle.sd.startup import jt

    return np.concatenate([sd.encode_image(jt.array(x[None])).numpy() for x in images])


def _spread(items: list[str], most: int) -> list[str]:
    if len(items) <= most:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, most).round().astype(int)]


def explain(
    sd: StableDiffusion,
    latents: np.ndarray,
    texts: list[str],
    draws: int,
    advance: Callable[[], None] = lambda: None,
    seed: int = 0,
    reading: Sampling | None = None,
) -> np.ndarray:
    """How badly each text explains each picture: latents (N, 4, h, w) -> errors (N, texts).

    The mean squared error of the network's prediction over `draws` noises and noise levels, the
    same ones for all, which `seed` draws: a diffusion model as a classifier (arXiv:2303.16203,
    section 3). reading: how the texts are read.
    """
    from jstyle.sd.startup import jt

    context = sd.encode_captions(texts, reading or Sampling())
    schedule = sd.schedule
    last = schedule.config.num_train_timesteps - 1
    errors = np.zeros((len(latents), len(texts)))
    for i, x0 in enumerate(latents[:, None]):
        for draw, level in enumerate(np.linspace(*LEVELS, draws)):
            t = round(level * last)
            eps, abar = gaussian(x0.shape, seed + draw), schedule.abar_at(t)
            wanted = target(schedule.kind, x0, eps, abar)
            z_t = jt.array(add_noise(x0, eps, abar))
            for k in range(0, len(texts), ROWS_AT_ONCE):
                rows = context[k : k + ROWS_AT_ONCE]
                with jt.no_grad():
                    out = sd.unet(z_t.repeat(rows.shape[0], 1, 1, 1), t, rows).numpy()
                errors[i, k : k + ROWS_AT_ONCE] += ((out - wanted) ** 2).mean((1, 2, 3)) / draws
            advance()
    return errors


def _plain(value):
    """JSON has no nan: it becomes null."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
