"""The contest's folders: styles with references and prompts, and the submission made for them.

ROOT/SS/prompt.json         {"0": "Dolphin", "1": "Bread", ...}
ROOT/SS/images/NAME.png     references; the stem is the object's caption
RESULT/SS/PROMPT.png        the prompt verbatim as the file's name
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..sd.files import InputError, require_folder
from ..sd.picture_files import DECODE_ERRORS, ImageError, list_images, open_picture, own_bound
from ..sd.printable import reason_of
from ..sd.reading import read_json

PROMPTS = "prompt.json"
IMAGES = "images"
LONGEST_NAME = 255  # bytes, on the usual file systems


class ContestError(ValueError):
    """A contest or submission that cannot be used: the first line says which, then each problem."""


@dataclass(frozen=True)
class Style:
    """References sorted by name, prompts in the order of their numbers."""

    name: str
    references: tuple[Path, ...]
    prompts: tuple[str, ...]


@dataclass(frozen=True)
class Contest:
    """Styles sorted by name. `others`: names of the root's styles that were not asked for."""

    root: Path
    styles: tuple[Style, ...]
    others: tuple[str, ...] = ()

    @property
    def num_prompts(self) -> int:
        return sum(len(style.prompts) for style in self.styles)


def _no_folder(path: Path) -> str | None:
    """What stands there instead, in one line; None for a folder."""
    try:
        require_folder(path)
    except InputError as error:
        return str(error)
    return None


def read_contest(root: str | os.PathLike, styles: Sequence[str] | None = None) -> Contest:
    """The styles of ROOT, or those named. Raises ContestError with every problem of the root."""
    root = Path(root)
    if fault := _no_folder(root):
        raise ContestError(fault)
    names = sorted(p.name for p in root.iterdir() if p.is_dir() and not _is_clutter(p.name))
    if not names:
        raise ContestError(f"{root}: no style folders here (expected 00, 01, ...)")
    wanted = names if styles is None else sorted(set(map(str, styles)))
    if not wanted:
        raise ContestError(f"{root}: no style was asked for; there are {', '.join(names)}")
    problems = [
        f"{root / name}: no such style; there are {', '.join(names)}"
        for name in wanted
        if name not in names
    ]
    read = []
    for name in wanted:
        if name in names:
            read.append(_read_style(root / name, problems))
    raise_problems(str(root), problems)
    return Contest(root, tuple(read), tuple(name for name in names if name not in wanted))


def raise_problems(where: str, problems: Sequence[str]) -> None:
    """Raise ContestError if there are any."""
    if len(problems) == 1:
        raise ContestError(problems[0])
    if problems:
        raise ContestError("\n".join([f"{where}: {len(problems)} problems:", *problems]))


def _is_clutter(name: str) -> bool:
    """Folders that archives and editors leave behind, such as __MACOSX and .git."""
    return name.startswith((".", "__"))


def _read_style(folder: Path, problems: list[str]) -> Style:
    references: tuple[Path, ...] = ()
    try:
        references = tuple(list_images(folder / IMAGES))
    except ImageError as error:
        problems.append(str(error))
    return Style(folder.name, references, _read_prompts(folder / PROMPTS, problems))


def _read_prompts(path: Path, problems: list[str]) -> tuple[str, ...]:
    """In the order of the keys as numbers. Appends what is wrong, each with the path."""
    try:
        pairs = read_json(path, _Pairs)
    except InputError as error:
        problems.append(str(error))
        return ()
    if not isinstance(pairs, _Pairs) or not pairs:
        problems.append(f'{path}: must be an object such as {{"0": "Dolphin", "1": "Bread"}}')
        return ()
    found = len(problems)
    for key, prompt in pairs:
        if not (key.isascii() and key.isdigit()):
            problems.append(f"{path}: keys must be whole numbers from 0 up, got {key!r}")
        if not isinstance(prompt, str):
            problems.append(f"{path}: prompt {key} must be text, got {json.dumps(prompt)}")
        elif reason := _unfit_as_name(prompt):
            problems.append(f"{path}: prompt {key}, {prompt!r}, {reason}")
    if len(problems) > found:
        return ()
    problems += _repeated(path, [str(int(key)) for key, _ in pairs], "key")
    problems += _repeated(path, [prompt for _, prompt in pairs], "prompt")
    return tuple(prompt for _, prompt in sorted(pairs, key=lambda pair: int(pair[0])))


class _Pairs(list):
    """A JSON object with its keys as they stand in the file, repeated ones too."""


def _repeated(path: Path, values: list[str], what: str) -> list[str]:
    counts = Counter(values)
    return [f"{path}: {what} {v!r} occurs {n} times" for v, n in counts.items() if n > 1]


def _unfit_as_name(prompt: str) -> str | None:
    """Why `prompt` + ".png" cannot be a file's name inside the style's folder; None if it can."""
    if not prompt.strip():
        return "is empty"
    if any(mark in prompt for mark in "/\\"):
        return "holds a slash and cannot be a file's name"
    if prompt.startswith("."):
        return "starts with a dot and cannot be a file's name"
    if any(ord(mark) < 32 or ord(mark) == 127 for mark in prompt):
        return "holds a control character"
    if len(f"{prompt}.png".encode()) > LONGEST_NAME:
        return f"is too long for a file's name ({LONGEST_NAME} bytes with .png)"
    return None


def result_path(result: str | os.PathLike, style_name: str, prompt: str) -> Path:
    """RESULT/SS/PROMPT.png, verbatim. Raises ContestError for a name that would lead elsewhere."""
    for what, name in (("style", style_name), ("prompt", prompt)):
        if reason := _unfit_as_name(name):
            raise ContestError(f"{what} {name!r} {reason}")
    return Path(result) / style_name / f"{prompt}.png"


def check_result(result: str | os.PathLike, contest: Contest) -> list[str]:
    """Everything that is wrong with a submission, one line each, with its path; [] if nothing is.

    Every prompt of every style once, nothing else, PNG files that decode, RGB, one common size.
    """
    result = Path(result)
    if fault := _no_folder(result):
        return [fault]
    names = {style.name for style in contest.styles}
    problems = [
        f"{path}: not part of the contest"
        for path in sorted(result.iterdir())
        if path.name not in names and path.name not in contest.others
    ]
    sizes: dict[Path, tuple[int, int]] = {}
    for style in contest.styles:
        problems += _check_style(result / style.name, style, sizes)
    return problems + odd_sizes(sizes)


def _check_style(folder: Path, style: Style, sizes: dict[Path, tuple[int, int]]) -> list[str]:
    """The problems of one style; fills in (width, height) of its readable pictures."""
    if fault := _no_folder(folder):
        return [fault]
    there = {path.name: path for path in sorted(folder.iterdir())}
    wanted = {f"{prompt}.png": prompt for prompt in style.prompts}
    folded = {name.casefold(): name for name in there if name not in wanted}
    problems = []
    for name in wanted:
        if name not in there:
            near = folded.get(name.casefold())
            hint = f"; {near} differs in upper and lower case" if near else ""
            problems.append(f"{folder / name}: missing{hint}")
        elif reason := picture_problem(there[name], sizes):
            problems.append(f"{there[name]}: {reason}")
    return problems + [
        f"{path}: not a prompt of style {style.name}"
        for name, path in there.items()
        if name not in wanted
    ]


def picture_problem(
    path: Path, sizes: dict[Path, tuple[int, int]], most_pixels: int | None = None
) -> str | None:
    """What is wrong with one picture, or None, with its (width, height) put into `sizes`.

    most_pixels: a bound for pictures from people who are not trusted.
    """
    try:
        with own_bound(), open_picture(path) as image:
            if image.format != "PNG":
                return f"must be PNG, is {image.format}"
            if most_pixels is not None and image.width * image.height > most_pixels:
                return f"is {image.width} x {image.height}, at most {most_pixels} pixels are read"
            image.load()
            sizes[path] = image.size
            return None if image.mode == "RGB" else f"must be RGB, is {image.mode}"
    except ImageError as error:
        return str(error).removeprefix(f"{path}: ")
    except DECODE_ERRORS as error:
        return f"cannot be read ({reason_of(error)})"


def odd_sizes(sizes: dict[Path, tuple[int, int]]) -> list[str]:
    """A line for each of the pictures whose size is not the most frequent one."""
    if len(set(sizes.values())) < 2:
        return []
    (width, height), _ = Counter(sizes.values()).most_common(1)[0]
    return [
        f"{path}: is {w} x {h}, most others are {width} x {height}"
        for path, (w, h) in sizes.items()
        if (w, h) != (width, height)
    ]
