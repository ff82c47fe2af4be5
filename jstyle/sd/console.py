"""What the command lines of this project share: options, errors in one line, exit codes, signals.

Only programs use this file; a library that imports jstyle.sd does not load it. Exit codes: 0 fine,
2 wrong usage or input, 1 anything else, 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.

Options are shown with dashes (`--size-px`) and taken with underscores too; in a YAML file given
with --config and in the parsed result they have underscores.
"""

from __future__ import annotations

import logging
import re
import signal
import sys
from argparse import Action
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NamedTuple

import yaml
from jsonargparse import ActionConfigFile, ArgumentError, ArgumentParser, Namespace, get_loader

from . import ending, toolchain
from .ending import Terminated
from .files import InputError
from .hub import Source
from .option_values import dashed, plain, require_harmless, require_kinds, with_lists
from .places import WRONG_PATHS
from .printable import error_line, visible
from .reading import read_yaml_text, require_unicode, yaml_fault

log = logging.getLogger("jstyle")


DEVICES = ("auto", "cpu", "cuda")
MAY_BE_EMPTY = {"negative", "prompt", "prompts", "class_prompt", "sample_prompts", "inside"}


# What Jittor says where it is given no memory for a thread or a value
NO_MEMORY = ("std::bad_alloc", "Cannot allocate memory", "Resource temporarily unavailable")
# and where a compiler below it fails; what that had to say, it has said on stderr
NOT_COMPILED = ("Error happend during compilation", "Run cmd failed")


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
            listed = with_lists(found or {}, parser._actions)
        except InputError as error:
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


def add_config(parser: Parser) -> None:
    parser.add_argument("--config", action=ConfigFile, help="a YAML file with any of these options")


def add_overwrite(parser: Parser) -> None:
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="also replace files that are no results of this program",
    )


def add_device(parser: Parser) -> None:
    parser.add_argument(
        "--device",
        type=str,
        default="auto",
        help="cpu, cuda, or auto: cuda where Jittor can use it",
    )


def add_model(parser: Parser) -> None:
    """--model, --variant, --prediction, --tokenizer and --device."""
    parser.add_argument(
        "--model",
        type=str,
        default="tiny",
        help="tiny (shipped), a folder in diffusers format, a .safetensors or .ckpt file of Stable "
        "Diffusion 1.x or 2.x, sd21, or a hub id such as owner/name",
    )
    parser.add_argument(
        "--variant", type=str | None, default=None, help="of the weight files, such as fp16"
    )
    add_single_file(parser)
    add_device(parser)


def add_single_file(parser: Parser) -> None:
    """--prediction and --tokenizer, for a model in one file."""
    add_prediction(parser)
    add_tokenizer(parser)


def add_prediction(parser: Parser) -> None:
    parser.add_argument(
        "--prediction",
        type=str | None,
        default=None,
        help="of a model in one file that does not say: v or epsilon",
    )


def add_tokenizer(parser: Parser) -> None:
    parser.add_argument(
        "--tokenizer",
        type=str | None,
        default=None,
        help="for a model in one file: a folder with vocab.json and merges.txt, or a hub id such "
        "as openai/clip-vit-large-patch14",
    )


def model_source(args: Namespace) -> Source:
    """The model that the options of `add_model` name. Raises HubError."""
    return Source(args.model, args.variant, args.prediction, args.tokenizer)


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


def _keep_lines(formatter: type) -> type:
    """The formatter, leaving the line breaks of the examples alone."""

    class Formatter(formatter):
        def _fill_text(self, text: str, width: int, indent: str) -> str:
            if "\n" in text:
                return "".join(indent + line for line in text.splitlines(keepends=True))
            return super()._fill_text(text, width, indent)

    return Formatter


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
        found = self.commands[words[0]]
        if isinstance(found, Program):
            return found.main(words[1:])
        return self._guarded(words[0], lambda: self._run(found, words[1:]))

    def _run(self, command: Command, words: list[str]) -> int:
        out: Any = sys.stdout
        if hasattr(out, "reconfigure"):  # file names that are no UTF-8 are said as they are
            out.reconfigure(errors="surrogateescape")
        given = (words,) if command.varies else ()
        args = command.make_parser(*given).parse(words)
        with suppress(AttributeError):  # a stream that someone else put there
            out.reconfigure(errors="backslashreplace")  # as stderr does by itself
        asked = logging.INFO if args.verbose else logging.ERROR if args.quiet else None
        logging.basicConfig(handlers=[_handler()])
        log.setLevel(asked or logging.WARNING)
        logging.getLogger(self.name.split()[0]).setLevel(asked or self.level)
        return command.run(args)

    def _guarded(self, command: str, run: Callable[[], int]) -> int:
        """Every way in which a command can fail, as one line and an exit code."""
        name = f"{self.name} {command}"
        try:
            code = run()
            ending.stop_if_asked()
            return code
        except (Terminated, KeyboardInterrupt) as stop:
            return _ended(name, getattr(stop, "number", signal.SIGINT))
        except Exception as error:
            if ending.asked() is not None:  # what its exception became on its way through C++
                return _ended(name, ending.asked())
            if isinstance(error, UsageError):
                return _fail(name, f"{error} (see {name} --help)", 2)
            wrong_path = isinstance(error, OSError) and error.errno in WRONG_PATHS
            if isinstance(error, ValueError | FileNotFoundError) or wrong_path:
                return _fail(name, self._reason(error), 2)
            log.info("what happened", exc_info=True)
            return _fail(name, self._reason(error), 1)

    def _reason(self, error: Exception) -> str:
        if isinstance(error, OSError) and error.strerror:
            reason = WRONG_PATHS.get(error.errno, error.strerror)
            return f"{error.filename}: {reason}" if error.filename else reason
        if isinstance(error, UnicodeError):
            text = getattr(error, "object", None)  # the codec of host names has none
            return str(error) if text is None else f"a text that is not UTF-8: {text[:80]!r}"
        if isinstance(error, RecursionError):
            return "something is nested too deeply"
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        if isinstance(error, MemoryError) or any(sign in str(text) for sign in NO_MEMORY):
            return f"out of memory; {self.short_of_memory}"
        if any(sign in str(text) for sign in NOT_COMPILED):
            return f"a kernel of Jittor could not be compiled: {toolchain.why_not_compiled()}"
        return one_line(str(text)) or type(error).__name__


def _ended(name: str, number: int) -> int:
    ending.tell(f"{name}: error: {ending.words(number)}")
    return 128 + number


class _Visible(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record), keep="\n\t")


def _handler() -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Visible("%(name)s: %(message)s"))
    return handler


def _fail(name: str, message: str, code: int) -> int:
    print(f"{name}: error: {error_line(message)}", file=sys.stderr)
    return code


def one_line(text: str) -> str:
    """A message of several lines as one; the lines after the first are taken as a list."""
    first, *rest = [line.strip() for line in text.strip().splitlines()] or [""]
    return f"{first} {', '.join(rest)}" if rest else first


def progress_bar(args: Namespace, unit: str) -> Callable:
    """make(total) -> a tqdm bar on stderr, silent with --quiet."""
    from tqdm import tqdm

    class Bar(tqdm):
        """One that was drawn before its delay was over ends its line, too."""

        def display(self, *args, **options):
            self.delay = 0
            ending.set_bar(True)
            return super().display(*args, **options)

        def close(self):
            super().close()
            ending.set_bar(False)

    def make(total: int):
        # delay: drawn with the first advance, so that a refusal before it stays one line
        return Bar(total=total, unit=unit, disable=args.quiet, dynamic_ncols=True, delay=1e-3)

    return make


def say(args: Namespace, text: str) -> None:
    """Print, unless --quiet was given."""
    if not args.quiet:
        print(visible(text, keep="\n\t"))


def count(n: int, thing: str) -> str:
    return f"{n} {thing}{'' if n == 1 else 's'}"
