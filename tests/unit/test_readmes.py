"""The READMEs say what is there: links, commands, and the same in both languages."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from jdreambooth.cli import PROGRAM as TRAINER
from jstyle.cli import PROGRAM as STYLE
from jstyle.console.program import Program

ROOT = Path(__file__).resolve().parents[2]
ENGLISH, CHINESE = ROOT / "README.md", ROOT / "jstyle" / "README.zh-CN.md"
OWN = ["README.md", "jstyle/README.md", "jstyle/README.zh-CN.md", "jdreambooth/README.md"]
OWN += ["benchmarks/README.md", "tests/cuda/README.md", "jstyle/models/tiny/README.md"]
PROGRAMS = {"jstyle": STYLE, "jdreambooth": TRAINER}


def blocks(path):
    """The fenced blocks of a Markdown file."""
    return re.findall(r"^```\w*\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)


def commands(path):
    """Lines of the blocks that call one of our programs, continued lines joined, as words."""
    for block in blocks(path):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] in PROGRAMS:
                yield words


COMMANDS = {" ".join(words): words for name in OWN for words in commands(ROOT / name)}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_every_command_is_one_that_the_program_takes(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command, rest = PROGRAMS[words[0]], words[1:]
    while isinstance(command, Program):
        command, rest = command.commands[rest[0]], rest[1:]
    command.make_parser(*((rest,) if command.varies else ())).parse(rest)


@pytest.mark.parametrize("name", OWN)
def test_every_link_leads_somewhere(name):
    path = ROOT / name
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        file, _, heading = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{name}: {target}"
        assert not heading or heading in _anchors(there), f"{name}: {target}"


def _anchors(path):
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def test_the_first_page_is_read_in_ten_minutes():
    assert len(ENGLISH.read_text(encoding="utf-8").splitlines()) <= 150


def test_both_languages_give_the_same_commands():
    def bare(path):
        return [re.sub(r" *#.*", "", block) for block in blocks(path)]

    python = [block for block in bare(ENGLISH) if block.startswith("from jstyle")]
    assert len(python) == 1 and len(bare(ENGLISH)) >= 6
    assert bare(CHINESE) == bare(ENGLISH)


def test_both_languages_give_the_same_tables_and_pictures():
    def tables(path):
        rows = [line for line in path.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
        return [sorted(re.findall(r"\d+(?:\.\d+)?(?:e-\d+)?", row.split("|")[-2])) for row in rows]

    def targets(path):
        found = re.findall(r"\]\(([^)\s#]+)", path.read_text(encoding="utf-8"))
        return {(path.parent / t).resolve() for t in found} - {ENGLISH, CHINESE}

    assert tables(CHINESE) == tables(ENGLISH)
    assert targets(CHINESE) == targets(ENGLISH)


def test_both_languages_have_the_same_sections_and_figures():
    def headings(path):
        return len(re.findall(r"^## ", path.read_text(encoding="utf-8"), re.M))

    def figures(path):
        return sorted(re.findall(r"\d+\.\d+(?:e-\d+)?|\d+e-\d+", path.read_text(encoding="utf-8")))

    assert headings(CHINESE) == headings(ENGLISH)
    assert figures(CHINESE) == figures(ENGLISH)
