"""Wildcards: `__name__` in a prompt stands for a line of FOLDER/name.txt, drawn by the seed.

Empty lines and lines that begin with # are no choices. A line may have wildcards itself. Which
line is drawn depends on the picture's seed and on the file alone, so the same seed draws the same.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from ..sd.files import InputError
from ..sd.reading import read_lines

WILDCARD = re.compile(r"__([A-Za-z0-9](?:[A-Za-z0-9 _./-]*?[A-Za-z0-9])?)__")
SUFFIX = ".txt"
DEEPEST = 16  # wildcards in lines that wildcards stand for
LONGEST = 1 << 16  # characters of a prompt after all
STREAM = 0x77696C64  # keeps these draws apart from others of the seed


class Wildcards:
    """The files of a folder, each read once."""

    def __init__(self, folder: str | Path):
        """Raises InputError if there is no such folder, or it holds no .txt file."""
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError(f"{self.folder}: no such folder (wildcards)")
        paths = sorted(p for p in self.folder.rglob(f"*{SUFFIX}") if p.is_file())
        self.paths = {p.relative_to(self.folder).with_suffix("").as_posix(): p for p in paths}
        if not self.paths:
            raise InputError(f"{self.folder}: holds no {SUFFIX} files (wildcards)")
        self._lines: dict[str, list[str]] = {}

    def drawn(self, texts: list[str], seed: int) -> list[str]:
        """The texts of one picture with lines in the place of wildcards.

        Raises InputError for a name without a file, a file without lines, files that name each
        other in a circle, and what becomes too long.
        """
        rng = np.random.default_rng([STREAM, seed])
        return [self._filled(text, rng, ()) for text in texts]

    def _filled(self, text: str, rng: np.random.Generator, inside: tuple[str, ...]) -> str:
        def line(match: re.Match) -> str:
            name = match[1]
            lines = self._choices(name)
            chosen = lines[rng.integers(len(lines))]
            if len(inside) == DEEPEST:
                turns = " in ".join(f"__{one}__" for one in (name, *inside[:-3:-1]))
                raise InputError(f"{self.folder}: more than {DEEPEST} wildcards, {turns} ...")
            return self._filled(chosen, rng, (*inside, name))

        filled = WILDCARD.sub(line, text)
        if len(filled) > LONGEST:
            raise InputError(f"{self.folder}: a prompt becomes longer than {LONGEST} characters")
        return filled

    def _choices(self, name: str) -> list[str]:
        if name not in self._lines:
            if name not in self.paths:
                near = get_close_matches(name, self.paths, 1)
                hint = f"; did you mean __{near[0]}__?" if near else ""
                raise InputError(f"{self.folder}: no {name}{SUFFIX} for __{name}__{hint}")
            path = self.paths[name]
            lines = [text.strip() for text in read_lines(path)]
            self._lines[name] = [text for text in lines if text and not text.startswith("#")]
            if not self._lines[name]:
                raise InputError(f"{path}: holds no lines to choose from")
        return self._lines[name]


def has_wildcard(text: str) -> bool:
    return WILDCARD.search(text) is not None
