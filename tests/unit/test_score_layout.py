"""The contest's folders: what is read, and what is refused with which words."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from jstyle.score.layout import ContestError, check_result, read_contest, result_path
from tests.contests import SIZE, STYLES, make_contest, save


@pytest.fixture
def root(tmp_path):
    return make_contest(tmp_path)[0]


@pytest.fixture
def result(root):
    return root.parent / "result"


def prompts(root, text):
    (root / "00" / "prompt.json").write_text(text)


def refusal(root, styles=None):
    with pytest.raises(ContestError) as caught:
        read_contest(root, styles)
    return str(caught.value)


def test_styles_and_references_are_sorted_and_prompts_keep_their_words(root):
    contest = read_contest(root)
    assert [style.name for style in contest.styles] == ["00", "01"]
    assert [path.stem for path in contest.styles[1].references] == ["Cherry_blossom", "cat_"]
    assert {style.name: style.prompts for style in contest.styles} == {
        name: words for name, (_, words) in STYLES.items()
    }
    assert contest.num_prompts == 5 and contest.others == ()


def test_prompts_are_in_the_order_of_their_numbers_not_of_their_keys(root):
    prompts(root, json.dumps({"10": "ten", "9": "nine", "0": "zero"}))
    assert read_contest(root).styles[0].prompts == ("zero", "nine", "ten")


def test_styles_can_be_chosen_and_the_others_are_remembered(root):
    contest = read_contest(root, ["01"])
    assert [style.name for style in contest.styles] == ["01"] and contest.others == ("00",)
    assert refusal(root, ["01", "7"]) == f"{root / '7'}: no such style; there are 00, 01"


def test_what_archives_leave_behind_is_no_style(root):
    (root / "__MACOSX").mkdir()
    (root / ".git").mkdir()
    assert len(read_contest(root).styles) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"0": "Cat"', "not JSON"),
        ('["Cat"]', "must be an object"),
        ("{}", "must be an object"),
        ('{"a": "Cat"}', "keys must be whole numbers from 0 up, got 'a'"),
        ('{"0": "Cat", "00": "Dog"}', "key '0' occurs 2 times"),
        ('{"0": "Cat", "0": "Dog"}', "key '0' occurs 2 times"),
        ('{"0": "Cat", "1": "Cat"}', "prompt 'Cat' occurs 2 times"),
        ('{"0": 7}', "prompt 0 must be text, got 7"),
        ('{"0": ""}', "prompt 0, '', is empty"),
        ('{"0": "a/b"}', "holds a slash"),
        ('{"0": "a\\\\b"}', "holds a slash"),
        ('{"0": "../../x"}', "holds a slash"),
        ('{"0": ".."}', "starts with a dot"),
        ('{"0": "a\\nb"}', "holds a control character"),
        (json.dumps({"0": "a" * 300}), "is too long"),
    ],
)
def test_bad_prompts_are_named_with_their_file(root, text, words):
    prompts(root, text)
    message = refusal(root)
    assert message.startswith(f"{root / '00' / 'prompt.json'}: ") and words in message
    assert "\n" not in message


def test_all_problems_of_a_root_are_told_at_once(root):
    (root / "00" / "prompt.json").unlink()
    for path in (root / "01" / "images").iterdir():
        path.unlink()
    (root / "02").mkdir()
    first, *problems = refusal(root).splitlines()
    assert first == f"{root}: 4 problems:"
    named = [root / "00" / "prompt.json", root / "01" / "images"]
    named += [root / "02" / "images", root / "02" / "prompt.json"]
    assert [line.split(": ")[0] for line in problems] == [str(path) for path in named]


@pytest.mark.parametrize("kind", ["missing", "file", "empty"])
def test_a_root_that_is_none(tmp_path, kind):
    root = tmp_path / "nothing"
    if kind != "missing":
        root.write_text("") if kind == "file" else root.mkdir()
    words = {"missing": "no such folder", "file": "a file, not a folder"}
    words["empty"] = "no style folders"
    assert refusal(root).startswith(f"{root}: {words[kind]}")


def test_a_prompt_becomes_the_files_name_letter_by_letter(tmp_path):
    assert result_path(tmp_path, "00", "Ice cream_") == tmp_path / "00" / "Ice cream_.png"
    for prompt in ("", " ", "..", "a/b", "a\\b"):
        with pytest.raises(ContestError, match="prompt"):
            result_path(tmp_path, "00", prompt)


def test_a_complete_result_has_no_problems(root, result):
    assert check_result(result, read_contest(root)) == []
    contest = read_contest(root, ["00"])  # the other style's pictures may be there, or not
    assert check_result(result, contest) == []


def test_every_problem_of_a_result_is_named_with_its_path(root, result):
    (result / "00" / "Ice cream.png").rename(result / "00" / "ice cream.png")
    (result / "00" / "wallet_.png").write_bytes(b"not a picture")
    Image.new("RGBA", (SIZE, SIZE)).save(result / "01" / "Cat.png")
    save(result / "01" / "Tree house.png", 1, 2 * SIZE)
    data = (result / "01" / "Dog.png").read_bytes()
    (result / "01" / "Dog.png").write_bytes(data[: len(data) // 2])
    (result / "01" / "notes.txt").write_text("")
    (result / "02").mkdir()
    (result / ".DS_Store").write_text("")
    problems = dict(line.split(": ", 1) for line in check_result(result, read_contest(root)))
    assert problems.pop(str(result / "01" / "Dog.png")).startswith("cannot be read (")
    assert problems == {
        str(result / ".DS_Store"): "not part of the contest",
        str(result / "02"): "not part of the contest",
        str(result / "00" / "Ice cream.png"): (
            "missing; ice cream.png differs in upper and lower case"
        ),
        str(result / "00" / "ice cream.png"): "not a prompt of style 00",
        str(result / "00" / "wallet_.png"): "is not an image",
        str(result / "01" / "Cat.png"): "must be RGB, is RGBA",
        str(result / "01" / "Tree house.png"): "is 96 x 96, most others are 48 x 48",
        str(result / "01" / "notes.txt"): "not a prompt of style 01",
    }


def test_a_picture_that_only_claims_to_be_png_and_missing_folders(root, result):
    contest = read_contest(root)
    Image.new("RGB", (SIZE, SIZE)).save(result / "01" / "Cat.png", format="JPEG")
    assert check_result(result, contest) == [
        f"{result / '01' / 'Cat.png'}: must be PNG, is JPEG",
    ]
    for path in (result / "00").iterdir():
        path.unlink()
    (result / "00").rmdir()
    assert check_result(result, contest)[0] == f"{result / '00'}: no such folder"
    assert check_result(root.parent / "x", contest) == [f"{root.parent / 'x'}: no such folder"]
