"""What differs for single prompts: `prompts:` and `words:` of contest.yaml.

    prompts:
      "*": {style_image: nearest}
      "Ice*": {negative: a person}
      Ring: {at: 250, seed: 7, text: "a gold ring in style_{style}", method: none}
    words:
      Ring: gold ring       # stands in the template, and in `text`, instead of the prompt

The names are prompts, or patterns with *, ? and [...]. For every key the most specific entry
counts: the prompt itself, then the pattern with the most letters, then the later one. Loads no
backbone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from jstyle.methods import METHODS
from jstyle.sd.limits import SEED, TRAINING_STEPS, is_whole, shown, told

NONE = "none"  # as a method: the picture stays as it was generated
ROTATE, NEAREST, BY_SEED = "rotate", "nearest", "seed"
WORDS_FOR_STYLE_IMAGE = (ROTATE, NEAREST, BY_SEED)
OF_GENERATE = ("at", "seed", "text", "negative", "strength", "init")
OF_REFINE = ("style_image", "method")
KEYS = (*OF_GENERATE, *OF_REFINE)


class PlanError(ValueError):
    """A plan that cannot be; one line, which begins with the section."""


def as_plans(value: object) -> dict[str, dict]:
    """The section `prompts`: name or pattern -> what differs. Raises PlanError."""
    plans = {}
    for name, given in _mapping("prompts", value).items():
        where = f"prompts: {name}"
        plans[name] = _mapping(where, given)
        for key, one in plans[name].items():
            if key not in KEYS:
                near = get_close_matches(key, KEYS, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise PlanError(f"{where}: no option {key!r}{hint} (allowed: {', '.join(KEYS)})")
            if wanted := _wrong(key, one):
                raise PlanError(f"{where}: {key} must be {wanted}, got {shown(one)}")
    return plans


def as_words(value: object) -> dict[str, str]:
    """The section `words`: prompt -> the word instead. Raises PlanError."""
    words = _mapping("words", value)
    for prompt, word in words.items():
        if not _is_text(word):
            raise PlanError(f"words: {prompt} must be text that is not empty, got {shown(word)}")
    return words


def _mapping(where: str, value: object) -> dict:
    if value is None or value is False or value == NONE:
        return {}
    if not isinstance(value, dict):
        raise PlanError(f"{where} must hold names with values, got {shown(value)}")
    return value


def _wrong(key: str, value: Any) -> str | None:
    """What a key's value must be, if it is not."""
    if key == "at":
        return None if is_whole(value, 1, TRAINING_STEPS) else "a count of steps that train saves"
    if key == "seed":
        return None if is_whole(value, 0, SEED) else f"an integer {told(0, SEED)}"
    if key == "strength":
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return None if number and 0 < value <= 1 else "above 0 and at most 1"
    if key == "negative":
        return None if isinstance(value, str) else "text"
    if key == "init" and value is None:
        return None  # from noise
    if not _is_text(value):
        return "text that is not empty"
    if key == "method" and value not in (NONE, *METHODS):
        return f"one of {', '.join((NONE, *METHODS))}"
    return None


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.strip() != ""


def merged_plans(base: Mapping[str, dict], over: Mapping[str, dict]) -> dict[str, dict]:
    """Those of the defaults with a style's own over them, entry by entry."""
    return {**base, **{name: {**base.get(name, {}), **given} for name, given in over.items()}}


def plan_for(plans: Mapping[str, Mapping], prompt: str) -> dict:
    """What differs for one prompt: for every key the value of the most specific entry."""
    found = sorted(
        (name for name in plans if _fits(name, prompt)), key=lambda n: _letters(n, prompt)
    )
    return {key: value for name in found for key, value in plans[name].items()}


def _fits(name: str, prompt: str) -> bool:
    return name == prompt or fnmatchcase(prompt, name)


def _letters(name: str, prompt: str) -> float:
    """How specific an entry is."""
    return float("inf") if name == prompt else len(re.sub(r"\[[^]]*\]|[*?]", "", name))


def unmatched(names: Iterable[str], prompts: Iterable[str]) -> str | None:
    """The first name or pattern that no prompt fits, as a message with the nearest prompt."""
    prompts = list(prompts)
    for name in names:
        if not any(_fits(name, prompt) for prompt in prompts):
            near = get_close_matches(name, prompts, 1, 0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            return f"no prompt {name!r}{hint} (there are {', '.join(prompts)})"
    return None
