"""The stages that make the pictures of the submission: generate, and refine by a method.

A prompt may have a plan of its own (plans.py) and several candidates; choose.py takes the best.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jstyle.methods import find_method
from jstyle.methods.vocabulary import in_words_of
from jstyle.sd import files, image
from jstyle.sd.facts import CONTENT, STYLE
from jstyle.sd.progress import progress_of
from jstyle.sd.samplers.options import without_usual

from .. import measures, runs
from ..recipe import AVERAGE
from .manifest import digest
from .options import GenerateOptions
from .plans import NEAREST, OF_GENERATE, OF_REFINE, ROTATE, WORDS_FOR_STYLE_IMAGE
from .stages import Stage

if TYPE_CHECKING:
    from .worker import Worker


class Item(NamedTuple):
    """One picture to make: the place of its prompt, the prompt, and which of its candidates."""

    place: int
    prompt: str
    number: int


class Pictures(Stage):
    """One picture per prompt, PROMPT.png, or several candidates, PROMPT/NUMBER.png; an interrupted
    stage keeps those that are there."""

    unit = "picture"

    @property
    def prompts(self) -> tuple[str, ...]:
        return self.task.style.prompts

    @property
    def candidates(self) -> int:
        return self.task.options.generate.candidates

    @property
    def items(self) -> list[Item]:
        numbers = range(self.candidates)
        return [Item(i, prompt, n) for i, prompt in enumerate(self.prompts) for n in numbers]

    def path(self, prompt: str, number: int = 0) -> Path:
        return self.folder / self.file(prompt, number)

    def file(self, prompt: str, number: int = 0) -> str:
        """The name of a picture inside the folder."""
        return f"{prompt}.png" if self.candidates == 1 else f"{prompt}/{number}.png"

    def missing(self) -> list[str]:
        """Files of the pictures that are to be made."""
        return [name for name in self._files() if not (self.folder / name).exists()]

    def _files(self) -> list[str]:
        return [self.file(item.prompt, item.number) for item in self.items]

    def count(self) -> tuple[int, str]:
        return len(self.items), self.unit

    def units(self) -> int:
        return sum(self.evaluations(item) for item in self.items)

    def units_done(self) -> int:
        missing = set(self.missing())
        return sum(
            self.evaluations(item)
            for item in self.items
            if self.file(item.prompt, item.number) not in missing
        )

    def evaluations(self, item: Item) -> int:
        """Of the network, for one picture."""
        raise NotImplementedError

    def outputs(self) -> list[Path]:
        return [self.folder / name for name in self._files()]

    def plans(self, keys: tuple[str, ...]) -> dict[str, dict]:
        """Prompt -> what its plan says of these keys; prompts without are left out."""
        found = {}
        for prompt in self.prompts:
            plan = self.task.options.plan(prompt)
            own = {key: value for key, value in plan.items() if key in keys}
            found |= {prompt: own} if own else {}
        return found


class Generate(Pictures):
    """Picture i has the seed SEED + i, as `jdreambooth generate` gives them; its further candidates
    have that plus the number of prompts, plus twice that, and so on."""

    name, needs = "generate", ("train", "pick")

    def step(self) -> int | None:
        """The saved count that paints; None for the plain model."""
        options = self.task.options
        if "pick" in self.earlier:
            return self.earlier["pick"].current().facts["step"]
        if options.generate.at is not None or options.train is None:
            return options.generate.at
        return options.train.save_steps[-1]

    def step_for(self, prompt: str) -> int | None:
        """The same of one prompt, whose plan may name another count."""
        return self.task.options.plan(prompt).get("at", self.step())

    def seed_for(self, item: Item) -> int:
        recipe = self.task.options.generate
        first = self.task.options.plan(item.prompt).get("seed", recipe.seed + item.place)
        return first + item.number * len(self.prompts)

    def own_inputs(self) -> dict:
        options, step = without_usual(asdict(self.task.options.generate)), self.step()
        init = options.pop("init")
        del options["at"], options["candidates"], options["together"]
        start = {} if init is None else {path.name: digest(path) for path in self._starts(init)}
        result = {} if step is None else self.earlier["train"].result(step)
        about = {"options": options, "init": start, "prompts": [*self.prompts]}
        return {**about, "step": step, "result": result, **self._special()}

    def _special(self) -> dict:
        """What only contests have that use it."""
        options, found = self.task.options, {}
        for name in ("candidates", "together"):
            if getattr(options.generate, name) > 1:
                found[name] = getattr(options.generate, name)
        if plans := self.plans(OF_GENERATE):
            inits = {plan["init"] for plan in plans.values() if plan.get("init") is not None}
            paths = [path for init in sorted(inits) for path in self._starts(init)]
            found["inits"] = {path.name: digest(path) for path in paths}
            found["plans"] = {
                prompt: {**plan, "init": plan.get("init") and Path(plan["init"]).name}
                if "init" in plan
                else plan
                for prompt, plan in plans.items()
            }
            steps = {plan["at"] for plan in plans.values() if "at" in plan}
            found["results"] = {str(s): self.earlier["train"].result(s) for s in sorted(steps)}
        words = {p: options.words[p] for p in self.prompts if p in options.words}
        return {**found, "words": words} if words else found

    def check(self) -> None:
        for prompt in self.prompts:
            recipe = self.task.options.recipe(prompt)
            recipe.check_texts([self.task.options.text(prompt)])
            init = recipe.init
            if init not in (None, AVERAGE):
                image.load(init, 8)

    def evaluations(self, item: Item) -> int:
        recipe = self.task.options.recipe(item.prompt)
        return recipe.evaluations * (1 if recipe.guidance == 1 else 2)

    def make(self, worker: Worker, bar: Callable | None) -> dict:
        missing = set(self.missing())
        rows = {item: self._row(item) for item in self.items}
        due = {
            (step, recipe): groups
            for (step, recipe), items in self._alike().items()
            if (
                groups := [
                    g for g in self._batches(items) if missing & {rows[i]["file"] for i in g}
                ]
            )
        }
        work = sum(r.evaluations * sum(map(len, groups)) for (_, r), groups in due.items())
        with progress_of(bar, work) as progress:
            sd = worker.plain(self.task.setup) if not due else None
            for (step, recipe), groups in due.items():
                sd = self._model(worker, step)
                for group in groups:
                    self._paint(sd, recipe, step, [rows[item] for item in group], progress.update)
        about = self._about(self.task.options.generate, self.step(), sd)
        return {**about, "pictures": list(rows.values())}

    def _alike(self) -> dict[tuple, list[Item]]:
        """(count, recipe) -> the items that are painted so; one count after the other."""
        found: dict[tuple, list[Item]] = {}
        for item in self.items:
            how = self.step_for(item.prompt), self.task.options.recipe(item.prompt)
            found.setdefault(how, []).append(item)
        steps = list(dict.fromkeys(step for step, _ in found))
        return {key: found[key] for key in sorted(found, key=lambda key: steps.index(key[0]))}

    def _batches(self, items: list[Item]) -> list[list[Item]]:
        """The same ones whatever is there already, since a picture's last bits depend on them."""
        size = self.task.options.generate.together
        return [items[i : i + size] for i in range(0, len(items), size)]

    def _row(self, item: Item) -> dict:
        text = self.task.options.text(item.prompt)
        row: dict[str, Any] = {"file": self.file(item.prompt, item.number), "prompt": item.prompt}
        return {**row, "text": text, "seed": self.seed_for(item)}

    def _about(self, recipe: GenerateOptions, step: int | None, sd) -> dict:
        size = self.task.setup.size_px or sd.picture_size
        left_out = ("init", "at", "candidates", "together")[: 3 + (recipe.together == 1)]
        how = {n: v for n, v in without_usual(asdict(recipe)).items() if n not in left_out}
        init = None if recipe.init is None else Path(recipe.init).name
        return {"style": self.task.name, "step": step, "size_px": size, "recipe": how, "init": init}

    def _paint(self, sd, recipe, step: int | None, rows: list[dict], advance: Callable) -> None:
        from ..generate import make_pictures, mean_picture

        about = self._about(recipe, step, sd)
        size, start = about["size_px"], None
        if recipe.init is not None:
            start = mean_picture(self._starts(recipe.init), size)
        texts, seeds = [row["text"] for row in rows], [row["seed"] for row in rows]
        made = image.to_uint8(make_pictures(sd, texts, seeds, recipe, size, start, advance))
        for row, pixels in zip(rows, made, strict=True):
            path = self.folder / row["file"]
            files.writable_folder(path.parent)
            if not path.exists():
                image.save_png(path, pixels, {**about, **row})

    def _model(self, worker, step: int | None):
        setup = self.task.setup
        if step is None:
            return worker.plain(setup)
        return worker.trained(setup, runs.open_run(self.earlier["train"].folder), step)

    def _starts(self, init: str) -> list[Path]:
        return list(self.task.style.references) if init == AVERAGE else [Path(init)]


class Refine(Pictures):
    """The generated pictures in the style of one reference, by a method on the plain model."""

    name, needs = "refine", ("generate",)

    def style_image(self, item: Item) -> Path | None:
        """The reference that is named, the one that style_seed draws, or the next one in turn; None
        for the nearest one, which only the picture tells."""
        references = self.task.style.references
        options = self.task.options.refinement(item.prompt)
        wanted = options.style_image
        for path in references:
            if wanted == path.name or (wanted == path.stem and wanted not in WORDS_FOR_STYLE_IMAGE):
                return path
        if wanted is None or wanted == "seed":
            drawn = np.random.default_rng(options.style_seed).integers(len(references))
            return references[drawn]
        if wanted == ROTATE:
            return references[item.place % len(references)]
        if wanted == NEAREST:
            return None
        raise ValueError(
            f"style {self.task.name}: refine: style_image must be one of "
            f"{', '.join(p.name for p in references)}, {', '.join(WORDS_FOR_STYLE_IMAGE)}, "
            f"got {wanted!r}"
        )

    def check(self) -> None:
        for item in self.items:
            if self.task.options.refinement(item.prompt) is not None:
                self.style_image(item)

    def own_inputs(self) -> dict:
        pictures = self.earlier["generate"].current().outputs
        first = self.task.options.refine
        styles = {p.name: digest(p) for p in self._style_images()}
        about = {"style_image": styles, "pictures": pictures}
        about["options"] = None if first is None else self._facts(first)
        if plans := self.plans(OF_REFINE):
            about["plans"] = plans
        wanted = getattr(first, "style_image", None)
        return {**about, "by": wanted} if wanted in (ROTATE, NEAREST) else about

    def _style_images(self) -> list[Path]:
        """All that may be used."""
        found = set()
        for item in self.items:
            if self.task.options.refinement(item.prompt) is not None:
                path = self.style_image(item)
                found |= set(self.task.style.references) if path is None else {path}
        return sorted(found)

    @staticmethod
    def _facts(cfg) -> dict:
        """The options, but for the image, which counts itself, and for where features are kept."""
        options = find_method(cfg.method).settings(cfg)
        left_out = ("style_image", "style_seed")
        return {name: value for name, value in options.items() if name not in left_out}

    def evaluations(self, item: Item) -> int:
        cfg = self.task.options.refinement(item.prompt)
        if cfg is None:
            return 0
        costs = find_method(cfg.method).evaluations(cfg)
        return costs["content"] + costs["result"]

    def units(self) -> int:
        return super().units() + sum(self._style_costs(self.items))

    def _style_costs(self, items: list[Item]) -> list[int]:
        """Evaluations for every style image, once for each way in which it is used."""
        ways = {}
        for item in items:
            cfg = self.task.options.refinement(item.prompt)
            if cfg is not None:
                costs = find_method(cfg.method).evaluations(cfg)
                ways[_way(cfg), self.style_image(item)] = costs.get(STYLE, 0)
        return list(ways.values())

    def make(self, worker: Worker, bar: Callable | None) -> dict:
        sd, missing = worker.plain(self.task.setup), set(self.missing())
        rows = dict(zip(self.items, self._generated(), strict=True))
        groups: dict[Any, list[Item]] = {}
        for item, row in rows.items():
            cfg = self.task.options.refinement(item.prompt)
            if cfg is None:
                self._keep(row)
                continue
            style = self.style_image(item) or self._nearest(sd, self._before(row), cfg)
            row["style_image"] = style.name
            if row["file"] in missing:
                groups.setdefault((_way(cfg), style), []).append(item)
        with progress_of(bar, self.units() - self.units_done()) as progress:
            for (_, style), items in groups.items():
                self._refine(sd, style, [rows[item] for item in items], progress.update)
        names = dict.fromkeys(row["style_image"] for row in rows.values() if "style_image" in row)
        return {"style_image": ", ".join(names) or None, "pictures": list(rows.values())}

    def _refine(self, sd, style: Path, rows: list[dict], update: Callable) -> None:
        """Rows of one method, with one style image."""
        cfg = self.task.options.refinement(rows[0]["prompt"])
        painter = find_method(cfg.method)(sd, scratch=self.folder)
        held = dict.fromkeys(painter.roles, 1)
        told = self._facts(cfg)
        cfg = painter.settle(cfg, painter.load(style, cfg).shape, held)

        def advance(done: int, total: int) -> None:
            update()

        sides = {}
        if STYLE in painter.roles:
            sides[STYLE] = painter.prepare(STYLE, painter.load(style, cfg), cfg, advance)
        for row in rows:
            content, worded = painter.load(self._before(row), cfg), in_words_of(cfg, row["text"])
            sides[CONTENT] = painter.prepare(CONTENT, content, worded, advance)
            made = image.to_uint8(painter.apply(sides, worded, advance))[0]
            about = {"style": self.task.name, "refine": told, **row}
            path = self.folder / row["file"]
            files.writable_folder(path.parent)
            image.save_png(path, made, about)

    def _keep(self, row: dict) -> None:
        """Leave a picture as it was generated."""
        path = self.folder / row["file"]
        if not path.exists():
            files.writable_folder(path.parent)
            with files.atomic_write(path) as part:
                shutil.copyfile(self._before(row), part)

    def _nearest(self, sd, picture: Path, cfg) -> Path:
        """The reference whose parts lie most as in the picture, whatever their colours."""
        from jstyle.sd.startup import jt

        def latents(path: Path) -> np.ndarray:
            return sd.encode_image(jt.array(sd.load_image(path, cfg.size_px))).numpy()

        theirs = np.concatenate([latents(path) for path in self.task.style.references])
        gaps = measures.to_training(latents(picture), theirs)[0]
        return self.task.style.references[int(gaps.argmin())]

    def _before(self, row: dict) -> Path:
        return self.earlier["generate"].folder / row["file"]

    def _generated(self) -> list[dict]:
        return [dict(row) for row in self.earlier["generate"].current().facts["pictures"]]


def _way(cfg) -> tuple:
    """What makes two refinements the same but for their style image."""
    return cfg.method, *(item for item in asdict(cfg).items() if item[0] != "style_image")
