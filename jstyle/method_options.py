"""The options that name a method and those that it brings, for every command that takes one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from .console.parser import Parser
from .methods import METHODS, find_method, from_noise, missing_options

REFERENCE = "reference"


def add_method(
    parser: Parser,
    name: str | None,
    among: Iterable[str],
    default: str | None,
    skip: Iterable[str] = (),
) -> None:
    """--method, and the options of the one that is named; those of other methods are refused by
    name. skip: options that the command has by itself, or not at all."""
    told = "; ".join(f"{each}: {find_method(each).does}" for each in among)
    below = f"; the options below are those of {name}" if name is not None else ""
    kind = str if default is not None else str | None
    parser.add_argument("--method", type=kind, default=default, help=f"{told}{below}")
    there = {action.dest for action in parser._actions}
    if name is None:
        parser.elsewhere = _of_any_method(there)
        return
    method = find_method(name)
    if method.presets:
        parser.add_presets(method.presets, method.default_preset)
    own = {field.name for field in fields(method.Config)}
    parser.add_fields(method.Config, skip=own & (there | set(skip)))
    parser.elsewhere = missing_options(name, there)


def _of_any_method(there: set[str]) -> dict[str, str]:
    """Options that only come with a method -> what is said where none is named."""
    found: dict[str, list[str]] = {}
    for name in METHODS:
        for field in fields(find_method(name).Config):
            if field.name not in there:
                found.setdefault(field.name, []).append(name)
    return {option: f"needs --method, one of {', '.join(names)}" for option, names in found.items()}


def add_references(parser: Parser) -> None:
    """--reference, of which there may be several."""
    parser.add_argument(
        f"--{REFERENCE}",
        action="append",
        default=[],
        metavar="PICTURE",
        help="paint after this picture or folder of pictures, with --method "
        f"({', '.join(from_noise())}); may be given several times",
    )
