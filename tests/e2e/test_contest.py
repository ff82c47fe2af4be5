"""A whole contest on the shipped model: drawn, trained, painted, refined, packed, scored."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import environment, names_in

CONFIG = """\
size_px: 64
defaults:
  train:
    steps: 3
    save_at: [1]
    rank: 2
    learning_rate: 1e-3
    prior_weight: 1
    class_prompt: a thing
    num_class_images: 1
    class_steps: 1
    class_guidance: 1
    rng: torch-cpu
    checkpoint_every: 1
  pick: {prompts: 2, steps: 1, guidance: 1, draws: 1}
  generate: {steps: 2, guidance: 1, init: average}
styles:
  00: {pick: none, refine: {steps: 1, style_seed: 1}}
"""


def call(program, *words, cwd, **options):
    command = [sys.executable, "-m", program, *map(str, words)]
    options = {"capture_output": True, "text": True, "timeout": 900, **options}
    return subprocess.run(command, cwd=cwd, env=environment(), **options)


def contest(*words, cwd, **options):
    return call("jdreambooth", "contest", *words, cwd=cwd, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a contest "small" of two styles, contest.yaml, and a finished run "out"."""
    folder = tmp_path_factory.mktemp("contest")
    sizes = ("--styles", 2, "--references", 2, "--prompts", 2, "--size-px", 64)
    done = contest("mini", "--out", "small", *sizes, cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "contest.yaml").write_text(CONFIG)
    done = contest("run", "small", "--out", "out", "--config", "contest.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "7 stages of 2 styles done" in done.stdout
    assert "01 prior" not in done.stdout  # the class picture of style 00 is the same
    return folder


def bytes_in(folder):
    return {name: (folder / name).read_bytes() for name in files_of(folder)}


def files_of(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def prompts_of(folder, style):
    return list(json.loads((folder / "small" / style / "prompt.json").read_text()).values())


def test_the_submission_is_complete_and_packs_to_the_same_bytes(folder):
    done = contest("check", "out/result", "--root", "small", cwd=folder)
    assert done.returncode == 0 and "4 pictures of 2 styles" in done.stdout
    for name in ("a.zip", "b.zip"):
        assert contest("pack", "out/result", "--root", "small", "--out", name, cwd=folder)
    assert (folder / "a.zip").read_bytes() == (folder / "b.zip").read_bytes()
    wanted = {f"{style}/{p}.png" for style in ("00", "01") for p in prompts_of(folder, style)}
    with zipfile.ZipFile(folder / "a.zip") as archive:
        assert set(archive.namelist()) == wanted == set(files_of(folder / "out" / "result"))
        for name in wanted:
            assert archive.read(name) == (folder / "out" / "result" / name).read_bytes()


def test_every_picture_tells_how_it_was_made(folder):
    seeds = {}
    for i, prompt in enumerate(prompts_of(folder, "01")):
        with Image.open(folder / "out" / "result" / "01" / f"{prompt}.png") as picture:
            assert picture.size == (64, 64) and picture.mode == "RGB"
            about = json.loads(picture.text["jstyle"])
        assert about["text"] == f"{prompt} in style_01" and about["init"] == "average"
        seeds[i] = about["seed"]
        picked = json.loads((folder / "out/styles/01/pick/stage.json").read_text())["facts"]
        assert about["step"] == picked["step"]
    assert seeds == {0: 0, 1: 1}
    (path,) = (folder / "out/prior").glob("*/class-00000.png")
    with Image.open(path) as picture:
        assert json.loads(picture.text["jstyle"])["rng"] == "torch-cpu"
    prompt = prompts_of(folder, "00")[0]
    stages = [folder / "out/styles/00" / name / f"{prompt}.png" for name in ("generate", "refine")]
    before, after = (np.asarray(Image.open(path), float) for path in stages)
    assert np.abs(before - after).mean() > 1
    assert stages[1].read_bytes() == (folder / "out/result/00" / f"{prompt}.png").read_bytes()


def test_the_submission_can_be_scored(folder):
    words = ("score", "out/result", "small", "--hist-only", "--json", "score.json")
    done = call("jstyle", *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "score.json").read_text())
    assert found["total"] is None and set(found["styles"]) == {"00", "01"}
    each = [style["hist"] for style in found["styles"].values()]
    assert found["hist"] == pytest.approx(np.mean(each)) and -1 <= min(each) <= max(each) <= 1


def test_a_run_killed_at_random_ends_with_the_same_submission(folder):
    """Killed three times after a random number of files was there, finished by two processes."""
    words = ["run", "small", "--out", "killed", "--config", "contest.yaml"]
    command = [sys.executable, "-m", "jdreambooth", "contest", *words]
    total = len(names_in(folder / "out"))
    counts = sorted(map(int, np.random.default_rng().integers(1, total, 3)))
    for count in counts:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        while process.poll() is None and len(names_in(folder / "killed")) < count:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    done = contest(*words, "--jobs", 2, cwd=folder)
    assert done.returncode == 0, f"killed at {counts}: {done.stderr}"
    assert bytes_in(folder / "killed/result") == bytes_in(folder / "out/result"), counts
    names = {name for name in files_of(folder / "killed") if "tensorboard" not in name}
    assert names == {name for name in files_of(folder / "out") if "tensorboard" not in name}
    again = contest(*words, cwd=folder)
    assert "0 stages of 2 styles done" in again.stdout and again.returncode == 0
