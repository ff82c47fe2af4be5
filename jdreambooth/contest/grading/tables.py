"""Grades as CSV: a row for each submission with its rank, and a row for each line about one.

Names come from strangers: they are made visible, and what a spreadsheet would take for a formula
gets an apostrophe before it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from jstyle.score.total import METRICS
from jstyle.sd import files
from jstyle.sd.printable import error_line

TOTAL = "total"
SMALLER_IS_BETTER = ("lpips", "fid")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
COLUMNS = ("rank", "submission", "state", TOTAL, *METRICS, "pictures", "problems", "first problem")
LINE_COLUMNS = ("submission", "kind", "line")
GRADED, REFUSED, FAILED = "graded", "not scored", "failed"


def value_of(grade: Mapping, by: str) -> float | None:
    return grade.get(by) if grade["state"] == GRADED else None


def ranks(grades: Sequence[Mapping], by: str) -> list[int | None]:
    """The place of each, the best first; equal values share a place, those without have none."""
    sign = 1 if by in SMALLER_IS_BETTER else -1
    values = [value_of(grade, by) for grade in grades]
    known = [sign * value for value in values if value is not None]
    return [
        None if value is None else 1 + sum(other < sign * value for other in known)
        for value in values
    ]


def ranked(grades: Sequence[Mapping], by: str) -> list[tuple[int | None, Mapping]]:
    """(rank, grade), by rank and then by name; those without a rank at the end."""
    pairs = zip(ranks(grades, by), grades, strict=True)
    return sorted(pairs, key=lambda pair: (pair[0] is None, pair[0] or 0, pair[1]["submission"]))


def write_grades(path: Path, grades: Sequence[Mapping], by: str) -> None:
    rows = []
    for rank, grade in ranked(grades, by):
        numbers = [_number(grade.get(name)) for name in (TOTAL, *METRICS)]
        problems = grade["problems"]
        about = [grade["pictures"], len(problems), _text(problems[0] if problems else "")]
        name = _text(grade["submission"])
        rows.append([rank or "", name, grade["state"], *numbers, *about])
    _write(path, COLUMNS, rows)


def write_lines(path: Path, grades: Sequence[Mapping]) -> None:
    """Every problem and every remark."""
    rows = [
        [_text(grade["submission"]), kind, _text(line)]
        for grade in sorted(grades, key=lambda grade: grade["submission"])
        for kind in ("problem", "remark")
        for line in grade[f"{kind}s"]
    ]
    _write(path, LINE_COLUMNS, rows)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _text(text: str) -> str:
    text = error_line(text)
    return f"'{text}" if text.startswith(FORMULA) else text


def _write(path: Path, columns: Sequence[str], rows: Sequence[Sequence]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([columns, *rows])
    with files.atomic_write(path) as part:
        files.write_text(part, text.getvalue())
