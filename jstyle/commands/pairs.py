"""Which content meets which styles, where each result goes, and what it depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from .. import __version__
from ..config import ALL, CHOICES, EACH, NEAREST, ROTATE
from ..methods import DEFAULT, Method
from ..sd.facts import CONTENT
from ..sd.targets import stylized_name
from . import outputs
from .inputs import Model, Picture


@dataclass(frozen=True)
class Pair:
    """One result to make: which content in which style or styles, where to, and what it depends on.

    nearest: the style is one of these, which the model is still to choose.
    """

    content: Picture
    styles: tuple[Picture, ...]
    out: Path
    key: str
    nearest: bool = False

    def of(self, role: str) -> tuple[Picture, ...]:
        """The pictures of one role."""
        return (self.content,) if role == CONTENT else self.styles

    def facts(self, role: str) -> Any:
        """For the record: of one picture, or a list."""
        facts = [picture.facts for picture in self.of(role)]
        return facts[0] if len(facts) == 1 else facts


def check_choice(choice: str, method: type[Method]) -> None:
    """Raise ValueError for a way to choose that does not exist, or that the method lacks."""
    if choice not in CHOICES:
        allowed = ", ".join(CHOICES)
        raise ValueError(f"style_choice must be one of {allowed}, got {choice!r}")
    if choice == ALL and not method.pools:
        raise ValueError(f"method {method.name} takes one style for a result, not all of them")


def combine(
    contents: Sequence[Picture], styles: Sequence[Picture], choice: str = EACH
) -> list[tuple[Picture, tuple[Picture, ...]]]:
    """The content and the styles of every result, of which `nearest` is to leave one."""
    if choice == EACH and styles:
        return [(c, (s,)) for c, s in product(contents, styles)]
    if choice == ROTATE:
        return [(c, (styles[i % len(styles)],)) for i, c in enumerate(contents)]
    return [(c, tuple(styles)) for c in contents]


def name_results(
    wanted: Sequence[tuple[Picture, tuple[Picture, ...]]],
    out: str,
    inputs: tuple[str, ...] = (),
    several: str = ALL,
) -> list[Path]:
    """Where each result goes: CONTENT_stylized_STYLE.png, or `out` itself if a PNG's name. several:
    what stands for STYLE where there is not exactly one.

    Raises ValueError if a single name is given for several results, if two results would have the
    same name, or if the results would land among the inputs.
    """
    if outputs.names_file(out):
        if len(wanted) > 1:
            contents, styles = (len({pair[i] for pair in wanted}) for i in (0, 1))
            raise ValueError(
                f"{out}: one file name for {contents} contents x {styles} styles; give a folder"
            )
        return [Path(out)]
    for folder in inputs:
        if Path(folder).is_dir() and Path(folder).resolve() == Path(out).resolve():
            raise ValueError(f"{out}: is also a folder of inputs; give another folder")
    taken: dict[Path, tuple[Picture, ...]] = {}
    for content, styles in wanted:
        name = styles[0].path if len(styles) == 1 else Path(several)
        path = Path(out) / stylized_name(content.path, name)
        if path in taken:
            pairs = zip(taken[path], (content, *styles), strict=True)
            other, one = next(both for both in pairs if both[0] != both[1])
            raise ValueError(
                f"{one.path} and {other.path} would both give {path}; rename one of them"
            )
        taken[path] = (content, *styles)
    return list(taken)


def make_pairs(
    wanted: Sequence[tuple[Picture, tuple[Picture, ...]]],
    paths: Sequence[Path],
    method: type[Method],
    cfg: Any,
    model: Model,
    choice: str = EACH,
) -> list[Pair]:
    """The results to make, each with the hash of all that it depends on."""
    near = choice == NEAREST
    return [
        Pair(c, s, path, result_key(c, s, method, cfg, model, near), near)
        for (c, s), path in zip(wanted, paths, strict=True)
    ]


def result_key(
    content: Picture,
    styles: tuple[Picture, ...],
    method: type[Method],
    cfg: Any,
    model: Model,
    near: bool = False,
) -> str:
    """A hash of everything that the result depends on: not of where features were kept."""
    settings = method.settings(cfg)
    if method.name != DEFAULT:
        settings["method"] = method.name
    if near:
        settings["style_choice"] = NEAREST
    hashes = [style.sha256 for style in styles]
    of_styles = hashes[0] if len(hashes) == 1 else hashes
    facts = [__version__, content.sha256, of_styles, settings, model.key]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
