"""What a command says: lines, counts, progress bars."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

from ..sd import ending
from ..sd.printable import visible


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
