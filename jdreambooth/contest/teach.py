"""The stages before there are pictures: prior, train, pick."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jstyle.sd.folders import remove_folder
from jstyle.sd.picture_files import pictures_in
from jstyle.sd.progress import Silent, progress_of
from jstyle.sd.prompts.parse import WEBUI, parse_caption
from jstyle.sd.samplers.options import without_usual
from jstyle.sd.steps import step_folders, step_name

from .. import runs
from ..captions import make_captions
from ..checkpoint import CheckpointError
from ..config import FREE_ON_RESUME, TrainConfig
from ..recipe import PLACE
from ..trainables import find_trainable
from .folders import locked
from .manifest import Manifest, digest, key_of
from .stages import Stage

if TYPE_CHECKING:
    from .worker import Worker

log = logging.getLogger("jdreambooth")

PRIOR_OPTIONS = ("class_prompt", "num_class_images", "class_steps", "class_guidance", "seed", "rng")
PRIOR_OPTIONS += ("sampler", "sigmas", "eta", "rescale", "syntax", "clip_skip")
KNOWN_BY_CONTENT = ("instance_dir", "captions", "instance_prompt", "caption_case", "class_dir")
THE_SAME_FOR_ALL = ("model", "variant", "prediction", "tokenizer", "size_px")
CHECKPOINTS = "checkpoints"


def references_of(stage: Stage) -> dict[str, str]:
    """Name -> digest of the style's reference pictures."""
    return {path.name: digest(path) for path in stage.task.style.references}


def captions_of(stage: Stage) -> dict[str, str]:
    """Name of a reference -> its caption in training."""
    cfg = stage.task.options.train
    paths = list(stage.task.style.references)
    return make_captions(paths, cfg.instance_prompt, cfg.captions, cfg.caption_case, cfg.syntax)


class Prior(Stage):
    """Pictures of the class by the plain model, in a folder that styles share."""

    name, unit, needs = "prior", "class picture", ()

    @property
    def folder(self) -> Path:
        return self.task.setup.out.prior(key_of(self.inputs()))

    @property
    def pictures(self) -> Path:
        given = self.task.options.train.class_dir
        return self.folder if given is None else Path(given)

    def own_inputs(self) -> dict:
        cfg = self.task.options.train
        asked = {name: v for name, v in cfg.to_json().items() if name in PRIOR_OPTIONS}
        return {**asked, "given": self._given()}

    def _given(self) -> dict[str, str]:
        """Pictures that the user has put into the folder."""
        folder = self.task.options.train.class_dir
        there = [] if folder is None or not Path(folder).is_dir() else pictures_in(folder)
        return {p.name: digest(p) for p in there if not p.name.startswith("class-")}

    def count(self) -> tuple[int, str]:
        return self._wanted(), self.unit

    def _wanted(self) -> int:
        return max(0, self.task.options.train.num_class_images - len(self._given()))

    def units(self) -> int:
        return self._wanted() * self._per_picture()

    def units_done(self) -> int:
        made = len(list(self.pictures.glob("class-*.png")))
        return min(made, self._wanted()) * self._per_picture()

    def _per_picture(self) -> int:
        cfg = self.task.options.train
        return cfg.class_steps * (1 if cfg.class_guidance == 1 else 2)

    def run(self, worker: Worker, bar: Callable | None = None) -> Manifest:
        with locked(self.folder):  # another style may want the same ones
            return self.current() or super().run(worker, bar)

    def make(self, worker: Worker, bar: Callable | None) -> dict:
        from ..prior import make_class_images

        cfg, sd = self.task.options.train, worker.plain(self.task.setup)
        size = cfg.size_px or sd.picture_size
        missing = (self.units() - self.units_done()) // self._per_picture()
        with progress_of(bar, missing) as progress:
            self._made = make_class_images(
                sd,
                self.pictures,
                cfg.class_prompt,
                cfg.num_class_images,
                size,
                cfg.recipe(cfg.class_steps, cfg.class_guidance),
                lambda done, total: progress.update(),
                cfg.skip_bad_images,
            )
        return {"folder": str(self.pictures), "pictures": len(self._made)}

    def outputs(self) -> list[Path]:
        return list(self._made)


class Train(Stage):
    name, unit, needs = "train", "step", ("prior",)

    @property
    def config(self) -> TrainConfig:
        """As `jdreambooth train` would be given it."""
        places: dict[str, Any] = {"instance_dir": str(self.task.style.references[0].parent)}
        if "prior" in self.earlier:
            places["class_dir"] = str(self.earlier["prior"].pictures)
        places |= {"out": str(self.folder), "device": self.task.setup.device, "resume": "auto"}
        return replace(self.task.options.train, **places)

    def own_inputs(self) -> dict:
        cfg = self.task.options.train
        left_out = {*KNOWN_BY_CONTENT, *THE_SAME_FOR_ALL, *PRIOR_OPTIONS, *FREE_ON_RESUME}
        left_out -= {
            "seed",
            "rng",
            "sampler",
            "sigmas",
            "eta",
            "rescale",
            "save_at",
            "class_prompt",
        }
        prior = self.earlier.get("prior")
        return {
            "options": {name: v for name, v in cfg.to_json().items() if name not in left_out},
            "references": references_of(self),
            "captions": captions_of(self),
            "prior": {} if prior is None else _names(prior.current().outputs),
        }

    def check(self) -> None:
        captions_of(self)

    def count(self) -> tuple[int, str]:
        return self.task.options.train.steps, self.unit

    def units(self) -> int:
        return self.task.options.train.steps * self._per_step()

    def _per_step(self) -> int:
        cfg = self.task.options.train
        return cfg.accumulation * cfg.batch * (2 if cfg.prior_weight > 0 else 1)

    def units_done(self) -> int:
        done = max(step_folders(self.folder / CHECKPOINTS), default=0)
        return done * self._per_step()

    def repair(self, found: Manifest) -> None:
        remove_folder(self.folder)  # what is missing was passed long ago

    def make(self, worker: Worker, bar: Callable | None) -> dict:
        try:
            report = self._train(worker, bar)
        except CheckpointError as error:  # left by a run from other places, with other folders
            log.warning("style %s: training starts again (%s)", self.task.name, error)
            remove_folder(self.folder / CHECKPOINTS)
            report = self._train(worker, bar)
        return {
            "steps": report.steps,
            "loss": report.loss,
            "tensors": report.tensors,
            "parameters": report.parameters,
            "saved": sorted(report.results),
        }

    def _train(self, worker, bar: Callable | None):
        from ..session import Session

        trainable = find_trainable(self.config.train)
        sd = worker.for_training(self.task.setup, trainable)
        try:
            return Session(self.config, bar or Silent, sd).run()
        finally:
            if trainable.whole_model:
                worker.forget_model()
            else:
                worker.plain(self.task.setup)  # takes off what was trained

    def outputs(self) -> list[Path]:
        kept = [runs.CONFIG, runs.CAPTIONS, runs.METRICS]
        saved = runs.open_run(self.folder).results.values()
        made = [path for folder in saved for path in sorted(folder.rglob("*")) if path.is_file()]
        return [self.folder / name for name in kept] + made

    def result(self, step: int | None = None) -> dict[str, str]:
        """Name -> digest of the files saved at a count, or at all counts."""
        saved = "step-" if step is None else f"{step_name(step)}/"
        found = self.current().outputs
        return {name: value for name, value in found.items() if name.startswith(saved)}


class Pick(Stage):
    name, unit, needs = "pick", "picture", ("train",)

    def texts(self) -> list[str]:
        """Prompts of the contest, evenly spread, but none that was trained as it is."""
        options, trained = self.task.options, {c.casefold() for c in captions_of(self).values()}
        words = [options.words.get(p, p) for p in self.task.style.prompts]
        texts = [options.generate.template.replace(PLACE, word) for word in words]
        texts = [text for text in dict.fromkeys(texts) if text.casefold() not in trained]
        wanted = min(options.pick.prompts, len(texts))
        return [texts[i] for i in np.linspace(0, len(texts) - 1, wanted).round().astype(int)]

    def check(self) -> None:
        for text in self.texts():
            if self.task.options.pick.syntax == WEBUI:
                parse_caption(text)
        if len(self.texts()) < 2:
            raise ValueError(
                f"style {self.task.name}: pick needs two prompts that are not training captions, "
                f"there are {len(self.texts())}; leave it out (pick: false)"
            )

    def own_inputs(self) -> dict:
        return {
            "options": without_usual(asdict(self.task.options.pick)),
            "texts": self.texts(),
            "references": references_of(self),
            "results": self.earlier["train"].result(),
        }

    def count(self) -> tuple[int, str]:
        counts = 1 + len(self.task.options.train.save_steps)
        return counts * len(self.texts()) * self.task.options.pick.seeds, self.unit

    def units(self) -> int:
        cfg = self.task.options.pick
        return self.count()[0] * (cfg.steps * (1 if cfg.guidance == 1 else 2) + cfg.draws)

    def make(self, worker: Worker, bar: Callable | None) -> dict:
        from ..pick import pick

        run, setup = self.earlier["train"].folder, self.task.setup
        load = partial(worker.trained, setup)
        cfg = self.task.options.pick
        done = pick(run, self.texts(), cfg, setup.device, bar, self.folder, load)
        step, note = done.verdict.step, done.verdict.note
        if step is None:  # all have collapsed: the least trained one is the least bad
            step = self.task.options.train.save_steps[0]
        return {"step": step, "recommended": done.verdict.step, "note": note}

    def outputs(self) -> list[Path]:
        from ..pick import GRID, RECORD

        return [self.folder / RECORD, self.folder / GRID]


def _names(outputs: dict[str, str]) -> dict[str, str]:
    return {Path(name).name: value for name, value in outputs.items()}
