"""Grade a folder of submissions: check, score, rank, one after the other.

OUT.csv                         a row per submission, by rank; written anew after each of them
OUT-lines.csv                   a row per problem and per remark
OUT-submissions/NAME.json       as `jstyle score --json`, and the problems: for those who handed in

A submission whose bytes, contest and settings are as in its .json is not looked at again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from jstyle import __version__
from jstyle.score.cache import fingerprint
from jstyle.score.layout import read_contest
from jstyle.score.pictures import read_rgb
from jstyle.score.run import Judge, Settings
from jstyle.score.total import METRICS
from jstyle.sd import files, parts, targets
from jstyle.sd.picture_files import is_clutter
from jstyle.sd.printable import reason_of
from jstyle.sd.progress import progress_of
from jstyle.sd.reading import read_object

from ..folders import locked
from ..manifest import key_of
from .inspection import Inspected
from .inspector import Inspector
from .submissions import SubmissionError, digest_of
from .tables import FAILED, GRADED, REFUSED, TOTAL, write_grades, write_lines

log = logging.getLogger("jdreambooth")

Tell = Callable[[str], object]


@dataclass(frozen=True)
class Places:
    """Where grades are written."""

    table: Path

    @property
    def lines(self) -> Path:
        return self.table.with_name(f"{self.table.stem}-lines.csv")

    @property
    def folder(self) -> Path:
        return self.table.with_name(f"{self.table.stem}-submissions")

    def record(self, submission: Path) -> Path:
        return self.folder / targets.cut_name(submission.name, ".json")


def grade(
    submissions: str | Path,
    root: str | Path,
    out: str | Path,
    settings: Settings,
    styles: list[str] | None = None,
    by: str | None = None,
    tell: Tell = print,
    bar: Callable | None = None,
    overwrite: bool = False,
) -> list[dict]:
    """Grade every zip and folder in `submissions`; a dictionary for each, as in its .json.

    by: what ranks are taken from; None for the total, or the first metric where there is none.
    tell(line) hears what became of each. overwrite: also replace files that are no grades.
    Raises ValueError for what cannot be asked, ContestError for the contest, WriteError; what is
    wrong with a submission is in its grade.
    """
    places, folder = Places(Path(out)), files.require_folder(submissions)
    _require_places(places, folder, overwrite)
    contest = read_contest(root, styles)
    for path in (path for style in contest.styles for path in style.references):
        read_rgb(path)
    found = [path for path in sorted(folder.iterdir()) if not is_clutter(path.name)]
    if not found:
        raise ValueError(f"{folder}: no submissions here, which are zip files and folders")
    judge = Judge(contest, settings, keep=True)
    by = chosen_by(by, judge, tell)
    with files.output_folder(places.table.parent), locked(places.folder):
        files.writable_folder(places.folder)
        grades: dict[Path, dict] = {}
        with progress_of(bar, len(found)) as progress:
            for path, one in _each(found, judge, places):
                grades[path] = one
                _report(one, by, tell)
                write_grades(places.table, list(grades.values()), by)
                write_lines(places.lines, list(grades.values()))
                progress.update()
    return list(grades.values())


def _require_places(places: Places, folder: Path, overwrite: bool) -> None:
    if places.table.suffix.lower() != ".csv":
        raise ValueError(f"{places.table}: the name must end in .csv")
    if places.table.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{places.table}: is among the submissions; write it elsewhere")
    targets.require_free([places.table, places.lines], overwrite)


def chosen_by(by: str | None, judge: Judge, tell: Tell) -> str:
    """The name of the value that ranks are taken from. Raises ValueError for one that is not
    computed here."""
    names = [one.name for one in judge.ready]
    there = [TOTAL, *names] if set(METRICS) <= set(names) else names
    if by is None:
        by = there[0] if there else TOTAL
        if by != TOTAL:
            lacking = ", ".join(name for name in METRICS if name not in names)
            where = "; jstyle score --where tells of weights" if judge.missing else ""
            tell(f"there is no total without {lacking}; ranks are by {by}{where}")
    if by not in there:
        allowed = ", ".join(there) or "none"
        raise ValueError(f"by must be something that is computed here ({allowed}), got {by!r}")
    return by


def _each(found: list[Path], judge: Judge, places: Places) -> Iterator[tuple[Path, dict]]:
    """The grade of each submission, from its record or made now."""
    about = _about(judge)
    loaded = False
    with Inspector(judge.contest) as inspector:
        for path in found:
            record = places.record(path)
            try:
                key = key_of({**about, "submission": digest_of(path)})
            except (SubmissionError, ValueError, OSError) as error:
                made = _blank(path, judge, Inspected([reason_of(error)]), REFUSED)
                files.write_json(record, {**made, "key": None})
                yield path, made
                continue
            known = _known(record, key)
            if known is not None:
                yield path, known
                continue
            if not loaded:
                judge.load()
                loaded = True
            made = {**_judged(path, judge, inspector, places), "key": key}
            if made["state"] != FAILED:  # which the next run tries again
                files.write_json(record, made)
            yield path, made


def _about(judge: Judge) -> dict:
    """What a grade depends on beside the submission."""
    contest, settings = judge.contest, judge.settings
    styles = {
        style.name: {
            "prompts": style.prompts,
            "references": [_content(path) for path in style.references],
        }
        for style in contest.styles
    }
    ready = {
        one.name: [*(fingerprint(path) for path in one.files), one.words] for one in judge.ready
    }
    others = {"metrics": settings.metrics, "corrected": settings.corrected}
    return {"version": __version__, "styles": styles, "ready": ready, **others}


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _known(record: Path, key: str) -> dict | None:
    try:
        found = read_object(record)
    except files.InputError:
        return None
    return found if found.get("key") == key else None


def _judged(path: Path, judge: Judge, inspector: Inspector, places: Places) -> dict:
    with parts.unfinished(places.folder / "work", is_folder=True) as work:
        try:
            seen = inspector.inspect(path, work)
        except files.WriteError as error:
            raise files.WriteError(error.errno, error.strerror, str(places.folder)) from None
        if seen.problems:
            return _blank(path, judge, seen, FAILED if seen.lost else REFUSED)
        try:
            report = judge.score(work)
        except OSError:  # the grader's own disk
            raise
        except Exception as error:  # whatever it is, the others are graded
            log.info("what happened", exc_info=True)
            seen.problems.append(f"could not be scored ({reason_of(error)})")
            return _blank(path, judge, seen, FAILED)
    return {"submission": path.name, "state": GRADED, **report, **_seen(seen)}


def _seen(seen: Inspected) -> dict:
    found = asdict(seen)
    del found["lost"]
    return found


def _blank(path: Path, judge: Judge, seen: Inspected, state: str) -> dict:
    """The grade of what is not scored: as a report, with nothing in it."""
    values = dict.fromkeys((TOTAL, *judge.settings.metrics))
    report = {**values, "missing": list(judge.missing), "why": judge.missing}
    report |= {"corrected": judge.settings.corrected, "images": judge.contest.num_prompts}
    report["styles"] = {style.name: {} for style in judge.contest.styles}
    return {"submission": path.name, "state": state, **report, **_seen(seen)}


def _report(one: dict, by: str, tell: Tell) -> None:
    """A line for the submission, and one for each problem and remark."""
    if one["state"] == GRADED:
        value = one.get(by)
        tell(f"{one['submission']}: {by} {'none' if value is None else f'{value:.6f}'}")
    else:
        tell(f"{one['submission']}: {one['state']}")
    for kind in ("problem", "remark"):
        for line in one[f"{kind}s"]:
            tell(f"{one['submission']}: {kind}: {line}")
