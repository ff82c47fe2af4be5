"""Many pictures: files of prompts, wildcards, and what becomes of them before a model is there."""

from __future__ import annotations

import json

import pytest

from jstyle.commands.generate import Request
from jstyle.commands.jobs import make_groups, make_jobs
from jstyle.commands.prompt_list import Line, read_list
from jstyle.commands.referenced import After
from jstyle.commands.wildcards import DEEPEST, Wildcards
from jstyle.sd.files import InputError
from jstyle.sd.prompts import PromptError
from jstyle.sd.samplers.options import Sampling


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_lists_of_prompts_in_their_formats(tmp_path):
    assert read_list(write(tmp_path / "a.txt", "a fox\n\n  # a tree \r\n")) == [
        Line("a fox"),
        Line("# a tree"),
    ]
    more = {"prompt": "a cat", "negative": "", "seed": 7, "size": "64x96", "name": "the cat"}
    cat = Line("a cat", "", 7, (64, 96), "the cat")
    lines = ['"a fox"', json.dumps(more), "", '{"prompt": "b", "size": 128}']
    rest = [Line("a fox"), cat, Line("b", size=(128, 128))]
    assert read_list(write(tmp_path / "a.jsonl", "\n".join(lines))) == rest
    assert read_list(write(tmp_path / "a.json", json.dumps(["a fox", more]))) == rest[:2]
    assert read_list(write(tmp_path / "b.json", '{"0": "a fox", "1": "b"}')) == [
        Line("a fox"),
        Line("b"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "a", r"a\.csv: prompts are read from \.txt, \.json, \.jsonl files"),
        ("a.txt", "\n\n", r"a\.txt: holds no prompts"),
        ("a.json", "3", r"must hold a list or an object, got a number"),
        ("a.json", '["a", 3]', r"a\.json, entry 2: must be text or an object, got a number"),
        ("a.jsonl", '"a"\n\n{"prompt": "b", "sed": 3}', r"line 3: no key 'sed'; did you mean seed"),
        ("a.jsonl", "{}", r"line 1: has no prompt"),
        ("a.jsonl", "{", r"line 1: not JSON"),
        ("a.jsonl", '{"prompt": 3}', "line 1: prompt must be text, got 3"),
        ("a.jsonl", '{"prompt": "a", "seed": -1}', "line 1: seed must be an integer from 0"),
        ("a.jsonl", '{"prompt": "a", "size": "9x"}', 'size must be pixels or "WIDTHxHEIGHT"'),
        ("a.jsonl", '{"prompt": "a", "size": 0}', "from 1 to 8192, got 0"),
        ("a.jsonl", '{"prompt": "a", "references": []}', "references must be a path or a list"),
        ("a.jsonl", '{"prompt": "a", "name": "../b"}', "name must be a file's name without folder"),
    ],
)
def test_a_bad_list_is_refused_with_its_line(tmp_path, name, text, told):
    with pytest.raises(InputError, match=told):
        read_list(write(tmp_path / name, text))


@pytest.fixture
def words(tmp_path):
    folder = tmp_path / "words"
    (folder / "far").mkdir(parents=True)
    write(folder / "animal.txt", "# animals\nfox\n\ncat\nowl\n")
    write(folder / "far" / "place.txt", "on a __colour__ hill\n")
    write(folder / "colour.txt", "red\nblue\n")
    write(folder / "none.txt", "# nothing\n")
    write(folder / "round.txt", "a __round__\n")
    return folder


def test_wildcards_are_drawn_by_the_seed(words):
    drawn = [Wildcards(words).drawn(["a __animal__", "__colour__"], seed) for seed in range(40)]
    assert drawn == [Wildcards(words).drawn(["a __animal__", "__colour__"], s) for s in range(40)]
    assert {first for first, _ in drawn} == {"a fox", "a cat", "a owl"}
    assert {second for _, second in drawn} == {"red", "blue"}
    twice = {tuple(Wildcards(words).drawn(["__animal__ __animal__"], s)) for s in range(60)}
    assert len(twice) == 9  # each stands for a line of its own
    (nested,) = Wildcards(words).drawn(["fox __far/place__, x__y"], 3)
    assert nested in ("fox on a red hill, x__y", "fox on a blue hill, x__y")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("__animals__", r"no animals\.txt for __animals__; did you mean __animal__\?"),
        ("__none__", r"none\.txt: holds no lines to choose from"),
        ("__round__", rf"more than {DEEPEST} wildcards, __round__ in __round__"),
    ],
)
def test_a_wildcard_that_stands_for_nothing_is_refused(words, text, told):
    with pytest.raises(InputError, match=told):
        Wildcards(words).drawn([text], 0)


def test_a_folder_without_wildcards_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no \.txt files"):
        Wildcards(tmp_path)
    with pytest.raises(InputError, match=r"no such folder \(wildcards\)"):
        Wildcards(tmp_path / "gone")


def test_jobs_have_the_seeds_sizes_and_names_of_their_lines(tmp_path, words):
    lines = ['{"prompt": "b", "seed": 40, "size": "96x64", "name": "bee"}', '"__animal__"']
    listed = str(write(tmp_path / "a.jsonl", "\n".join(lines)))
    asked = Request(["a"], "out", seed=5, negative="n", listed=listed, wildcards=str(words))
    first, bee, drawn = make_jobs(asked)
    same = {"negative": "n", "height": None, "width": None}
    assert first.words == {"prompt": "a", "seed": 5, **same}
    assert bee.words == {"prompt": "b", "seed": 40, "negative": "n", "height": 64, "width": 96}
    assert drawn.words["seed"] == 7 and drawn.words["prompt"] in ("fox", "cat", "owl")
    assert (first.asked, drawn.asked) == (None, "__animal__")
    names = ["000_a.png", "bee.png", f"002_{drawn.words['prompt']}.png"]
    assert [job.path.name for job in (first, bee, drawn)] == names


def test_count_gives_each_prompt_several_pictures(tmp_path):
    lines = ['"a"', '{"prompt": "b", "seed": 40, "name": "bee"}']
    listed = str(write(tmp_path / "a.jsonl", "\n".join(lines)))
    jobs = make_jobs(Request([], "out", seed=5, listed=listed, count=2))
    assert [job.words["seed"] for job in jobs] == [5, 6, 40, 41]
    assert [job.path.stem for job in jobs] == ["000_a", "001_a", "bee_0", "bee_1"]
    many = make_jobs(Request(["a", "b"], "out", count=600))
    names = [job.path.name for job in many]
    assert (names[0], names[-1]) == ("0000_a.png", "1199_b.png") and names == sorted(names)


def test_jobs_that_cannot_be_are_refused_before_anything_starts(tmp_path):
    with pytest.raises(ValueError, match="give at least one --prompt, or --prompts"):
        make_jobs(Request([], "out"))
    with pytest.raises(ValueError, match="one file name for 2 pictures"):
        make_jobs(Request(["a"], "one.png", count=2))
    twice = write(
        tmp_path / "a.json", '[{"prompt": "a", "name": "B"}, {"prompt": "b", "name": "b"}]'
    )
    with pytest.raises(ValueError, match="two pictures are named b"):
        make_jobs(Request([], "out", listed=str(twice)))
    webui = Sampling(syntax="webui")
    with pytest.raises(PromptError, match=r"bracket \( at character 3 is never closed"):
        make_jobs(Request(["a (b"], "out", webui))
    with pytest.raises(PromptError, match="negative prompt 'a AND b'"):
        make_jobs(Request(["a"], "out", webui, negative="a AND b"))
    assert len(make_jobs(Request(["a (b"], "out"))) == 1


def test_pictures_of_the_same_references_go_together(tmp_path):
    from jstyle.methods import find_method
    from tests.cli.conftest import make_pictures

    make_pictures(tmp_path / "in", ("x", "y"))
    lines = ['"a"', '{"prompt": "b", "references": "in/x.png"}', '{"prompt": "c", "size": 64}']
    lines += ['{"prompt": "d", "references": ["in/x.png", "in/y.png"]}', '{"prompt": "e"}']
    listed = str(write(tmp_path / "a.jsonl", "\n".join(lines)))
    name = "reference-only"
    after = After(name, find_method(name).Config(), (str(tmp_path / "in/y.png"),))
    groups = make_groups(Request([], "out", after=after, listed=listed))
    found = [
        ("".join(job.words["prompt"] for job in group.jobs), [p.path.name for p in group.pictures])
        for group in groups
    ]
    wanted = [("ae", ["y.png"]), ("b", ["x.png"]), ("c", ["y.png"]), ("d", ["x.png", "y.png"])]
    assert found == wanted
    with pytest.raises(ValueError, match="references need --method"):
        make_groups(Request([], "out", listed=listed))
    with pytest.raises(PromptError, match=r"has \[a\|b\], which is about sampling"):
        make_groups(Request(["[a|b]"], "out", Sampling(syntax="webui"), after=after))
    assert len(make_groups(Request(["(a:1.2)"], "out", Sampling(syntax="webui"), after=after))) == 1
