"""The options of a command: parsed, and refused in one line.

Options are shown with dashes (`--size-px`) and taken with underscores too; in a YAML file given
with --config and in the parsed result they have underscores.
"""

from __future__ import annotations

import re
from argparse import Action
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import yaml
from jsonargparse import ActionConfigFile, ArgumentError, ArgumentParser, Namespace, get_loader

from ..sd.files import InputError
from ..sd.reading import read_yaml_text, require_unicode, yaml_fault
from .option_values import dashed, plain, require_harmless, require_kinds, with_lists
from .words import one_line

DEVICES = ("auto", "cpu", "cuda")
MAY_BE_EMPTY = {
    "negative",
    "prompt",
    "prompts",
    "invert_prompt",
    "class_prompt",
    "sample_prompts",
    "inside",
    "subject",
    "blocks",
}


class UsageError(ValueError):
    """Words on the command line that do not fit; one line."""


class ConfigFile(ActionConfigFile):
    """--config: a YAML file, read like every file of a user before its options are taken."""

    def __call__(self, parser, cfg, values, option_string=None):
        if not str(values).strip():
            raise UsageError("--config: an empty path; it names a YAML file")
        try:
            text = read_yaml_text(values)
            found = get_loader("yaml")(text)
        except InputError as error:
            raise UsageError(str(error)) from None
        except ValueError:
            raise UsageError(f"{values}: a number of thousands of digits") from None
        except yaml.YAMLError as error:
            line, reason = yaml_fault(error)
            raise UsageError(f"{values}{line}: not YAML ({reason})") from None
        parser.config_file = values
        if not isinstance(found, (dict, type(None))):
            raise UsageError(f"{values}: must hold options with values, such as steps: 30")
        try:
            parser.require_here(dashed(f"--{name}") for name in found or {})
            listed = with_lists(found or {}, parser._actions)
        except (InputError, UsageError) as error:
            raise UsageError(f"{values}: {error}") from None
        if listed != found:
            text = yaml.safe_dump(listed, allow_unicode=True)
        if found:
            self.apply_config(parser, cfg, self.dest, text)
            cfg[self.dest][-1] = values  # which file it was, where jsonargparse saw a text


class Parser(ArgumentParser):
    """The options of one command. `presets`: name -> values that are defaults under the words."""

    presets: Mapping[str, dict] = {}
    config_file: str | None = None
    elsewhere: dict[str, str] = {}  # options of other variants of the command -> what is said

    def add_argument(self, *names: str, **options: Any) -> Action:
        if options.get("action") == "config":
            options["action"] = ConfigFile
        return super().add_argument(*map(dashed, names), **options)

    def add_fields(self, config: type, skip: set[str] = frozenset()) -> None:
        """An option for every field of a dataclass; its docstring gives the help."""
        self.add_class_arguments(config, as_group=False, skip=skip)

    def add_presets(self, presets: Mapping[str, dict], default: str) -> None:
        told = "; ".join(
            f"{name}: " + ", ".join(f"{key} {value}" for key, value in values.items())
            for name, values in presets.items()
        )
        self.presets = presets
        self.add_argument(
            "--preset",
            type=str,
            default=default,
            help=f"settings that single options override ({told})",
        )

    def parse(self, words: list[str]) -> Namespace:
        """The options in `words`. Raises UsageError."""
        words = list(map(dashed, words))
        try:
            require_harmless(words)
            self.require_here(word.partition("=")[0] for word in words)
            args = self.parse_args(words)
            require_kinds(vars(args), self._actions)
            if self.presets:
                if args.preset not in self.presets:
                    allowed = ", ".join(self.presets)
                    raise UsageError(f"preset must be one of {allowed}, got {args.preset!r}")
                self.set_defaults(self.presets[args.preset])
                args = self.parse_args(words)
        except UsageError:
            raise
        except InputError as error:
            raise UsageError(self._placed(str(error), words)) from None
        except RecursionError:
            raise UsageError("a value is nested too deeply") from None
        except (ArgumentError, TypeError, ValueError) as error:  # TypeError: YAML of an odd shape
            raise UsageError(self._placed(one_line(plain(str(error))), words)) from None
        _require_texts(args, {a.dest for a in self._actions if not a.option_strings})
        if getattr(args, "device", DEVICES[0]) not in DEVICES:
            raise UsageError(f"device must be one of {', '.join(DEVICES)}, got {args.device!r}")
        return args

    def require_here(self, options: Iterable[str]) -> None:
        """Raise UsageError for an option that only another variant of the command has."""
        for option in options:
            told = self.elsewhere.get(option.removeprefix("--").replace("-", "_"))
            if option.startswith("--") and told is not None:
                raise UsageError(f"{option}: {told}")

    def _placed(self, message: str, words: list[str]) -> str:
        """The message, with the --config file if the option it names is not among the words."""
        given = {word.partition("=")[0] for word in words}
        option = re.match(r"--[\w-]+", message)
        from_file = self.config_file is not None and not (option and option[0] in given)
        return f"{self.config_file}: {message}" if from_file else message


def _require_texts(args: Namespace, arguments: set[str]) -> None:
    """Raise UsageError for an option whose text is empty, though that means something else where a
    path is asked for, or which no file could hold. arguments: those that are known by their place.
    """
    for name, text in _texts(args):
        option = name if name in arguments else dashed(f"--{name}")
        if not text.strip() and name not in MAY_BE_EMPTY:
            raise UsageError(f"{option} must not be {'blank' if text else 'empty'}")
        try:
            require_unicode(text, option)
        except InputError as error:
            raise UsageError(f"{error}: {text!r}") from None


def _texts(args: Namespace) -> Iterator[tuple[str, str]]:
    """(name, text) of every option that is text, or a list of texts."""
    for name, value in vars(args).items():
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(one, str):
                yield name, one


def make_parser(prog: str, description: str, examples: str) -> Parser:
    """A parser with --verbose and --quiet. examples: lines that are shown as they are."""
    parser = Parser(
        prog=prog,
        description=description,
        epilog="examples:\n" + examples,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.formatter_class = _keep_lines(parser.formatter_class)
    parser.add_argument("-v", "--verbose", action="store_true", help="say more while working")
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    return parser


def _keep_lines(formatter: type) -> type:
    """The formatter, leaving the line breaks of the examples alone."""

    class Formatter(formatter):
        def _fill_text(self, text: str, width: int, indent: str) -> str:
            if "\n" in text:
                return "".join(indent + line for line in text.splitlines(keepends=True))
            return super()._fill_text(text, width, indent)

    return Formatter


def asked_for(option: str, words: Sequence[str]) -> str | None:
    """The value of --option in the words or else in their --config file, before they are parsed."""
    found = _value_of(f"--{option}", words)
    config = _value_of("--config", words)
    if found is None and config is not None:
        with suppress(ValueError, yaml.YAMLError):  # told when the words are parsed
            given = yaml.safe_load(read_yaml_text(config))
            found = given.get(option) if isinstance(given, dict) else None
    return None if found is None else str(found)


def _value_of(name: str, words: Sequence[str]) -> str | None:
    found = None
    for word, after in zip(words, [*words[1:], None], strict=False):
        if word == name:
            found = after
        elif word.startswith(f"{name}="):
            found = word.partition("=")[2]
    return found
