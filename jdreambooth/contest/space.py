"""What `contest tune` may change for a style, beginning with what contest.yaml says.

A choice is a list of values with the configuration's own first. Trainings cost most, so a few of
them are drawn at the start, and every trial takes one of those with one of its saved counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from jstyle.methods import DEFAULT, find_method

from ..recipe import AVERAGE
from .options import StyleOptions
from .plans import BY_SEED, NEAREST, NONE, ROTATE
from .search_task import SearchTask

RATES, RANKS, PRIORS = (0.5, 1.0, 2.0), (0.5, 1.0, 2.0), (0.0, 0.5, 1.0)
TEMPLATES = (  # captions in training, texts in painting
    ("{stem} in style_{style}", "{prompt} in style_{style}"),
    ("a {stem} in style{style} style", "a {prompt} in style{style} style"),
    ("{stem}, in the style of {style}", "{prompt}, in the style of {style}"),
)
FRACTIONS = (8, 4, 2, 1)  # of the steps: counts that a training saves at least
MEAN = (AVERAGE, 0.8)  # init, strength
STARTS = ((AVERAGE, 0.9), MEAN, (AVERAGE, 0.7))
GUIDANCE = (0.6, 1.5)  # in parts of the configuration's
SOME_GUIDANCE = (4.0,)  # where that has none
SAMPLERS = ("ddim", "dpm++2m", "euler")
GAMMAS, TAUS = (0.3, 0.5, 0.75, 0.9), (1.0, 1.5, 2.0)
STYLE_IMAGES = (BY_SEED, ROTATE, NEAREST)


@dataclass(frozen=True)
class Space:
    """trainings: changes to the section train, the first of them the configuration's own; None for
    a style that is not trained. choices: name -> values. base: name -> where the own value is."""

    trainings: tuple[dict, ...] | None
    choices: Mapping[str, list]
    base: Mapping[str, int]

    def first(self) -> list[dict[str, int]]:
        """What is tried before anything is drawn: the configuration, with the references' mean to
        start from, and with each other method."""
        others = [{"start": i} for i, start in enumerate(self.choices["start"]) if start == MEAN]
        others += [{"method": i} for i in range(1, len(self.choices["method"]))]
        return [dict(self.base), *({**self.base, **one} for one in others)]

    def suggest(self, trial: Any) -> dict[str, Any]:
        """The values of an Optuna trial by name; of choices that do nothing there, the first."""
        found = {name: values[0] for name, values in self.choices.items()}
        for name in self._needed(found):
            place = trial.suggest_categorical(name, list(range(len(self.choices[name]))))
            found[name] = self.choices[name][place]
        return found

    def _needed(self, found: Mapping[str, Any]):
        """Names to ask for, in order; those of a method once that is known."""
        for name in self.choices:
            if name in OF_METHODS:
                method = found["method"]
                known = (
                    () if method == NONE else {f.name for f in fields(find_method(method).Config)}
                )
                if method == NONE or (name != "style_image" and name not in known):
                    continue
            yield name

    def changes(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """What these values change in the sections of a style."""
        start = found["start"]
        generate = {"guidance": found["guidance"], "sampler": found["sampler"]}
        generate |= {"init": None} if start is None else {"init": start[0], "strength": start[1]}
        made: dict[str, Any] = {"pick": False, "generate": generate}
        if self.trainings is not None:
            training = self.trainings[found["training"]]
            made["train"] = {k: v for k, v in training.items() if k != "template"}
            generate |= {"at": found["at"]}
            generate |= {"template": training["template"]} if "template" in training else {}
        made["refine"] = NONE
        if found["method"] != NONE:
            known = {f.name for f in fields(find_method(found["method"]).Config)}
            made["refine"] = {"method": found["method"], "style_image": found["style_image"]}
            made["refine"] |= {n: found[n] for n in ("gamma", "tau") if n in known}
        return made


OF_METHODS = ("gamma", "tau", "style_image")


def space_of(task: SearchTask) -> Space:
    """That of a style; its trainings are drawn by the search's seed and the style's name."""
    seed = [task.search.seed, *task.name.encode()]
    return make_space(task.options, task.search.trainings, seed, task.search.methods)


def make_space(
    options: StyleOptions,
    trainings: int,
    seed: list[int],
    methods: Sequence[str] = (NONE, DEFAULT),
) -> Space:
    """options: the style's in contest.yaml. trainings: how many, at most. seed: of their draw.
    methods: beside the style's own."""
    made = None if options.train is None else _trainings(options, trainings, seed)
    recipe, refine = options.generate, options.refine
    choices: dict[str, list] = {}
    if made is not None:
        choices["training"] = list(range(len(made)))
        counts = made[0]["save_at"]
        choices["at"] = _own_first(recipe.at or counts[-1], counts)
    choices["method"] = _own_first(refine.method if refine else NONE, methods)
    own_start = None if recipe.init is None else (recipe.init, recipe.strength)
    choices["start"] = _own_first(own_start, [None, *STARTS])
    others = [round(recipe.guidance * part, 3) for part in GUIDANCE] if recipe.guidance > 1 else ()
    choices["guidance"] = _own_first(recipe.guidance, others or SOME_GUIDANCE)
    plain = recipe.sigmas is None and recipe.eta == 0  # which not every sampler has
    choices["sampler"] = _own_first(recipe.sampler, SAMPLERS if plain else ())
    own_image = (refine.style_image if refine else None) or BY_SEED
    choices["gamma"] = _own_first(getattr(refine, "gamma", 0.75), GAMMAS)
    choices["tau"] = _own_first(getattr(refine, "tau", 1.5), TAUS)
    choices["style_image"] = _own_first(own_image, STYLE_IMAGES)
    return Space(made, choices, dict.fromkeys(choices, 0))


def _own_first(own: Any, others: Any) -> list:
    return [own, *(value for value in others if value != own)]


def _trainings(options: StyleOptions, most: int, seed: list[int]) -> tuple[dict, ...]:
    """The configuration's own training, and others drawn around it; all different."""
    cfg, rng = options.train, np.random.default_rng(seed)
    saved = {max(1, cfg.steps // part) for part in FRACTIONS} if len(cfg.save_steps) < 3 else set()
    base: dict[str, Any] = {"save_at": sorted({*cfg.save_steps, *saved})}
    found = [base]
    for _ in range(20 * most):
        if len(found) >= most:
            break
        one = {**base, "learning_rate": float(f"{cfg.learning_rate * rng.choice(RATES):.6g}")}
        if cfg.train == "lora":
            one["rank"] = max(1, int(cfg.rank * rng.choice(RANKS)))
        if cfg.class_prompt:
            one["prior_weight"] = float(rng.choice(PRIORS))
        place = int(rng.integers(len(TEMPLATES) + 1))
        if place < len(TEMPLATES) and cfg.captions is None:
            one["instance_prompt"], one["template"] = TEMPLATES[place]
        own = all(getattr(cfg, name, value) == value for name, value in one.items())
        if not own and one not in found:
            found.append(one)
    return tuple(found)
