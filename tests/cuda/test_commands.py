"""The commands as a user runs them, on the emulated device, against the same on the CPU."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jdreambooth.contest.mini import make_mini
from jstyle.methods import DEFAULT, METHODS, from_noise
from tests.cli.conftest import make_pictures
from tests.cuda import laboratory
from tests.e2e.test_contest import CONFIG

SHORT = ("--steps", "2", "--guidance", "1")
TRAIN = ("--instance-prompt", "{stem} in red", "--size-px", "64", "--rank", "2", "--seed", "3")
TRAIN += ("--prior-weight", "1", "--class-prompt", "a hill", "--num-class-images", "1")
TRAIN += ("--class-steps", "1", "--class-guidance", "1", "--learning-rate", "0.001")


def call(*words, code: int = 0):
    done = laboratory.run("-m", *map(str, words))
    assert done.returncode == code, done.stderr[-3000:]
    return done


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"), np.int16)


def assert_same_pictures(first: Path, second: Path, least: int = 1) -> None:
    """The same names, and no pixel more than one level apart."""
    names = sorted(str(p.relative_to(first)) for p in first.rglob("*.png"))
    assert names == sorted(str(p.relative_to(second)) for p in second.rglob("*.png"))
    assert len(names) >= least
    for name in names:
        assert np.abs(pixels(first / name) - pixels(second / name)).max() <= 1, name


def hashes(folder: Path) -> dict[str, str]:
    files = [p for p in folder.rglob("*") if p.suffix in (".safetensors", ".jsonl", ".png")]
    files = [p for p in files if p.name != "loss.png"]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("commands") / "photos", ("hill", "lake"))


def train(photos, out, device, *words):
    words = (*TRAIN, "--instance-dir", photos, "--out", out, "--device", device, *words)
    return call("jdreambooth", "train", *words)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, photos):
    """Folder with the runs "cuda" and "cpu", of the same training in float32."""
    folder = tmp_path_factory.mktemp("runs")
    for device in ("cuda", "cpu"):
        train(photos, folder / device, device, "--steps", 3, "--save-at", "1,2")
    return folder


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").open()]


OTHERS = [("--method", name) for name in METHODS if name != DEFAULT]


@pytest.mark.parametrize("words", [("--features", "disk"), ("--batch", "2"), *OTHERS])
def test_stylize(tmp_path, photos, words):
    for device in ("cuda", "cpu"):
        common = ("--content", photos, "--style", photos / "hill.png", "--steps", 2)
        place = ("--size-px", 64, "--out", tmp_path / device, "--device", device)
        call("jstyle", "stylize", *common, *place, *words)
    assert_same_pictures(tmp_path / "cuda", tmp_path / "cpu", least=2)


def test_generate_with_guidance(tmp_path):
    for device in ("cuda", "cpu"):
        words = ("--steps", 2, "--out", tmp_path / device, "--device", device)
        call("jstyle", "generate", "--prompt", "a fox", "--height", 64, "--width", 64, *words)
    assert_same_pictures(tmp_path / "cuda", tmp_path / "cpu")


@pytest.mark.parametrize("name", from_noise())
def test_generate_after_a_reference(tmp_path, photos, name):
    for device in ("cuda", "cpu"):
        words = ("--steps", 2, "--out", tmp_path / device, "--device", device, "--prompt", "a fox")
        words += ("--height", 64, "--width", 64, "--method", name)
        call("jstyle", "generate", *words, "--reference", photos / "hill.png")
    assert_same_pictures(tmp_path / "cuda", tmp_path / "cpu")


def test_a_training_its_class_pictures_and_what_it_paints(runs, tmp_path):
    assert losses(runs / "cuda") == pytest.approx(losses(runs / "cpu"), rel=1e-3)
    assert_same_pictures(runs / "cuda" / "class", runs / "cpu" / "class")
    for device in ("cuda", "cpu"):
        words = ("--run", runs / device, "--prompts", "a cup", "--out", tmp_path / device)
        call("jdreambooth", "generate", *words, *SHORT, "--device", device)
    assert_same_pictures(tmp_path / "cuda", tmp_path / "cpu")


def test_pick_measures_the_same(runs):
    measures = []
    for device in ("cuda", "cpu"):
        words = (runs / device, "--prompts", "a cup", "a tree", "--draws", 1, "--device", device)
        call("jdreambooth", "pick", *words, *SHORT)
        measures.append(json.loads((runs / device / "pick" / "pick.json").read_text()))
    numbers = [[v for row in m["measured"] for v in row.values()] for m in measures]
    for ours, theirs in zip(*numbers, strict=True):
        if isinstance(ours, float):
            assert ours == pytest.approx(theirs, rel=2e-2, abs=2e-3)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_resumed_training_has_the_bytes_of_one_in_a_go(tmp_path, photos, precision):
    words = ("--precision", precision)
    train(photos, tmp_path / "go", "cuda", *words, "--steps", 4, "--save-at", "4")
    train(photos, tmp_path / "parts", "cuda", *words, "--steps", 2, "--save-at", "2")
    train(
        photos,
        tmp_path / "parts",
        "cuda",
        *words,
        "--steps",
        4,
        "--save-at",
        "4",
        "--resume",
        "auto",
    )
    straight, parts = hashes(tmp_path / "go"), hashes(tmp_path / "parts")
    parts = {name: value for name, value in parts.items() if "step-000002" not in name}
    assert parts == straight and any("step-000004" in name for name in straight)


def test_half_precision_is_for_cuda_alone(tmp_path, photos):
    words = (*TRAIN, "--instance-dir", photos, "--out", tmp_path / "x", "--device", "cpu")
    done = call("jdreambooth", "train", *words, "--precision", "float16", code=2)
    assert "needs cuda" in done.stderr


def test_a_contest_of_one_style(tmp_path):
    make_mini(tmp_path / "small", styles=1, references=2, prompts=2, size_px=64)
    (tmp_path / "run.yaml").write_text(CONFIG)
    for device in ("cuda", "cpu"):
        words = (tmp_path / "small", "--config", tmp_path / "run.yaml", "--out", tmp_path / device)
        call("jdreambooth", "contest", "run", *words, "--device", device)
    assert_same_pictures(tmp_path / "cuda" / "result", tmp_path / "cpu" / "result", least=2)


def test_doctor_tells_that_cuda_is_used():
    found = json.loads(call("jstyle", "doctor", "--json").stdout)
    checks = {check["name"]: check for check in found["checks"]}
    assert checks["cuda"]["state"] == "ok" and "11.8" in checks["cuda"]["found"]
    assert "computes on the cuda" in checks["jittor"]["found"] and found["can_run"]


def test_the_second_start_is_not_called_the_first(tmp_path):
    done = laboratory.run("-c", "from jstyle.sd.startup import jt; print(jt.has_cuda)")
    assert done.stdout.strip().endswith("1") and "First start" not in done.stderr
