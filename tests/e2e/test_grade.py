"""A folder of submissions, most of them broken or hostile, graded as teaching staff would."""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from jdreambooth.contest.cli import PROGRAM
from jdreambooth.contest.grading.inspector import Inspector
from jdreambooth.contest.grading.tables import COLUMNS, ranks, write_grades
from jstyle.score.histogram import hist_scores
from jstyle.score.layout import read_contest
from tests.cli.conftest import environment
from tests.contests import save
from tests.submissions import ACCENTED, GOOD, HOSTILE, make_root, make_submissions, make_zip


class Graded(NamedTuple):
    folder: Path  # of everything
    grades: dict[str, dict]  # the record of each
    told: str
    before: list  # what was in the folder before the grading
    after: list
    peak: int  # bytes of the largest process

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def result(self) -> Path:
        return self.folder / "result"


def grade(folder: Path, *words: object, submissions: str = "handed in", out: str = "grades.csv"):
    given = (folder / submissions, "--root", folder / "root", "--out", folder / out)
    more = ("--metrics", "hist", "--cache", folder / "cache")
    return PROGRAM.main(["grade", *map(str, (*given, *more, *words))])


def command(folder: Path, submissions: str, out: str) -> list[str]:
    words = ("grade", folder / submissions, "--root", folder / "root", "--out", folder / out)
    words += ("--metrics", "hist", "--cache", folder / "cache")
    return [sys.executable, "-m", "jdreambooth", "contest", *map(str, words)]


def listed(folder: Path) -> list:
    return sorted(
        (str(path), path.lstat().st_size) for path in folder.rglob("*") if not path.is_dir()
    )


def records(folder: Path) -> dict[str, dict]:
    found = [json.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))]
    return {one["submission"]: one for one in found}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grading")
    root, result = make_root(folder)
    make_submissions(folder / "handed in", result)
    before = listed(folder)
    done = subprocess.run(
        command(folder, "handed in", "new/grades.csv"),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    made = records(folder / "new" / "grades-submissions")
    return Graded(folder, made, done.stdout, before, listed(folder), peak)


@pytest.mark.parametrize("name", GOOD)
def test_what_holds_the_pictures_is_scored_however_it_is_packed(graded, name):
    found = graded.grades[name]
    wanted = hist_scores(read_contest(graded.root), graded.result)
    assert found["state"] == "graded" and found["problems"] == [] and found["pictures"] == 6
    assert found["styles"] == {style: {"hist": pytest.approx(v)} for style, v in wanted.items()}


def test_what_was_read_tolerantly_is_told(graded):
    remarks = {name: found["remarks"] for name, found in graded.grades.items()}
    assert remarks["plain.zip"] == remarks["a folder"] == remarks["clutter.zip"] == []
    assert remarks["inside.zip"] == ["everything is in team/result/"]
    assert remarks["surplus.zip"] == ["left out: 00/notes.txt: not part of the contest"]
    apart = f"00/{ACCENTED}.png: its name has letters and accents taken apart"
    assert remarks["names.zip"] == [apart]
    link = "(is a link; links are not followed)"
    assert remarks["loop"] == [f"left out: 00/again: not part of the contest {link}"]


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_wrong_with_one_is_said_of_it(graded, name):
    found = graded.grades[name]
    assert found["state"] == "not scored" and found["hist"] is None
    assert any(HOSTILE[name][1] in line for line in found["problems"]), found["problems"]


def test_hostile_submissions_leave_nothing_behind(graded):
    assert len(HOSTILE) >= 30
    outputs = ("/new/", "/cache/")
    kept = [one for one in graded.after if not any(o in one[0] for o in outputs)]
    assert kept == graded.before
    names = {path.name for path in (graded.folder / "new").iterdir()}
    assert names == {
        *("grades.csv", "grades-lines.csv", "grades-submissions"),
    }
    there = {path.name for path in (graded.folder / "new" / "grades-submissions").iterdir()}
    assert len(there) == len(GOOD) + len(HOSTILE) and all(n.endswith(".json") for n in there)
    assert not Path("/absolute.txt").exists()
    assert graded.peak < 1 << 30


def test_tables_have_a_row_for_each_and_a_line_per_problem(graded):
    folder = graded.folder / "new"
    with open(folder / "grades.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS and len(rows) == len(GOOD) + len(HOSTILE)
    assert [row["rank"] for row in rows] == ["1"] * len(GOOD) + [""] * len(HOSTILE)
    names = [row["submission"] for row in rows]
    assert "'=1+1.zip" in names and r"\u202egnp.zip" in names
    with open(folder / "grades-lines.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    wanted = sum(len(one["problems"]) + len(one["remarks"]) for one in graded.grades.values())
    assert len(lines) == wanted
    assert {"submission": "a pipe", "kind": "problem", "line": "is a pipe"} in lines
    assert "twice.zip: problem: 01/Dog.png: is there 2 times" in graded.told
    assert f"{len(GOOD)} of {len(names)} submissions graded" in graded.told


@pytest.fixture
def class_of_four(tmp_path):
    """Four submissions of which one is better than the others, and one is broken."""
    root, result = make_root(tmp_path)
    handed = tmp_path / "handed in"
    handed.mkdir()
    for name in ("a.zip", "b.zip", "c.zip"):
        make_zip(handed / name, result)
    shutil.copytree(result, handed / "best")
    references = sorted((root / "01" / "images").glob("*.png"))
    for path in (handed / "best" / "01").glob("*.png"):
        save(path, 1)
        shutil.copy(references[0], path)
    for path in (handed / "best" / "00").glob("*.png"):
        shutil.copy(references[0], path)
    (handed / "c.zip").write_bytes(b"PK")
    return tmp_path


def test_a_killed_grading_goes_on_and_comes_to_the_same_bytes(class_of_four):
    folder = class_of_four
    options = {"env": environment(), "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    subprocess.run(command(folder, "handed in", "whole/g.csv"), check=True, **options)
    killed = subprocess.Popen(command(folder, "handed in", "killed/g.csv"), **options)
    first = folder / "killed" / "g-submissions" / "a.zip.json"
    deadline = time.monotonic() + 120
    while not first.exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    killed.kill()
    killed.communicate()
    kept = {p.name: p.stat().st_mtime_ns for p in first.parent.glob("*.json")}
    assert kept
    subprocess.run(command(folder, "handed in", "killed/g.csv"), check=True, **options)
    whole, again = (
        {p.relative_to(folder / n): p.read_bytes() for p in (folder / n).rglob("*.*")}
        for n in ("whole", "killed")
    )
    assert whole == again
    assert all((first.parent / name).stat().st_mtime_ns == time for name, time in kept.items())


def test_only_what_changed_is_graded_again(class_of_four, capsys):
    folder = class_of_four
    assert grade(folder) == 0
    there = {p.name: p.stat().st_mtime_ns for p in (folder / "grades-submissions").iterdir()}
    make_zip(folder / "handed in" / "c.zip", folder / "result")
    assert grade(folder) == 0
    now = {p.name: p.stat().st_mtime_ns for p in (folder / "grades-submissions").iterdir()}
    assert [name for name in now if now[name] != there[name]] == ["c.zip.json"]
    with open(folder / "grades.csv", newline="", encoding="utf-8") as file:
        rows = {row["submission"]: row["rank"] for row in csv.DictReader(file)}
    assert rows == {"best": "1", "a.zip": "2", "b.zip": "2", "c.zip": "2"}
    assert "ranks are by hist" in capsys.readouterr().out
    save(sorted((folder / "root" / "00" / "images").iterdir())[0], 77, 64)
    assert grade(folder) == 0  # another contest is another grade for everybody
    after = {p.name: p.stat().st_mtime_ns for p in (folder / "grades-submissions").iterdir()}
    assert all(after[name] != now[name] for name in now)


def test_a_process_that_a_submission_ends_is_replaced(tmp_path):
    root, result = make_root(tmp_path)
    with Inspector(read_contest(root)) as inspector:
        for number, ended in enumerate((False, True, False)):
            work = tmp_path / f"work{number}"
            work.mkdir()
            if ended:
                os.kill(inspector._process.pid, signal.SIGSEGV)
            found = inspector.inspect(result, work)
            assert found.lost is ended and (found.pictures == 6) is not ended
            wanted = ["reading it ended the process that did (by SIGSEGV)"] if ended else []
            assert found.problems == wanted


def test_ranks_go_by_what_is_asked_for(tmp_path):
    values = (("a", 0.5, 3.0), ("b", 0.7, 2.0), ("c", 0.5, 9.0), ("d", None, None))
    grades = [
        {"submission": name, "state": "graded" if total else "not scored", "total": total}
        | {"fid": fid, "pictures": 1, "problems": []}
        for name, total, fid in values
    ]
    assert ranks(grades, "total") == [2, 1, 2, None]
    assert ranks(grades, "fid") == [2, 1, 3, None]
    write_grades(tmp_path / "g.csv", grades, "fid")
    rows = (tmp_path / "g.csv").read_text().splitlines()
    assert [row.split(",")[1] for row in rows[1:]] == ["b", "a", "c", "d"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--by", "total"), "by must be something that is computed here (hist), got 'total'"),
        (("--metrics", "hits"), "no metric 'hits' in contest"),
        (("--styles", "7"), "7: no such style; there are 00, 01"),
        (("--device", "tpu"), "device must be one of"),
        (("--out", "grades.txt"), "grades.txt: the name must end in .csv"),
        (("--out", "handed in/grades.csv"), "is among the submissions; write it elsewhere"),
        (("--out", "mine.csv"), "mine.csv: is there already and no result"),
    ],
)
def test_words_that_do_not_fit_are_refused_in_one_line(class_of_four, words, message, capsys):
    (class_of_four / "mine.csv").write_text("my,own\n")
    if words[0] == "--out":
        words = ("--out", class_of_four / words[1])
    assert grade(class_of_four, *words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert (class_of_four / "mine.csv").read_text() == "my,own\n"
    assert not (class_of_four / "grades-submissions").exists()


def test_somebodys_own_table_is_replaced_only_if_asked(class_of_four):
    (class_of_four / "grades.csv").write_text("my,own\n")
    assert grade(class_of_four, "--overwrite") == 0
    assert (class_of_four / "grades.csv").read_text().startswith("rank,submission,state,")
    assert grade(class_of_four) == 0
