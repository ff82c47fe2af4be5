"""What a submission holds, against what the contest asks for.

Problems are why a submission is not scored; remarks are what was left out or read tolerantly: the
folder that everything is in, further files, names in another form of Unicode.
"""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from jstyle.score.layout import Contest, Style, odd_sizes, picture_problem, result_path
from jstyle.sd.files import naming

from .submissions import (
    LARGEST_SUBMISSION,
    Member,
    MemberError,
    Submission,
    SubmissionError,
    open_submission,
)

MOST_PIXELS = 1 << 24  # of a picture: 4096 x 4096
MOST_PROBLEMS, MOST_REMARKS = 200, 20  # lines of one submission

Key = tuple[str, str]  # style, file name


@dataclass
class Inspected:
    """pictures: how many could be read. lost: the process that looked was. Lines begin with the
    place inside the submission."""

    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    pictures: int = 0
    lost: bool = False

    def cut(self) -> Inspected:
        """Without the lines beyond the most that anybody reads."""
        return Inspected(
            _cut(self.problems, MOST_PROBLEMS), _cut(self.remarks, MOST_REMARKS), self.pictures
        )


def _cut(lines: list[str], most: int) -> list[str]:
    return lines if len(lines) <= most else [*lines[:most], f"and {len(lines) - most} more lines"]


def inspect(path: Path, contest: Contest, work: Path) -> Inspected:
    """Check the zip or folder at `path`, and put its pictures, as far as they are right, into
    WORK/SS/PROMPT.png: those of a zip as files, those of a folder as links.

    Raises WriteError if `work` cannot be written.
    """
    try:
        with open_submission(path) as submission:
            return _inspect(submission, contest, work).cut()
    except SubmissionError as error:
        return Inspected([str(error)])
    except MemoryError:
        return Inspected(["takes more memory to read than a submission may"])


def _inspect(submission: Submission, contest: Contest, work: Path) -> Inspected:
    found = Inspected()
    astray = [member for member in submission.members if member.astray]
    found.problems += [f"{member.name}: {member.fault}" for member in astray]
    wanted = [(s.name, f"{prompt}.png") for s in contest.styles for prompt in s.prompts]
    above, by_key = _placed(submission, wanted)
    if not by_key:
        style = contest.styles[0]
        hint = f"looked for STYLE/PROMPT.png, such as {style.name}/{style.prompts[0]}.png"
        found.problems.append(f"holds no picture of the contest ({hint})")
        return found
    if above:
        found.remarks.append(f"everything is in {'/'.join(above)}/")
    used = {id(member) for members in by_key.values() for member in members}
    for member in submission.members:
        if id(member) not in used and not member.astray and not _of_others(member, above, contest):
            why = f" ({member.fault})" if member.fault else ""
            found.remarks.append(f"left out: {member.name}: not part of the contest{why}")
    sizes: dict[Path, tuple[int, int]] = {}
    budget = LARGEST_SUBMISSION
    for style in contest.styles:
        budget = _take_style(submission, style, above, by_key, work, found, sizes, budget)
    found.problems += odd_sizes(sizes)
    found.pictures = len(sizes)
    return found


def _of_others(member: Member, above: tuple[str, ...], contest: Contest) -> bool:
    """Whether it is of a style that this grading was not asked for."""
    inside = member.parts[len(above) :] if member.parts[: len(above)] == above else ()
    return len(inside) > 1 and inside[0] in contest.others


def _placed(
    submission: Submission, wanted: list[Key]
) -> tuple[tuple[str, ...], dict[Key, list[Member]]]:
    """The folder inside that holds the most of the wanted pictures, and these."""
    places: dict[tuple[str, ...], dict[Key, list[Member]]] = {}
    composed = {(style, _composed(name)): (style, name) for style, name in wanted}
    for member in submission.members:
        if len(member.parts) < 2 or member.astray:
            continue
        *above, style, name = member.parts
        key = composed.get((style, _composed(name)))
        if key is not None:
            places.setdefault(tuple(above), {}).setdefault(key, []).append(member)
    if not places:
        return (), {}
    best = min(places, key=lambda above: (-len(places[above]), len(above), above))
    return best, places[best]


def _composed(name: str) -> str:
    """macOS takes letters and their accents apart in the names of files."""
    return unicodedata.normalize("NFC", name)


def _take_style(
    submission: Submission,
    style: Style,
    above: tuple[str, ...],
    by_key: dict[Key, list[Member]],
    work: Path,
    found: Inspected,
    sizes: dict[Path, tuple[int, int]],
    budget: int,
) -> int:
    """Take the pictures of one style; returns how many bytes may still be read."""
    names = [f"{prompt}.png" for prompt in style.prompts]
    if not any((style.name, name) in by_key for name in names):
        found.problems.append(f"{style.name}: missing, with its {len(names)} pictures")
        return budget
    with naming(work):
        (work / style.name).mkdir()
    folded = _folded(submission, above, style)
    for prompt, name in zip(style.prompts, names, strict=True):
        where = f"{style.name}/{name}"
        members = by_key.get((style.name, name), [])
        if not members:
            near = folded.get(name.casefold())
            hint = f"; {near} differs in upper and lower case" if near else ""
            found.problems.append(f"{where}: missing{hint}")
            continue
        if len(members) > 1:
            found.problems.append(f"{where}: is there {len(members)} times")
            continue
        (member,) = members
        if member.parts[-1] != name:
            found.remarks.append(f"{where}: its name has letters and accents taken apart")
        budget -= member.size if member.fault is None else 0
        path = result_path(work, style.name, prompt)
        problem = _take(submission, member, path, budget) or _looked_at(path, where, sizes)
        if problem:
            found.problems.append(f"{where}: {problem}")
    return budget


def _folded(submission: Submission, above: tuple[str, ...], style: Style) -> dict[str, str]:
    """Names of the style's folder, by what they are without upper case."""
    inside = (*above, style.name)
    names = [m.parts[-1] for m in submission.members if m.parts[:-1] == inside]
    return {name.casefold(): name for name in names}


def _take(submission: Submission, member: Member, path: Path, budget: int) -> str | None:
    """Put one picture into the folder of the work; what is wrong with it, or None."""
    if budget < 0:
        return f"not read; a submission may have {LARGEST_SUBMISSION} bytes"
    if submission.archive is None and member.fault is None:
        with naming(path):
            os.symlink(os.path.abspath(member.place), path)
        return None
    try:
        data = submission.read(member)
    except MemberError as error:
        return str(error)
    with naming(path):
        path.write_bytes(data)
    return None


def _looked_at(path: Path, where: str, sizes: dict[Path, tuple[int, int]]) -> str | None:
    """What is wrong with the picture; its size goes under its place in the submission."""
    own: dict[Path, tuple[int, int]] = {}
    problem = picture_problem(path, own, MOST_PIXELS)
    if path in own:
        sizes[Path(PurePosixPath(where))] = own[path]
    return problem
