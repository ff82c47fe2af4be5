"""A training run with everything around it: progress bar, TensorBoard, sample pictures, plot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jstyle.sd.reading import read_object
from jstyle.sd.startup import jt

from .config import TrainConfig
from .events import Events
from .plots import plot_losses
from .runs import CAPTIONS, METRICS
from .samples import Sampler, first_captions
from .train import RunReport, train

if TYPE_CHECKING:
    from jstyle.sd.pipeline import StableDiffusion

TENSORBOARD, PLOT = "tensorboard", "loss.png"


class Session:
    """Passes on what `train` reports. `make_bar(total)` makes a tqdm-like progress bar; sd: a model
    that is loaded already and is trained in place, else cfg.model is."""

    def __init__(self, cfg: TrainConfig, make_bar: Callable, sd: StableDiffusion | None = None):
        self.cfg, self.make_bar, self.sd = cfg, make_bar, sd
        self.folder = Path(cfg.out)
        self.bar: Any = None
        self.stage: str | None = None
        self.log: Events | None = None
        self.sampler: Sampler | None = None

    def run(self) -> RunReport:
        if jt.rank > 0:  # another process of the run does all this
            return train(self.cfg, sd=self.sd)
        try:
            report = train(self.cfg, self.progress, self.on_sample, self.sd)
            self.draw()
            return report
        finally:
            for thing in (self.bar, self.log):
                if thing is not None:
                    thing.close()

    def progress(self, stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
        """See `train`: stage "class" counts generated pictures, stage "train" steps."""
        if stage != self.stage:
            if self.bar is not None:
                self.bar.close()
            self.bar, self.stage = self.make_bar(total), stage
            self.bar.set_description(
                "class pictures" if stage == "class" else "training", refresh=False
            )
        self.bar.update(done - self.bar.n)
        if metrics:
            self.bar.set_postfix(loss=f"{metrics['loss']:.4f}", refresh=False)
            if self.log is None:  # not before the first step, when the folder is known to be ours
                self.log = Events(self.folder / TENSORBOARD)
            self.log.add(done, metrics)

    def on_sample(self, step: int, sd: StableDiffusion) -> None:
        if self.sampler is None:
            self.sampler = self._sampler()
        self.sampler(step, sd)

    def _sampler(self) -> Sampler:
        cfg = self.cfg
        prompts = cfg.sample_prompts
        if prompts is None:
            prompts = first_captions(read_object(self.folder / CAPTIONS))
        recipe = cfg.recipe(cfg.sample_steps, cfg.sample_guidance)
        return Sampler(self.folder, prompts, recipe, cfg.size_px)

    def draw(self) -> None:
        """The plot of the losses, and the grid of the samples if there are any."""
        plot_losses(self.folder / METRICS, self.folder / PLOT, self.cfg.save_steps)
        if self.cfg.sample_every is not None:
            self._sampler().write_grid()
