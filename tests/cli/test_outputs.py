"""Every command that writes: targets checked before the work, nobody's files replaced, nothing left
by what is refused. Refusals need no model; only what is allowed is run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jdreambooth.cli import main as jdreambooth
from jdreambooth.config import TrainConfig
from jdreambooth.contest.folders import Out, OutError, require_ours
from jdreambooth.runs import CAPTIONS, CONFIG
from jstyle.cli import main as jstyle
from jstyle.sd.weights import write_safetensors
from tests.contests import make_contest
from tests.mounts import small_disk

from .conftest import make_pictures, names_in

PIXELS = np.zeros((16, 16, 3), np.uint8)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to stand in with pictures, a contest and its results, and a run."""
    monkeypatch.chdir(tmp_path)
    make_pictures(tmp_path / "photos", ("hill", "lake"))
    make_contest(tmp_path)
    step = tmp_path / "run" / "step-000002"
    step.mkdir(parents=True)
    words = {"instance_dir": "photos", "instance_prompt": "a", "out": "run", "steps": 2}
    cfg = TrainConfig(**words, model="./nowhere")
    (tmp_path / "run" / CONFIG).write_text(json.dumps(cfg.of_run()))
    (tmp_path / "run" / CAPTIONS).write_text('{"hill.png": "a"}')
    write_safetensors(step / "pytorch_lora_weights.safetensors", {}, {})
    return tmp_path


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(p): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


HILL, LAKE = "photos/hill.png", "photos/lake.png"
STYLIZE = ("stylize", "--content", HILL, "--style", LAKE, "--out")
SCORE = ("score", "result", "root", "--hist-only", "--json")
GENERATE = ("generate", "--run", "run", "--prompts", "a cup", "--out")
MINE = {  # the file that somebody has there -> the command that would replace it
    "a.png": (jstyle, (*STYLIZE, "a.png")),
    "b.json": (jstyle, (*STYLIZE, "b.png")),
    "out/hill_stylized_lake.png": (jstyle, (*STYLIZE, "out")),
    "c.png": (jstyle, ("reconstruct", "--image", HILL, "--out", "c.png")),
    "out/000_a.png": (jstyle, ("generate", "--prompt", "a", "--out", "out")),
    "demo/grid.png": (jstyle, ("demo", "--out", "demo")),
    "out/parity.json": (jstyle, ("parity", "--out", "out")),
    "out/parity.html": (jstyle, ("parity", "--out", "out")),
    "out/task.json": (jstyle, ("parity", "--record", "out")),
    "d.json": (jstyle, (*SCORE, "d.json")),
    "pictures/a cup.png": (jdreambooth, (*GENERATE, "pictures")),
    "pictures/manifest.json": (jdreambooth, (*GENERATE, "pictures")),
    "e.safetensors": (jdreambooth, ("export", "--run", "run", "--out", "e.safetensors")),
    "model/unet/config.json": (jdreambooth, ("merge", "--run", "run", "--out", "model")),
    "stars/star_0000.png": (jdreambooth, ("draw", "--object", "star", "--out", "stars")),
    "stars/captions.jsonl": (jdreambooth, ("draw", "--object", "star", "--out", "stars")),
    "f.zip": (
        jdreambooth,
        ("contest", "pack", "result", "--root", "root", "--out", "f.zip"),
    ),
    "train/config.json": (
        jdreambooth,
        ("train", "--instance-dir", "photos", "--instance-prompt", "a", "--out", "train"),
    ),
    "train/captions.json": (
        jdreambooth,
        ("train", "--instance-dir", "photos", "--instance-prompt", "a", "--out", "train"),
    ),
}


@pytest.mark.parametrize("name", MINE)
def test_somebodys_file_is_refused_in_one_line_and_stays(place, capsys, name):
    main, words = MINE[name]
    path = place / name
    path.parent.mkdir(exist_ok=True, parents=True)
    if path.suffix == ".png":
        Image.fromarray(PIXELS).save(path)
    else:
        path.write_text('{"mine": true}')
    before = snapshot(place)
    assert main(list(words)) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and name.split("/")[0] in told[0], told
    assert snapshot(place) == before


NOWHERE = ("--model", "./nowhere")
LATER = {  # commands that find out later what is wrong with these words -> what they say then
    "a.png": (NOWHERE, "nowhere"),
    "c.png": (NOWHERE, "nowhere"),
    "out/000_a.png": (NOWHERE, "nowhere"),
    "demo/grid.png": (("--size-px", "24"), "24"),
    "out/parity.json": (NOWHERE, "nowhere"),
    "pictures/manifest.json": ((), "nowhere"),
    "e.safetensors": ((), "nowhere"),
    "model/unet/config.json": ((), "nowhere"),
}


@pytest.mark.parametrize("name", LATER)
def test_overwrite_allows_it(place, capsys, name):
    main, words = MINE[name]
    (place / name).parent.mkdir(exist_ok=True, parents=True)
    (place / name).write_text('{"mine": true}')
    before = snapshot(place)
    more, told = LATER[name]
    assert main([*words, *more]) == 2 and "--overwrite" in capsys.readouterr().err
    assert main([*words, *more, "--overwrite"]) == 2
    found = capsys.readouterr().err
    assert told in found and "--overwrite" not in found
    assert snapshot(place) == before


SHUT = {
    "a file": "photos/hill.png/deeper",
    "too long": "n" * 256,
    "no folder": "result/00/wallet_.png/x/y",
}
INTO_FOLDERS = [
    (jstyle, STYLIZE),
    (jstyle, ("generate", "--prompt", "a", "--out")),
    (jstyle, ("demo", "--out")),
    (jstyle, ("parity", "--record")),
    (jdreambooth, GENERATE),
    (jdreambooth, ("merge", "--run", "run", "--out")),
    (jdreambooth, ("draw", "--object", "star", "--out")),
    (jdreambooth, ("contest", "mini", "--out")),
    (jdreambooth, ("train", "--instance-dir", "photos", "--instance-prompt", "a", "--out")),
]


@pytest.mark.parametrize("kind", SHUT)
@pytest.mark.parametrize(
    "main, words", INTO_FOLDERS, ids=lambda x: x[0] if isinstance(x, tuple) else ""
)
def test_a_place_for_no_folder_is_bad_input_everywhere(place, capsys, main, words, kind):
    before = snapshot(place)
    assert main([*words, SHUT[kind]]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and SHUT[kind][:100] in told[0], told  # long names are cut in the middle
    assert snapshot(place) == before


def test_a_report_goes_to_a_file_a_link_and_again_but_not_into_a_pipe_or_a_folder(place, capsys):
    os.mkfifo("pipe.json")
    os.mkdir("folder")
    for name, kind in (("pipe.json", "a pipe"), ("folder", "a folder")):
        assert jstyle([*SCORE, name]) == 2  # before the work: nothing is printed
        done = capsys.readouterr()
        assert done.out == "" and f"{name}: is {kind}, not a file" in done.err
    for _ in range(2):
        assert jstyle([*SCORE, "new/report.json"]) == 0
    assert set(json.loads(Path("new/report.json").read_text())) > {"hist", "styles"}
    Path("mine.json").write_text('{"mine": 1}')
    assert jstyle([*SCORE, "mine.json", "--overwrite"]) == 0
    assert "hist" in json.loads(Path("mine.json").read_text())


def test_a_refused_score_leaves_no_folder(place, capsys):
    assert jstyle(["score", "photos", "root", "--hist-only", "--json", "new/a.json"]) == 2
    assert not Path("new").exists()


def test_what_draw_has_drawn_it_may_draw_again(place, capsys):
    words = ["draw", "--object", "star", "--count", "1", "--out", "stars", "--size-px"]
    assert jdreambooth([*words, "16"]) == jdreambooth([*words, "32"]) == 0
    assert Image.open("stars/star_0000.png").size == (32, 32)
    Path("stars/captions.jsonl").unlink()
    assert jdreambooth([*words, "16"]) == 2
    assert jdreambooth([*words, "16", "--overwrite"]) == 0
    assert Image.open("stars/star_0000.png").size == (16, 16)


def test_a_submission_is_packed_again_but_over_nothing_else(place, capsys):
    words = ["contest", "pack", "result", "--root", "root", "--out", "a.zip"]
    assert jdreambooth(words) == jdreambooth(words) == 0
    packed = Path("a.zip").read_bytes()
    Path("a.zip").write_bytes(b"mine")
    assert jdreambooth(words) == 2 and Path("a.zip").read_bytes() == b"mine"
    assert jdreambooth([*words, "--overwrite"]) == 0 and Path("a.zip").read_bytes() == packed


@pytest.mark.parametrize("words", [("--instance-prompt", "a", "--size-px", "40"), ("--captions",)])
def test_a_refused_training_leaves_nothing(place, capsys, words):
    before = snapshot(place)
    given = [*words, "none.txt"] if words == ("--captions",) else [*words]
    code = jdreambooth(["train", "--instance-dir", "photos", "--out", "deep/new", *given])
    assert code == 2 and snapshot(place) == before


def test_a_contest_refuses_a_folder_with_somebodys_results(tmp_path):
    require_ours(Out(tmp_path / "new"))
    (tmp_path / "result").mkdir()
    require_ours(Out(tmp_path))  # empty
    (tmp_path / "result" / "thesis.txt").touch()
    with pytest.raises(OutError, match="result: is there already and not of a contest run"):
        require_ours(Out(tmp_path))
    assert names_in(tmp_path) == ["thesis.txt"]


def test_a_full_disk_is_one_line_that_names_the_file(place, capsys):
    with small_disk(place / "disk", "12k"):
        for main, words, name in (
            (
                jdreambooth,
                ("contest", "pack", "result", "--root", "root", "--out", "disk/new/a.zip"),
                "disk/new/a.zip",
            ),
            (jdreambooth, ("draw", "--object", "star", "--out", "disk/new"), "disk/new/"),
            (jdreambooth, ("contest", "mini", "--out", "disk/new"), "disk/new/"),
        ):
            assert main(list(words)) == 1
            told = capsys.readouterr().err.splitlines()
            assert len(told) == 1 and name in told[0] and "disk full" in told[0], told
            assert os.listdir("disk") == []
