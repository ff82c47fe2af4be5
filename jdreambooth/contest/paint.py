"""The stages that make the pictures of the submission: generate, and refine by a method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jstyle.methods import Method, find_method
from jstyle.sd import image
from jstyle.sd.progress import progress_of

from .. import runs
from ..recipe import AVERAGE
from .manifest import digest
from .stages import Stage

if TYPE_CHECKING:
    from .worker import Worker


class Pictures(Stage):
    """One picture per prompt, PROMPT.png; an interrupted stage keeps those that are there."""

    unit = "picture"

    @property
    def prompts(self) -> tuple[str, ...]:
        return self.task.style.prompts

    def path(self, prompt: str) -> Path:
        return self.folder / f"{prompt}.png"

    def missing(self) -> list[str]:
        return [prompt for prompt in self.prompts if not self.path(prompt).exists()]

    def count(self) -> tuple[int, str]:
        return len(self.prompts), self.unit

    def units(self) -> int:
        return len(self.prompts) * self.per_picture()

    def units_done(self) -> int:
        return (len(self.prompts) - len(self.missing())) * self.per_picture()

    def per_picture(self) -> int:
        raise NotImplementedError

    def outputs(self) -> list[Path]:
        return [self.path(prompt) for prompt in self.prompts]


class Generate(Pictures):
    """Picture i has the seed SEED + i, as `jdreambooth generate` gives them."""

    name, needs = "generate", ("train", "pick")

    def step(self) -> int | None:
        """The saved count that paints; None for the plain model."""
        options = self.task.options
        if "pick" in self.earlier:
            return self.earlier["pick"].current().facts["step"]
        if options.generate.at is not None or options.train is None:
            return options.generate.at
        return options.train.save_steps[-1]

    def own_inputs(self) -> dict:
        options, step = asdict(self.task.options.generate), self.step()
        init = options.pop("init")
        del options["at"]
        start = {} if init is None else {path.name: digest(path) for path in self._starts()}
        result = {} if step is None else self.earlier["train"].result(step)
        about = {"options": options, "init": start, "prompts": [*self.prompts]}
        return {**about, "step": step, "result": result}

    def check(self) -> None:
        if self.task.options.generate.init not in (None, AVERAGE):
            image.load(self.task.options.generate.init, 8)

    def per_picture(self) -> int:
        recipe = self.task.options.generate
        return recipe.evaluations * (1 if recipe.guidance == 1 else 2)

    def make(self, worker: Worker, bar: Callable | None) -> dict:
        from ..generate import mean_picture, paint

        recipe, step = self.task.options.generate, self.step()
        sd = self._model(worker, step)
        size = self.task.setup.size_px or sd.picture_size
        start = None if recipe.init is None else mean_picture(self._starts(), size)
        about = {"style": self.task.name, "step": step, "size_px": size}
        about["recipe"] = {n: v for n, v in asdict(recipe).items() if n not in ("init", "at")}
        about["init"] = None if recipe.init is None else Path(recipe.init).name
        rows, missing = [], set(self.missing())
        with progress_of(bar, len(missing) * recipe.evaluations) as progress:
            for i, prompt in enumerate(self.prompts):
                seed, text = recipe.seed + i, recipe.text(prompt)
                rows.append({"file": f"{prompt}.png", "prompt": prompt, "text": text, "seed": seed})
                if prompt in missing:
                    pixels = paint(sd, text, seed, recipe, size, start, advance=progress.update)
                    image.save_png(self.path(prompt), pixels, {**about, **rows[-1]})
        return {**about, "pictures": rows}

    def _model(self, worker, step: int | None):
        setup = self.task.setup
        if step is None:
            return worker.plain(setup)
        return worker.trained(setup, runs.open_run(self.earlier["train"].folder), step)

    def _starts(self) -> list[Path]:
        init = self.task.options.generate.init
        return list(self.task.style.references) if init == AVERAGE else [Path(init)]


class Refine(Pictures):
    """The generated pictures in the style of one reference, by a method on the plain model."""

    name, needs = "refine", ("generate",)

    def style_image(self) -> Path:
        """The reference that is named, or the one that style_seed draws."""
        references, options = self.task.style.references, self.task.options.refine
        if options.style_image is None:
            drawn = np.random.default_rng(options.style_seed).integers(len(references))
            return references[drawn]
        for path in references:
            if options.style_image in (path.name, path.stem):
                return path
        raise ValueError(
            f"style {self.task.name}: refine: style_image must be one of "
            f"{', '.join(p.name for p in references)}, got {options.style_image!r}"
        )

    def check(self) -> None:
        self.style_image()

    def own_inputs(self) -> dict:
        style, pictures = self.style_image(), self.earlier["generate"].current().outputs
        style_image = {style.name: digest(style)}
        return {"options": self._facts(), "style_image": style_image, "pictures": pictures}

    def _facts(self) -> dict:
        """The options, but for the image, which counts itself, and for where features are kept."""
        options = self.method.settings(self.task.options.refine)
        left_out = ("style_image", "style_seed")
        return {name: value for name, value in options.items() if name not in left_out}

    @property
    def method(self) -> type[Method]:
        return find_method(self.task.options.refine.method)

    def _costs(self) -> dict[str, int]:
        return self.method.evaluations(self.task.options.refine)

    def per_picture(self) -> int:
        return self._costs()["content"] + self._costs()["result"]

    def units(self) -> int:
        return super().units() + self._costs()["style"]

    def make(self, worker: Worker, bar: Callable | None) -> dict:
        cfg, style, missing = self.task.options.refine, self.style_image(), self.missing()
        painter = self.method(worker.plain(self.task.setup), scratch=self.folder)
        held = dict.fromkeys(painter.roles, 1)
        cfg = painter.settle(cfg, painter.load(style, cfg).shape, held)
        with progress_of(bar, self.units() - self.units_done()) as progress:

            def advance(done: int, total: int) -> None:
                progress.update()

            sides = {}
            if missing:
                sides["style"] = painter.prepare("style", painter.load(style, cfg), cfg, advance)
            rows = [self._row(row, style) for row in self._generated()]
            for row in rows:
                if row["prompt"] in missing:
                    content = painter.load(self.earlier["generate"].path(row["prompt"]), cfg)
                    sides["content"] = painter.prepare("content", content, cfg, advance)
                    made = image.to_uint8(painter.apply(sides, cfg, advance))[0]
                    about = {"style": self.task.name, "refine": self._facts(), **row}
                    image.save_png(self.path(row["prompt"]), made, about)
        return {"style_image": style.name, "pictures": rows}

    def _generated(self) -> list[dict]:
        return self.earlier["generate"].current().facts["pictures"]

    @staticmethod
    def _row(row: dict, style: Path) -> dict:
        return {**row, "style_image": style.name}
