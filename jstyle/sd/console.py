"""What the command lines of this project share: options, errors in one line, exit codes, signals.

Only programs use this file; a library that imports jstyle.sd does not load it. Exit codes: 0 fine,
2 wrong usage or input, 1 anything else, 130 after Ctrl-C, 143 after a request to end.

Options are shown with dashes (`--size-px`) and taken with underscores too; in a YAML file given
with --config and in the parsed result they have underscores.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

log = logging.getLogger("jstyle")


class UsageError(ValueError):
    """Words on the command line that do not fit; one line."""


class Terminated(SystemExit):
    """SIGTERM arrived: unwind, so that temporary files go, and exit with 143."""


class Parser(ArgumentParser):
    """The options of one command. `presets`: name -> values that are defaults under the words."""

    presets: Mapping[str, dict] = {}

    def add_argument(self, *names, **options):
        return super().add_argument(*map(_dashed, names), **options)

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
            "--preset", default=default, help=f"settings that single options override ({told})"
        )

    def parse(self, words: list[str]) -> Namespace:
        """The options in `words`. Raises UsageError."""
        words = list(map(_dashed, words))
        try:
            args = self.parse_args(words)
            if self.presets:
                if args.preset not in self.presets:
                    allowed = ", ".join(self.presets)
                    raise UsageError(f"preset must be one of {allowed}, got {args.preset!r}")
                self.set_defaults(self.presets[args.preset])
                args = self.parse_args(words)
            return args
        except (ArgumentError, TypeError) as error:  # TypeError: a YAML file of an odd shape
            raise UsageError(one_line(_plain(str(error)))) from None


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


def add_config(parser: Parser) -> None:
    parser.add_argument("--config", action="config", help="a YAML file with any of these options")


def add_overwrite(parser: Parser) -> None:
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="also replace files that are no results of this program",
    )


def add_device(parser: Parser) -> None:
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, or auto: cuda where Jittor can use it"
    )


def add_model(parser: Parser) -> None:
    """--model, --variant and --device."""
    parser.add_argument(
        "--model",
        default="tiny",
        help="tiny (shipped), a folder in diffusers format, sd21, or a hub id such as owner/name",
    )
    parser.add_argument(
        "--variant", type=str | None, default=None, help="of the weight files, such as fp16"
    )
    add_device(parser)


def asked_for(option: str, words: Sequence[str]) -> str | None:
    """The value of --option in the words or else in their --config file, before they are parsed."""
    found = _value_of(f"--{option}", words)
    config = _value_of("--config", words)
    if found is None and config is not None:
        with suppress(OSError, ValueError, yaml.YAMLError):  # told when the words are parsed
            given = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
            found = given.get(option) if isinstance(given, dict) else None
    return None if found is None else str(found)


def _value_of(name: str, words: Sequence[str]) -> str | None:
    found = None
    for word, after in zip(words, [*words[1:], None], strict=True):
        if word == name:
            found = after
        elif word.startswith(f"{name}="):
            found = word.partition("=")[2]
    return found


def _keep_lines(formatter: type) -> type:
    """The formatter, leaving the line breaks of the examples alone."""

    class Formatter(formatter):
        def _fill_text(self, text: str, width: int, indent: str) -> str:
            if "\n" in text:
                return "".join(indent + line for line in text.splitlines(keepends=True))
            return super()._fill_text(text, width, indent)

    return Formatter


def _dashed(word: str) -> str:
    """`--size_px=64` -> `--size-px=64`; jsonargparse's own, such as --print_config, stay."""
    if not word.startswith("--") or word.startswith("--print_"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


class Command(NamedTuple):
    """`told` is its line in the list of commands; `run` returns the exit code. varies: the options
    depend on the words, which `make_parser` is then given."""

    told: str
    make_parser: Callable[..., Parser]
    run: Callable[[Namespace], int]
    varies: bool = False


@dataclass(frozen=True)
class Program:
    """A command line with commands, some of which may be programs again. `usage` has a place for
    the {commands}; `short_of_memory` says what the user can do about that; `level` is what it logs
    without --verbose and --quiet; `told` is its line in the commands of another program."""

    name: str
    version: str
    usage: str
    commands: Mapping[str, Command | Program]
    short_of_memory: str
    level: int = logging.WARNING
    told: str = ""

    def main(self, argv: list[str] | None = None) -> int:
        """Run with these words (default: sys.argv) and return the exit code."""
        words = sys.argv[1:] if argv is None else list(argv)
        if not words or words[0] in ("-h", "--help"):
            lines = (f"  {name:<12} {command.told}" for name, command in self.commands.items())
            print(self.usage.format(commands="\n".join(lines)), end="")
            return 0 if words else 2
        if words[0] == "--version":
            print(f"{self.name} {self.version}")
            return 0
        if words[0] not in self.commands:
            near = get_close_matches(words[0], self.commands, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            allowed = ", ".join(self.commands)
            return _fail(self.name, f"no command {words[0]!r}; {hint}allowed: {allowed}", 2)
        if isinstance(self.commands[words[0]], Program):
            return self.commands[words[0]].main(words[1:])
        return self._guarded(words[0], lambda: self._run(words[0], words[1:]))

    def _run(self, name: str, words: list[str]) -> int:
        if hasattr(sys.stdout, "reconfigure"):  # file names that are no UTF-8 are said as they are
            sys.stdout.reconfigure(errors="surrogateescape")
        command = self.commands[name]
        given = (words,) if command.varies else ()
        args = command.make_parser(*given).parse(words)
        asked = logging.INFO if args.verbose else logging.ERROR if args.quiet else None
        logging.basicConfig(format="%(name)s: %(message)s", stream=sys.stderr)
        log.setLevel(asked or logging.WARNING)
        logging.getLogger(self.name.split()[0]).setLevel(asked or self.level)
        signal.signal(signal.SIGTERM, _end)
        os.register_at_fork(after_in_child=_leave_signals_to_parent)
        return command.run(args)

    def _guarded(self, command: str, run: Callable[[], int]) -> int:
        """Every way in which a command can fail, as one line and an exit code."""
        name = f"{self.name} {command}"
        try:
            return run()
        except KeyboardInterrupt:
            return _fail(name, "interrupted; finished results stay", 130)
        except UsageError as error:
            return _fail(name, f"{error} (see {name} --help)", 2)
        except (ValueError, FileNotFoundError) as error:
            return _fail(name, self._reason(error), 2)
        except Exception as error:
            log.info("what happened", exc_info=True)
            return _fail(name, self._reason(error), 1)

    def _reason(self, error: Exception) -> str:
        if isinstance(error, OSError) and error.strerror:
            return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        if isinstance(error, MemoryError):
            return f"out of memory; {self.short_of_memory}"
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        return one_line(str(text)) or type(error).__name__


def _end(number, frame):
    raise Terminated(128 + number)


def _leave_signals_to_parent():
    """In Jittor's compiling workers: no traceback from each at Ctrl-C, and no unwinding at SIGTERM,
    with which the parent ends them; one that unwinds can wait for ever on the parent's locks."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _fail(name: str, message: str, code: int) -> int:
    print(f"{name}: error: {message}", file=sys.stderr)
    return code


def _plain(message: str) -> str:
    """jsonargparse's message without its inner workings."""
    key = re.search(r'Parser key "([^"]+)":', message)
    given = re.search(r"(?:Given value|Got value): (.*)", message)
    if key and given:
        kinds = re.findall(r"Expected (?:an? )?(?:<class '([\w.]+)'>|(typing\.\S+))", message)
        names = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "text"}
        wanted = [names.get(a, a or b) for a, b in kinds if a != "NoneType"] or ["another value"]
        wanted = " or ".join(dict.fromkeys(wanted))
        return f"{_dashed('--' + key[1])} must be {wanted}, got {given[1]!r}"
    return re.sub(r'^Parser key "([^"]+)":', lambda m: _dashed(f"--{m[1]}:"), message)


def one_line(text: str) -> str:
    """A message of several lines as one; the lines after the first are taken as a list."""
    first, *rest = [line.strip() for line in text.strip().splitlines()] or [""]
    return f"{first} {', '.join(rest)}" if rest else first


def progress_bar(args: Namespace, unit: str) -> Callable:
    """make(total) -> a tqdm bar on stderr, silent with --quiet."""
    from tqdm import tqdm

    def make(total: int):
        # delay: drawn with the first advance, so that a refusal before it stays one line
        return tqdm(total=total, unit=unit, disable=args.quiet, dynamic_ncols=True, delay=1e-3)

    return make


def say(args: Namespace, text: str) -> None:
    """Print, unless --quiet was given."""
    if not args.quiet:
        print(text)


def count(n: int, thing: str) -> str:
    return f"{n} {thing}{'' if n == 1 else 's'}"
