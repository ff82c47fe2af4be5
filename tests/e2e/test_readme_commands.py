"""The commands of the first page and of training, one after the other as a reader would type them,
with fewer steps, the shipped model in place of SD 2.1 and small pictures."""

from __future__ import annotations

import json
import shutil

import pytest

from jdreambooth.cli import main as jdreambooth
from jstyle.cli import main as jstyle
from tests.cli.conftest import make_pictures
from tests.contests import make_contest, save
from tests.unit.test_readmes import ENGLISH, ROOT, commands

MAIN = {"jstyle": jstyle, "jdreambooth": jdreambooth}
ELSEWHERE = {  # what runs them, where it is not here
    "jstyle demo": "tests/cli/test_commands.py",
    "jstyle warmup": "tests/unit/test_warmup.py",
    "jstyle parity": "tests/parity/test_parity_tool.py",
    "jdreambooth contest": "tests/e2e/test_contest.py, tests/cli/test_contest.py",
    "jdreambooth draw": "tests/cli/test_draw.py",
}
LESS = {  # of the work, not of what is shown
    "--steps": {"1000": "2", "800": "3", "20": "1"},
    "--save-at": {"250,500": "1,2", "25,100,300": "1,2"},
    "--sample-every": {"250": "2"},
    "--at": {"500": "2"},
    "--model": {"sd21": "tiny"},
    "--y": {"steps=8,25": "steps=1,2"},
    "--lora": {
        "run/step-000500/pytorch_lora_weights.safetensors": "run/step-000002/"
        "pytorch_lora_weights.safetensors"
    },
}
ONE_STEP = ("stylize", "compare", "reconstruct", "generate", "pick")
READ = [*commands(ENGLISH), *commands(ROOT / "jdreambooth" / "README.md")]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "paintings", "style_05", "foxes"):
        make_pictures(tmp_path / name, ("star", "cat"))
    save(tmp_path / "photo.jpg", 1, 64)
    save(tmp_path / "painting.jpg", 2, 64)
    root, result = make_contest(tmp_path)
    for theirs, names in (
        (root, ("ROOT", "small", "task")),
        (result, ("RESULT", "out/result", "plain/result", "mine/result")),
    ):
        for name in names:
            shutil.copytree(theirs, tmp_path / name)
    (tmp_path / "prompt.json").write_text(json.dumps({"0": "a cup", "1": "a tree"}))
    return tmp_path


def test_the_commands_run_one_after_the_other(place, capsys):
    ran = []
    for words in dict.fromkeys(map(tuple, READ)):
        name = " ".join(words[:2])
        if name in ELSEWHERE:
            continue
        if words[1] == "train":
            shutil.rmtree("run", ignore_errors=True)
        assert MAIN[words[0]](shrunk(list(words))[1:]) == 0, (words, capsys.readouterr().err)
        ran.append(name)
    assert len(ran) >= 12
    made = {"result.png", "back.png", "star.png", "cup.png", "grid.png"}
    assert made <= {path.name for path in place.iterdir()}
    assert len(list((place / "results").glob("*.png"))) == 4
    assert (place / "run" / "pick" / "pick.json").is_file()
    assert {p.name for p in (place / "pictures").glob("*.png")} >= {"a cup.png", "a tree.png"}


def shrunk(words: list[str]) -> list[str]:
    """The command with less work: fewer steps, the shipped model."""
    less = [
        LESS.get(option, {}).get(word, word)
        for option, word in zip(["", *words], words, strict=False)
    ]
    if words[1] in ONE_STEP and "--steps" not in words:
        less += ["--steps", "1"]
    if words[1] == "pick":
        less += ["--draws", "1"]
        less += [] if "--prompts" in words else ["--prompts", "a cup", "a tree"]
    if words[1] == "train" and "--prior-weight" in words:
        less += ["--num-class-images", "2", "--class-steps", "1", "--sample-steps", "1"]
    return [*less, "-q"] if words[1] != "doctor" else less
