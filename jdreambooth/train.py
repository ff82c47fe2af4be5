"""The training loop. Only `Run.step` and what it calls touch the network; all else is around it."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jstyle.sd import files, fingerprint, runtime
from jstyle.sd.pipeline import StableDiffusion
from jstyle.sd.startup import jt
from jstyle.sd.steps import step_name

from . import checkpoint, prior
from .captions import find_captions
from .checkpointing import checkpointed
from .config import TrainConfig
from .data import Batch, Dataset, encode_pictures
from .ema import Average
from .instances import Instance, find_instances, told
from .loss import dreambooth_loss
from .optimizer import AdamW, clip_gradients, global_norm, lr_at
from .precision import LossScale, in_half, require_precision
from .ranks import Ranks
from .runs import CAPTIONS, CONFIG, METRICS
from .start import CHECKPOINTS, add_line, find_state, open_folder, read_lines, write_lines
from .trainables import find_trainable
from .trainables.base import count, fill, values_of

log = logging.getLogger("jdreambooth")


class TrainingError(RuntimeError):
    """A run that cannot go on; one line that says at which step and why."""


@dataclass(frozen=True)
class RunReport:
    """What a run did. results: step -> folder with the LoRA file or the model.

    A count of save_at that a resumed run had passed already, without saving there, is not in it.
    """

    folder: Path
    tensors: int
    parameters: int
    steps: int
    loss: float
    seconds: float
    results: dict[int, Path]


def train(
    cfg: TrainConfig,
    progress: Callable[[str, int, int, dict], None] | None = None,
    on_sample: Callable[[int, StableDiffusion], None] | None = None,
    sd: StableDiffusion | None = None,
) -> RunReport:
    """Train as the config says, into the folder cfg.out.

    progress(stage, done, total, metrics): after every class picture (stage "class") and optimiser
    step (stage "train"). on_sample(step, sd): before the first step (0) and every cfg.sample_every
    steps; sd holds what would be saved. sd: a model that is loaded already and is trained in place;
    otherwise cfg.model is.
    Raises ValueErrors for bad input, OSError if something cannot be written, TrainingError if the
    loss is no longer a number.
    """
    device = runtime.resolved(cfg.device)
    require_precision(cfg.precision, device)
    with runtime.use(device), ExitStack() as stack:
        return Run(cfg, progress, on_sample, sd, stack).go()


def _require_apart(cfg: TrainConfig) -> None:
    """Raise ValueError for a run in a folder of pictures, where its plot would be one of them."""
    for name in ("instance_dir", "class_dir"):
        folder = getattr(cfg, name)
        if folder is not None and Path(folder).resolve() == Path(cfg.out).resolve():
            raise ValueError(f"{cfg.out}: is also the {name}; give the run a folder of its own")


class Run:
    """One run: what it consists of, made in order."""

    def __init__(self, cfg: TrainConfig, progress, on_sample, sd, stack: ExitStack | None = None):
        """stack: for how long the run has its folder for itself; None: as long as it is there."""
        self.cfg, self.on_sample = cfg, on_sample
        self.progress = progress or (lambda stage, done, total, metrics: None)
        self.started = time.monotonic()
        self.ranks = Ranks()
        self.folder = Path(cfg.out)
        _require_apart(cfg)
        self.stack = ExitStack() if stack is None else stack
        self.ranks.first_does(lambda: self.stack.enter_context(open_folder(cfg)))
        state = find_state(cfg, self.folder, self.ranks.count)
        pictures = find_instances(cfg.instance_dir, cfg.skip_bad_images)
        found = find_captions(
            pictures, cfg.instance_prompt, cfg.captions, cfg.caption_case, cfg.syntax
        )
        captions = found.texts
        self.ranks.require_same("pictures and captions", json.dumps(captions))
        if self.ranks.first:
            log.info("%s: %s; captions: %s", cfg.instance_dir, told(pictures), found.told())
        self.captions = captions
        self.sd = sd or StableDiffusion.from_pretrained(cfg.source)
        self.data = self._dataset(pictures, captions)
        self.trained = find_trainable(cfg.train)(self.sd, cfg)
        named = self.trained.parameters
        self.optimizer = AdamW(named, cfg.weight_decay, _rates(cfg, named))
        self.scale = None if cfg.precision == "float32" else LossScale()
        self.average = None if cfg.ema_decay is None else Average(named, cfg.ema_decay)
        self.trained.know(self.data.captions())
        self.fingerprint = self.data.fingerprint()
        self.model = fingerprint.of_model(cfg.source)
        self.start = 0 if state is None else self._restore(state)
        self.ranks.share(self._tensors())
        self._tell_passed()

    def _tell_passed(self) -> None:
        """Counts asked for that this run went past without saving cannot be made up."""
        passed = [n for n in self.cfg.save_steps if n < self.start]
        lost = [str(n) for n in passed if not self.result_folder(n).exists()]
        if lost:
            log.warning(
                "save_at %s: the run is at step %d already and kept nothing there; "
                "start a new run to get it",
                ", ".join(lost),
                self.start,
            )

    def _dataset(self, pictures: list[Instance], captions: dict[str, str]) -> Dataset:
        cfg, sd = self.cfg, self.sd
        size = cfg.size_px or sd.picture_size
        sd.check_size(size, size)
        views: dict[str, Any] = {
            "crops": cfg.random_crops,
            "flip": cfg.random_flip,
            "seed": cfg.seed,
        }
        classes = []
        if cfg.prior_weight > 0:
            made = self.ranks.first_does(lambda: self._class_images(size))
            made = made or self._class_images(size)
            classes = encode_pictures(sd, made, size, **views)
        instances = {p.path: captions[p.name] for p in pictures}
        often = {p.path: p.repeats for p in pictures}
        return Dataset(
            encode_pictures(sd, instances, size, **views, repeats=often),
            classes,
            cfg.batch,
            cfg.accumulation,
            cfg.seed,
            sd.schedule.config.num_train_timesteps,
            cfg.offset_noise,
            cfg.caption_dropout,
            (self.ranks.rank, self.ranks.count),
        )

    def _class_images(self, size_px: int) -> dict[Path, str]:
        """Pictures of the class and their captions; those that are missing are generated."""
        cfg = self.cfg
        return prior.make_class_images(
            self.sd,
            cfg.class_dir or self.folder / "class",
            cfg.class_prompt,
            cfg.num_class_images,
            size_px,
            cfg.recipe(cfg.class_steps, cfg.class_guidance),
            lambda done, total: self.progress("class", done, total, {}),
            cfg.skip_bad_images,
        )

    def go(self) -> RunReport:
        cfg, metrics = self.cfg, read_lines(self.folder / METRICS, self.start)
        if self.ranks.first:
            files.write_json(self.folder / CONFIG, cfg.of_run())
            files.write_json(self.folder / CAPTIONS, self.captions)
            write_lines(self.folder / METRICS, metrics)
        with ExitStack() as stack:
            if cfg.gradient_checkpointing:
                stack.enter_context(checkpointed(self.sd.unet, self.sd.text_encoder))
            if self.ranks.first and self.start == 0 and self._samples_at(0):
                self.on_sample(0, self.sd)
            for step in range(self.start, cfg.steps):
                values = self.step(step)
                self._require_finite(step, values)
                metrics.append({"step": step + 1, **values})
                if self.ranks.first:
                    add_line(self.folder / METRICS, metrics[-1])
                    self._save(step + 1)
                self.progress("train", step + 1, cfg.steps, values)
        self.ranks.first_does(lambda: None)  # the others wait until everything is written
        return RunReport(
            folder=self.folder,
            tensors=len(self.trained.parameters),
            parameters=count(self.trained.parameters),
            steps=cfg.steps,
            loss=metrics[-1]["loss"],
            seconds=time.monotonic() - self.started,
            results={n: f for n in cfg.save_steps if (f := self.result_folder(n)).exists()},
        )

    def step(self, step: int) -> dict[str, float]:
        """One optimiser step. Returns its loss, the loss's parts, learning rate, gradient norm.

        A step whose gradients overflow in half precision changes nothing; its rate and norm are 0.
        """
        cfg, losses = self.cfg, []
        for micro in range(cfg.accumulation):
            losses.append(self._backward(self.data.batch(step, micro)))
        means = {name: float(np.mean([part[name].item() for part in losses])) for name in losses[0]}
        means = self.ranks.means(means)
        self.ranks.average(self.optimizer.gradients)
        if self.scale is not None and not self._unscale():
            return {**means, "lr": 0.0, "grad_norm": 0.0}
        gradients, clip = self.optimizer.gradients, cfg.max_grad_norm
        norm = clip_gradients(gradients, clip) if clip else global_norm(gradients)
        lr = lr_at(step, cfg.learning_rate, cfg.steps, cfg.lr_schedule, cfg.warmup_steps)
        self.optimizer.step(lr)
        if self.average is not None:
            self.average.update()
        jt.sync_all()
        return {**means, "lr": lr, "grad_norm": norm.item()}

    def _backward(self, batch: Batch) -> dict[str, jt.Var]:
        """Add the batch's gradients. Returns the loss and its parts; waits for the device."""
        cfg, unet = self.cfg, self.sd.unet
        with in_half(unet) if self.scale is not None else nullcontext(unet) as network:
            loss, parts = dreambooth_loss(
                network,
                batch,
                self.trained.context(batch.captions),
                self.sd.schedule,
                cfg.prior_weight,
                cfg.min_snr_gamma,
            )
            scale = 1.0 if self.scale is None else self.scale.value
            self.optimizer.backward(loss * (scale / cfg.accumulation))
        jt.sync_all()  # frees the graph of this forward pass
        return {"loss": loss.detach(), **{name: part.detach() for name, part in parts.items()}}

    def _unscale(self) -> bool:
        """Undo the loss's scale; False if the gradients overflowed and another scale is tried."""
        for g in self.optimizer.gradients:
            g.update(g / self.scale.value)
        overflow = not math.isfinite(global_norm(self.optimizer.gradients).item())
        if overflow and self.scale.value > 1:
            self.scale.lower()
            self.optimizer.gradients = []
            return False
        self.scale.keep()
        return True

    def _require_finite(self, step: int, values: dict[str, float]) -> None:
        wrong = [name for name, value in values.items() if not math.isfinite(value)]
        if wrong:
            state = checkpoint.newest_state(self.folder / CHECKPOINTS)
            kept = f"the last good state is {state.folder}" if state else "there is no state yet"
            raise TrainingError(
                f"step {step + 1}: {wrong[0]} is {values[wrong[0]]}, so training stops; {kept}; "
                "try a lower learning_rate"
            )

    def _save(self, done: int) -> None:
        """Samples, results and states that are due after `done` steps; the state comes last."""
        cfg = self.cfg
        sample = self._samples_at(done)
        if sample or done in cfg.save_steps:
            with self.average.in_place() if self.average is not None else nullcontext():
                if done in cfg.save_steps:
                    about = {"step": str(done), "config": json.dumps(cfg.shaping())}
                    with checkpoint.whole_folder(self.result_folder(done)) as part:
                        self.trained.save(part, about)
                if sample:
                    self.on_sample(done, self.sd)
        every = cfg.checkpoint_every
        if done == cfg.steps or every and done % every == 0:
            facts = {"step": done, "config": cfg.shaping(), "data": self.fingerprint}
            facts["model"] = self.model
            facts["updates"] = self.optimizer.steps_done
            if self.ranks.count > 1:
                facts["ranks"] = self.ranks.count
            if self.scale is not None:
                facts["loss_scale"] = vars(self.scale)
            arrays = values_of(self._tensors())
            checkpoint.save_state(self.folder / CHECKPOINTS, arrays, facts, cfg.keep_checkpoints)

    def _samples_at(self, done: int) -> bool:
        every = self.cfg.sample_every
        return self.on_sample is not None and every is not None and done % every == 0

    def result_folder(self, step: int) -> Path:
        return self.folder / step_name(step)

    def _tensors(self) -> dict[str, jt.Var]:
        """Everything that changes in training, by name."""
        kinds = {"value": self.trained.parameters, "m": self.optimizer.m, "v": self.optimizer.v}
        if self.average is not None:
            kinds["average"] = self.average.values
        return {f"{kind}/{n}": var for kind, named in kinds.items() for n, var in named.items()}

    def _restore(self, state: checkpoint.State) -> int:
        """Go on from a state; returns how many steps it has done."""
        if state.facts["data"] != self.fingerprint:
            raise checkpoint.CheckpointError(
                f"{state.folder}: the training pictures or captions are not the same any more"
            )
        if state.facts.get("model", self.model) != self.model:  # older states do not know
            raise checkpoint.CheckpointError(
                f"{state.folder}: the files of {self.cfg.source} are not the same any more"
            )
        tensors = self._tensors()
        checkpoint.require_fit(state, {n: tuple(var.shape) for n, var in tensors.items()})
        for name, var in tensors.items():
            fill(var, state.tensors[name])
            if not name.startswith("value/"):
                var.stop_grad()
        jt.sync_all()
        self.optimizer.steps_done = state.facts["updates"]
        if self.average is not None:
            self.average.updates = state.facts["updates"]
        if self.scale is not None:
            self.scale = LossScale(**state.facts["loss_scale"])
        log.info("going on from %s", state.folder)
        return state.facts["step"]


def _rates(cfg: TrainConfig, names: Iterable[str]) -> dict[str, float]:
    """Factors on the learning rate, where it is another one."""
    if cfg.text_learning_rate is None:
        return {}
    rate = cfg.text_learning_rate / cfg.learning_rate
    return {name: rate for name in names if name.startswith("text_encoder.")}
