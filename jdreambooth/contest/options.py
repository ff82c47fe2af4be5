"""What one style of a contest can be given: the options of the commands, section by section.

Needs nothing but the standard library, so a plan can be shown without a backbone.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from functools import cache
from types import MappingProxyType
from typing import Any, Union, get_args, get_origin, get_type_hints

from jstyle.methods import DEFAULT, find_method, missing_options
from jstyle.sd.limits import PER_PICTURE, PICTURES, SEED, TOGETHER, require_whole

from ..config import AUTO, TrainConfig
from ..config import TEMPLATE as BY_PROMPT
from ..recipe import PLACE, Recipe
from ..verdict import PickConfig
from . import plans
from .judging import JudgeConfig

STYLE = "{style}"  # in any text: the style's name
PROMPT = f"{{stem}} in style_{STYLE}"
TEMPLATE = f"{{prompt}} in style_{STYLE}"


class OptionError(ValueError):
    """An option that does not exist, or has a value that it cannot have; one line."""


@dataclass(frozen=True)
class PickOptions(PickConfig):
    """PickConfig, and how many of the style's prompts are painted; they are spread evenly.

    Raises ValueError for fewer than two prompts.
    """

    prompts: int = 8

    def __post_init__(self):
        super().__post_init__()
        require_whole("prompts", self.prompts, 2, PICTURES)


@dataclass(frozen=True)
class GenerateOptions(Recipe):
    """Recipe, and which saved count paints the pictures: None for the last, or the picked one.

    candidates: pictures per prompt, of which the best is chosen. together: pictures painted in one
    batch; faster with small models (half the time with eight at 128 px), and not to the same bytes:
    14 of 98,304 values differ by 1, since sums over a batch have another order.
    """

    template: str = TEMPLATE
    at: int | None = None
    candidates: int = 1
    together: int = 1

    def __post_init__(self):
        super().__post_init__()
        require_whole("candidates", self.candidates, 1, PER_PICTURE)
        require_whole("together", self.together, 1, TOGETHER)


@cache
def refine_options(name: str) -> type:
    """The options of a method, and which reference is the style image: a file's name; "seed" or
    none, the one that style_seed draws; "rotate", the next one for every prompt; or "nearest", the
    one whose parts lie most as in the picture. Raises ValueError for a method that does not exist.
    """

    @dataclass(frozen=True)
    class RefineOptions(find_method(name).Config):
        method: str = name
        style_image: str | None = None
        style_seed: int = 0

        def __post_init__(self):
            getattr(super(), "__post_init__", lambda: None)()
            require_whole("style_seed", self.style_seed, 0, SEED)

        def __reduce__(self):  # workers are sent it, and find no class of this name in the module
            return _refine_options_of, ({f.name: getattr(self, f.name) for f in fields(self)},)

    return RefineOptions


def _refine_options_of(values: dict):
    return refine_options(values["method"])(**values)


@dataclass(frozen=True)
class ChooseOptions(JudgeConfig):
    """How the best of several candidates is chosen."""


@dataclass(frozen=True)
class StyleOptions:
    """The options of one style. None: the stage is left out; without train, the plain model paints.

    train: with "-" for the folders, which the stages know. prompts and words: see plans.py.
    """

    train: TrainConfig | None
    pick: PickOptions | None
    generate: GenerateOptions
    refine: Any  # of refine_options(METHOD)
    choose: ChooseOptions | None = None
    prompts: Mapping[str, Mapping] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    size_px: int | None = None

    def plan(self, prompt: str) -> dict:
        """What differs for this prompt, by the names of plans.KEYS."""
        return plans.plan_for(self.prompts, prompt)

    def text(self, prompt: str) -> str:
        """What the picture is painted from."""
        word = self.words.get(prompt, prompt)
        own = self.plan(prompt).get("text")
        return self.generate.text(word) if own is None else own.replace(PLACE, word)

    def recipe(self, prompt: str) -> GenerateOptions:
        """How a prompt's picture is painted, but for its text and seed."""
        given = self.plan(prompt)
        own = {
            name: given[name] for name in ("negative", "strength", "init", "at") if name in given
        }
        return replace(self.generate, **own) if own else self.generate

    def refinement(self, prompt: str) -> Any:
        """How a prompt's picture is refined; None leaves it as it was generated."""
        given = self.plan(prompt)
        made, name = self.refine, given.get("method")
        if name == plans.NONE:
            return None
        if name is not None and (made is None or name != made.method):
            made = refine_options(name)(**_kept_by_every_method(made, self.size_px))
        if made is not None and "style_image" in given:
            made = replace(made, style_image=given["style_image"])
        return made

    @property
    def refines(self) -> bool:
        """Whether any prompt's picture may be refined."""
        named = [plan.get("method", plans.NONE) for plan in self.prompts.values()]
        return self.refine is not None or any(name != plans.NONE for name in named)


def _kept_by_every_method(base: Any, size_px: int | None) -> dict:
    """What a prompt's own method takes over from the section's."""
    if base is None:
        return {"size_px": size_px}
    return {name: getattr(base, name) for name in ("size_px", "style_image", "style_seed")}


SECTIONS = {
    "train": TrainConfig,
    "pick": PickOptions,
    "generate": GenerateOptions,
    "refine": None,  # of its method, see refine_options
    "choose": ChooseOptions,
}
NOT_HERE = {  # options of the classes that a section does not have, and why
    **dict.fromkeys(("instance_dir", "out", "resume"), "the contest knows it"),
    **dict.fromkeys(
        ("model", "variant", "prediction", "tokenizer", "size_px"),
        "it is the same for all styles: put it at top",
    ),
    "device": "it is given on the command line",
}
BASE = {"train": {"instance_prompt": PROMPT}, "generate": {"template": TEMPLATE}}
INSTEAD = (("instance_prompt", "captions"), ("style_image", "style_seed"))  # one drops the other
TOLD = {int: "integer", float: "number", bool: "true or false", str: "text", type(None): "null"}


def class_of(section: str, given: Mapping) -> type:
    """The dataclass of a section's options; those of "refine" depend on its method.

    Raises ValueError for a method that does not exist.
    """
    return SECTIONS[section] or refine_options(given.get("method", DEFAULT))


def keys_of(section: str, given: Mapping = MappingProxyType({})) -> list[str]:
    """The names that a section may hold."""
    names = [f.name for f in fields(class_of(section, given)) if f.name not in NOT_HERE]
    if section == "pick":
        names.remove("template")  # that of generate
    return names + ["preset"] * (section == "refine")


def as_section(section: str, value: object) -> dict | None:
    """What may stand for a section, as a mapping, or None for "left out".

    true stands for the defaults, false, null and "none" for leaving it out, and the name of a
    method for that method with its defaults. Raises OptionError for anything else, for an unknown
    key, which gets the nearest one named, and for a value of the wrong kind.
    """
    if value is True:
        value = {}
    if section == "refine" and isinstance(value, str) and value != "none":
        value = {"method": value}
    if value is None or value is False or value == "none":
        if section == "generate":
            raise OptionError("generate cannot be left out")
        return None
    if not isinstance(value, dict):
        raise OptionError(f"{section} must hold options, or be true or false, got {value!r}")
    if not isinstance(value.get("method", DEFAULT), str):
        raise OptionError(f"{section}: method must be text, got {value['method']!r}")
    try:
        kind = class_of(section, value)
    except ValueError as error:
        raise OptionError(f"{section}: {error}") from None
    require_known(value, keys_of(section, value), section, _reasons(section, value))
    hints = {**get_type_hints(kind), "preset": str}
    for name, given in value.items():
        if not _fits(given, hints[name]):
            raise OptionError(f"{section}: {name} must be {_told(hints[name])}, got {given!r}")
    return value


def _reasons(section: str, given: Mapping) -> Mapping:
    """Why keys of a section cannot be given; of refine also those of other methods."""
    if section != "refine":
        return NOT_HERE
    return {**missing_options(given.get("method", DEFAULT), keys_of(section, given)), **NOT_HERE}


def require_known(given: dict, known: list[str], where: str, reasons: Mapping = NOT_HERE) -> None:
    """Raise OptionError for the first key that is not known, naming the nearest one that is."""
    for name in given:
        if name in known:
            continue
        if name in reasons:
            raise OptionError(f"{where}: {name} cannot be given here; {reasons[name]}")
        near = get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise OptionError(f"{where}: no option {name!r}{hint} (allowed: {', '.join(known)})")


def merged(base: dict | None, over: dict | None) -> dict | None:
    """A section of the defaults with a style's own options over it.

    Of two options that say the same in different ways (INSTEAD) the style's drops the other; fewer
    steps drop the counts of save_at beyond them.
    """
    if base is None or over is None:
        return over
    dropped = {
        name for pair in INSTEAD if over.keys() & set(pair) for name in pair if name not in over
    }
    if over.get("captions") in (AUTO, BY_PROMPT):  # which go with a prompt
        dropped.discard("instance_prompt")
    kept = {name: value for name, value in base.items() if name not in dropped}
    if over.get("method", base.get("method", DEFAULT)) != base.get("method", DEFAULT):
        known = keys_of("refine", over)  # what the other method does not have goes
        kept = {name: value for name, value in kept.items() if name in known}
    if "steps" in over and kept.get("save_at"):
        kept["save_at"] = _up_to(over["steps"], kept["save_at"])
    return {**kept, **over}


def _up_to(steps: int, counts: str | list[int]) -> str | None:
    parts = counts.split(",") if isinstance(counts, str) else list(map(str, counts))
    return ",".join(p for p in parts if not p.strip().isdigit() or int(p) <= steps) or None


def build(
    sections: Mapping[str, dict | None],
    style: str,
    wide: Mapping,
    prompts: Mapping[str, dict] = MappingProxyType({}),
    words: Mapping[str, str] = MappingProxyType({}),
) -> StyleOptions:
    """The options of a style. wide: what is the same for all styles, as the model.

    Raises OptionError, beginning with the section, for values that are not allowed.
    """
    own = {
        "train": {"instance_dir": "-", "out": "-", **wide},
        "refine": {"size_px": wide.get("size_px")},
    }
    made = {}
    for section, given in sections.items():
        if given is not None:
            given = merged(BASE.get(section, {}), given)
            given = {name: _named(value, style) for name, value in given.items()}
            given = _make(section, {**own.get(section, {}), **given})
        made[section] = given
    if made["train"] is not None:
        for section in ("pick", "generate"):
            if made[section] is not None:
                made[section] = _read_as(section, made[section], made["train"])
    if made["choose"] is None and made["generate"].candidates > 1:
        made["choose"] = ChooseOptions()
    own_plans = {
        name: {key: _named(value, style) for key, value in plan.items()}
        for name, plan in prompts.items()
    }
    own_words = {prompt: _named(word, style) for prompt, word in words.items()}
    options = StyleOptions(**made, prompts=own_plans, words=own_words, size_px=wide.get("size_px"))
    _check_together(options)
    return options


def _read_as(section: str, options: Any, train: TrainConfig) -> Any:
    """With the training's way to read prompts, where none is given."""
    try:
        return options.read_as(train)
    except ValueError as error:
        raise OptionError(f"{section}: {error}") from None


def _named(value, style: str):
    if isinstance(value, list):
        return [_named(one, style) for one in value]
    return value.replace(STYLE, style) if isinstance(value, str) else value


def _make(section: str, values: dict):
    try:
        preset = values.pop("preset", None)
        if preset is not None:
            presets = find_method(values.get("method", DEFAULT)).presets
            if preset not in presets:
                raise ValueError(f"preset must be one of {', '.join(presets)}, got {preset!r}")
            values = {**presets[preset], **values}
        return class_of(section, values)(**values)
    except ValueError as error:
        raise OptionError(f"{section}: {error}") from None


def _check_together(options: StyleOptions) -> None:
    at, train = options.generate.at, options.train
    if train is None and options.pick is not None:
        raise OptionError("pick: there is nothing to choose from without train")
    if at is not None and options.pick is not None:
        raise OptionError(f"generate: at = {at} and pick are two ways to choose; leave out one")
    saved = [] if train is None else train.save_steps
    if at is not None and at not in saved:
        raise OptionError(f"generate: {_not_saved(saved, at)}")
    if options.choose is not None and options.generate.candidates == 1:
        raise OptionError("choose: there is nothing to choose from; generate: candidates is 1")
    for name, plan in options.prompts.items():
        _check_plan(f"prompts: {name}", plan, options, saved)


def _not_saved(saved: list[int], at: int) -> str:
    counts = ", ".join(map(str, saved)) or "nothing"
    return f"at must be a count that train saves ({counts}), got {at}"


def _check_plan(where: str, plan: Mapping, options: StyleOptions, saved: list[int]) -> None:
    """Raise OptionError for what would do nothing, or cannot be."""
    if "at" in plan and plan["at"] not in saved:
        raise OptionError(f"{where}: {_not_saved(saved, plan['at'])}")
    if "style_image" in plan and not options.refines:
        raise OptionError(f"{where}: style_image does nothing without refine, or a method here")
    inits = [options.generate.init, *(one.get("init") for one in options.prompts.values())]
    if "strength" in plan and not any(inits):
        raise OptionError(f"{where}: strength does nothing without init, a picture to start from")


def _fits(value, hint) -> bool:
    """Whether a value read from a file is of the kind that a field is annotated with."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, one) for one in get_args(hint))
    if get_origin(hint) in (list, tuple):
        return isinstance(value, list) and all(_fits(one, get_args(hint)[0]) for one in value)
    if hint in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if hint is float else hint)


def _told(hint) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_told(one) for one in get_args(hint)))
    if get_origin(hint) in (list, tuple):
        return f"a list of {_told(get_args(hint)[0])}s"
    return TOLD[hint]
