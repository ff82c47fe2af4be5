"""contest.yaml: what is the same for all styles, `defaults:` for each of them, and `styles:`.

    model: sd21                 # with variant, prediction, tokenizer and size_px: for all styles
    size_px: 512
    defaults:
      train: {steps: 1000, save_at: "250,500", rank: 32, prior_weight: 1, class_prompt: a picture}
      pick: true
      generate: {init: average, strength: 0.9}
      refine: styleid
    styles:
      "11":
        train: {steps: 250}
        pick: false
        refine: {gamma: 0.6, style_image: wolf.png}
        prompts: {Ring: {seed: 7, negative: a person}, "*": {style_image: rotate}}
        words: {Ring: gold ring}

The sections hold the options of `jdreambooth train`, `pick`, `generate` and `jstyle stylize` under
their names; choose, those of judging.py; prompts and words are in plans.py. "{style}" in a text
stands for the style's name; paths are relative to the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from jstyle.sd.hub import PREDICTIONS, Source
from jstyle.sd.limits import SIDE_PX, is_whole, shown, told

from ..config import CAPTION_SOURCES
from . import options, plans
from .options import SECTIONS, OptionError, StyleOptions
from .yaml_file import read_yaml

WIDE = {  # the same for all styles
    "model": "tiny",
    "variant": None,
    "prediction": None,
    "tokenizer": None,
    "size_px": None,
}
AVERAGE = "average"
PER_PROMPT = {"prompts": plans.as_plans, "words": plans.as_words}


class ConfigError(ValueError):
    """A configuration that cannot be used; one line: which file, which style, what."""


@dataclass(frozen=True)
class ContestConfig:
    """Read, and checked as far as that goes without the contest.

    values: as in the file. where: what messages call it. folder: paths in it are relative to.
    """

    values: Mapping
    where: str
    folder: Path

    @property
    def wide(self) -> dict:
        return {name: self.values.get(name, default) for name, default in WIDE.items()}

    @property
    def source(self) -> Source:
        """The model of all styles. Raises HubError for values that are not allowed."""
        wide = self.wide
        return Source(wide["model"], wide["variant"], wide["prediction"], wide["tokenizer"])

    def with_model(
        self, model: str | None, prediction: str | None = None, tokenizer: str | None = None
    ) -> ContestConfig:
        """The same with another model, or another word about it, unless that is None."""
        given = {"model": model, "prediction": prediction, "tokenizer": tokenizer}
        given = {name: value for name, value in given.items() if value is not None}
        return replace(self, values={**self.values, **given}) if given else self

    def style(self, name: str) -> StyleOptions:
        """The options of one style. Raises ConfigError for values that are not allowed."""
        own = (self.values.get("styles") or {}).get(name) or {}
        defaults = self.values.get("defaults") or {}
        try:
            sections = {}
            for section in SECTIONS:
                switched_on = section in ("train", "generate")
                base = options.as_section(section, defaults.get(section, switched_on))
                if section in own:
                    base = options.merged(base, options.as_section(section, own[section]))
                sections[section] = base
            base, over = (plans.as_plans(one.get("prompts")) for one in (defaults, own))
            merged = self._placed_starts(plans.merged_plans(base, over))
            words = {**plans.as_words(defaults.get("words")), **plans.as_words(own.get("words"))}
            return options.build(self._placed(sections), name, self.wide, merged, words)
        except (OptionError, plans.PlanError) as error:
            raise ConfigError(f"{self.where}: style {name}: {error}") from None

    def _placed(self, sections: dict[str, dict | None]) -> dict[str, dict | None]:
        """With paths that are relative to this file taken from its folder."""
        for section, name in (("train", "captions"), ("train", "class_dir"), ("generate", "init")):
            path = (sections[section] or {}).get(name)
            words = ("", AVERAGE, *CAPTION_SOURCES)  # the empty text is refused where it is checked
            if isinstance(path, str) and path.strip() not in words:
                sections[section] = {**sections[section], name: str(self.folder / path)}
        return sections

    def _placed_starts(self, given: dict[str, dict]) -> dict[str, dict]:
        """Plans for prompts, with their `init` taken from this file's folder."""
        for name, plan in given.items():
            if plan.get("init") not in (None, AVERAGE):
                given[name] = {**plan, "init": str(self.folder / plan["init"])}
        return given

    def require_prompts(self, prompts: Mapping[str, Iterable[str]], whole: bool) -> None:
        """Raise ConfigError if a plan or a word is for a prompt that does not exist.

        prompts: of each style; whole: of all styles that there are.
        """
        own = self.values.get("styles") or {}
        told = [(f"style {name}: ", own.get(name), there) for name, there in prompts.items()]
        if whole:
            every = list(dict.fromkeys(p for there in prompts.values() for p in there))
            told.append(("defaults: ", self.values.get("defaults"), every))
        for where, given, there in told:
            for section in PER_PROMPT:
                names = (given or {}).get(section)
                lost = plans.unmatched(names, there) if isinstance(names, dict) else None
                if lost:
                    raise ConfigError(f"{self.where}: {where}{section}: {lost}")

    def require_styles(self, names: Iterable[str]) -> None:
        """Raise ConfigError if the file names a style that is not among these."""
        names = list(names)
        for name in self.values.get("styles") or {}:
            if name not in names:
                near = get_close_matches(name, names, 1, 0.5)
                hint = f"; did you mean {near[0]}?" if near else ""
                there = ", ".join(names)
                raise ConfigError(f"{self.where}: no style {name!r}{hint} (there are {there})")


def read_config(path: str | Path | None) -> ContestConfig:
    """Read contest.yaml; None: every option at its default. Raises ConfigError or YamlError."""
    if path is None:
        return ContestConfig({}, "without a configuration", Path())
    return make_config(read_yaml(path), str(path), Path(path).parent)


def make_config(values: dict, where: str, folder: Path) -> ContestConfig:
    """Check the names, and every section on its own. Raises ConfigError."""
    try:
        options.require_known(values, [*WIDE, "defaults", "styles"], "at top", {})
        _check_wide(values)
        styles = _mapping("styles", values.get("styles"))
        for where_in, given in (("defaults", values.get("defaults")), *styles.items()):
            called = where_in if where_in == "defaults" else f"style {where_in}"
            given = _mapping(called, given)
            wrong = {name: options.NOT_HERE[name] for name in WIDE}
            options.require_known(given, [*SECTIONS, *PER_PROMPT], called, wrong)
            for section, value in given.items():
                read = PER_PROMPT.get(section, partial(options.as_section, section))
                try:
                    read(value)
                except (OptionError, plans.PlanError) as error:
                    raise OptionError(f"{called}: {error}") from None
    except OptionError as error:
        raise ConfigError(f"{where}: {error}") from None
    return ContestConfig(values, where, folder)


def _mapping(name: str, value) -> dict:
    if value is not None and not isinstance(value, dict):
        raise OptionError(f"{name} must hold names with values, got {value!r}")
    return value or {}


def _check_wide(values: dict) -> None:
    for name in ("model", "variant", "prediction", "tokenizer"):
        if name in values and not (isinstance(values[name], str) and values[name].strip()):
            if not (name != "model" and values[name] is None):
                raise OptionError(f"{name} must be text, got {values[name]!r}")
    if values.get("prediction") not in (None, *PREDICTIONS):
        raise OptionError(f"prediction must be v or epsilon, got {values['prediction']!r}")
    size = values.get("size_px")
    if size is not None and not is_whole(size, 8, SIDE_PX):
        raise OptionError(f"size_px must be an integer {told(8, SIDE_PX)}, got {shown(size)}")
