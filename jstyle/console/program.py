"""A command line with commands: errors in one line, exit codes, signals.

Exit codes: 0 fine, 2 wrong usage or input, 1 anything else, 130 after Ctrl-C, 143 after SIGTERM,
129 after SIGHUP.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NamedTuple

from jsonargparse import Namespace

from ..sd import ending, toolchain
from ..sd.ending import Terminated
from ..sd.places import WRONG_PATHS
from ..sd.printable import error_line, visible
from .parser import Parser, UsageError
from .words import one_line

log = logging.getLogger("jstyle")

# What Jittor says where it is given no memory for a thread or a value
NO_MEMORY = ("std::bad_alloc", "Cannot allocate memory", "Resource temporarily unavailable")
# and where a compiler below it fails; what that had to say, it has said on stderr
NOT_COMPILED = ("Error happend during compilation", "Run cmd failed")


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
