from __future__ import annotations

import json
import os

import pytest

from jdreambooth.identifiers import rare_identifiers
from jdreambooth.names import LONGEST, PromptError, read_prompts, safe_name, safe_names
from jstyle.sd.tokenizer import Tokenizer
from tests.tiny import TOKENIZER


@pytest.mark.parametrize("prompt", ["Dolphin", "Ice cream", "a cup, 50% off", "猫", "naïve"])
def test_a_harmless_prompt_is_its_own_name(prompt):
    assert safe_name(prompt) == prompt


@pytest.mark.parametrize(
    "prompt",
    [
        *("../../etc/passwd", "..", ".", "/", "a/b", "a\\b", "C:\\x", "a\0b", "", "   ", ".hidden"),
        *("line\nbreak", "tab\there", "a\u202eb", "nul", "CON.txt", "ends.", "\ud800", "x" * 999),
        *("猫" * 200, '"quotes"', "a*b?"),
    ],
)
def test_no_prompt_leaves_the_folder(prompt, tmp_path):
    name = safe_name(prompt)
    path = tmp_path / f"{name}.png"
    path.write_bytes(b"1")
    assert os.listdir(tmp_path) == [f"{name}.png"]
    assert path.resolve().parent == tmp_path.resolve()
    assert not name.startswith((".", " ")) and len(name.encode()) <= LONGEST


def test_different_prompts_have_different_names():
    assert safe_names(["a/b", "a:b", "A_b"]) == ["a_b", "a_b (2)", "A_b (3)"]
    long = ["x" * 300 + end for end in "ab"]
    assert len(set(safe_names(long))) == 2
    assert len(safe_names(["same"] * 5)) == len(set(safe_names(["same"] * 5))) == 5


def test_prompts_come_from_texts_and_files(tmp_path):
    contest = tmp_path / "prompt.json"
    contest.write_text(json.dumps({"0": "Dolphin", "1": "Ice cream", "10": "Lion"}))
    lines = tmp_path / "more.txt"
    lines.write_text("a cup\n\n  a star \n")
    given = [str(contest), "a tree", str(lines)]
    assert read_prompts(given) == ["Dolphin", "Ice cream", "Lion", "a tree", "a cup", "a star"]


def test_prompts_that_cannot_be_read_are_named(tmp_path):
    path = tmp_path / "p.json"
    with pytest.raises(PromptError, match="p.json: no such file"):
        read_prompts([str(path)])
    for text, told in (("{", "not JSON"), ('{"0": 3}', "list of texts"), ("3", "list of")):
        path.write_text(text)
        with pytest.raises(PromptError, match=f"p.json: .*{told}"):
            read_prompts([str(path)])
    path.write_text("[]")
    with pytest.raises(PromptError, match="no prompts"):
        read_prompts([str(path)])


def test_identifiers_are_single_short_tokens_rarest_first():
    tokenizer = Tokenizer.from_folder(TOKENIZER)
    found = rare_identifiers(tokenizer, 20)
    assert len(found) == 20 and "sks" in [word for word, _ in rare_identifiers(tokenizer, 50)]
    assert [token for _, token in found] == sorted((token for _, token in found), reverse=True)
    for word, token in found:
        assert 3 <= len(word) <= 4
        ids = tokenizer([word])[0]
        assert ids[1] == token and ids[2] == tokenizer.end_id
    with pytest.raises(ValueError, match="count must be an integer from 1"):
        rare_identifiers(tokenizer, 0)
