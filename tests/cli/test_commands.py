"""What the commands do when all is well, and when they are interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from jstyle import StyleConfig
from jstyle.commands.demo import PICTURES
from jstyle.sd import image

from .conftest import environment, names_in

FAST = ("--steps", "2", "--size-px", "64")


def pixels_of(path):
    return np.asarray(Image.open(path))


def test_a_folder_run_makes_every_pair_and_skips_what_is_finished(
    jstyle, photos, paintings, model, tmp_path
):
    words = ("stylize", "--content", photos, "--style", paintings, "--out", "out")
    words += ("--model", model, *FAST)
    done = jstyle(*words)
    assert done.returncode == 0, done.stderr
    assert "wrote 6 pictures" in done.stdout and "22/22" in done.stderr
    out = tmp_path / "out"
    stems = [f"{c}_stylized_{s}" for c in ("hill", "lake", "tree") for s in ("ink", "oil")]
    assert names_in(out) == sorted(f"{s}.{kind}" for s in stems for kind in ("json", "png"))

    record = json.loads((out / "lake_stylized_oil.json").read_text())
    assert record["config"]["steps"] == 2 and record["config"]["gamma"] == 0.75
    assert record["content"]["file"].endswith("lake.png") and len(record["style"]["sha256"]) == 64
    assert {"start", "load", "inversion", "sampling"} == set(record["seconds"])
    assert record["versions"]["jittor"] and record["device"] in ("cpu", "cuda")
    inside = json.loads(Image.open(out / "lake_stylized_oil.png").text["jstyle"])
    assert inside == {k: v for k, v in record.items() if k not in ("seconds", "features")}
    assert record["features"] == "memory"

    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    (out / "tree_stylized_ink.json").unlink()  # as if interrupted before the record
    done = jstyle(*words)
    assert "skipped 5 finished results" in done.stdout and "wrote 1 picture" in done.stdout
    changed = {p.stem for p, at in before.items() if p.stat().st_mtime_ns != at}
    assert changed == {"tree_stylized_ink"}
    done = jstyle(*words, "--gamma", "0.2")
    assert "skipped" not in done.stdout and "wrote 6 pictures" in done.stdout


def test_one_pair_is_what_the_library_computes(jstyle, photos, paintings, model, tmp_path):
    (tmp_path / "run.yaml").write_text(
        f"content: {photos / 'hill.png'}\nstyle: {paintings / 'ink.png'}\n"
        "steps: 3\nsize_px: 64\nwindow: [100, 999]\ngamma: cosine:0.75:0.25\n"
    )
    words = ("--config", "run.yaml", "--out", "deep/er/one.png", "--model", model)
    done = jstyle("stylize", *words, "--steps", "2", "--preset", "report")
    assert done.returncode == 0, done.stderr
    assert names_in(tmp_path / "deep") == ["one.json", "one.png"]

    from jstyle import JStyleID, StableDiffusion

    cfg = StyleConfig(steps=2, size_px=64, window=(100, 999), gamma="cosine:0.75:0.25", tau=1.8)
    record = json.loads((tmp_path / "deep/er/one.json").read_text())
    assert StyleConfig(**record["config"]) == cfg
    styler = JStyleID(StableDiffusion.from_pretrained(model))
    pictures = [styler.load(photos / "hill.png", cfg), styler.load(paintings / "ink.png", cfg)]
    expected = image.to_uint8(styler.stylize(*pictures, cfg))[0]
    np.testing.assert_array_equal(pixels_of(tmp_path / "deep/er/one.png"), expected)


def test_reconstruct_prints_its_figures_as_json(jstyle, photos, model, tmp_path):
    words = ("reconstruct", "--image", photos / "hill.png", "--out", "back.png", "--model", model)
    done = jstyle(*words, *FAST, "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["out"] == "back.png" and pixels_of(tmp_path / "back.png").shape == (64, 64, 3)
    record = json.loads((tmp_path / "back.json").read_text())
    for name in ("psnr_to_round_trip_db", "psnr_to_input_db", "psnr_round_trip_db"):
        assert figures[name] == record[name] and -20 < figures[name] < 99
    assert len({v for k, v in figures.items() if k.startswith("psnr")}) == 3


def test_generate_depends_on_prompt_seed_and_guidance(jstyle, model, tmp_path):
    def pictures(out, *words):
        common = ("--model", model, "--steps", "2", "--height", "64", "--width", "96")
        done = jstyle("generate", "--out", out, *common, *words)
        assert done.returncode == 0, done.stderr
        return [pixels_of(path) for path in sorted((tmp_path / out).glob("*.png"))]

    star, tree = pictures("a", "--prompt", "a star", "--prompt", "a tree!", "--seed", "5")
    assert names_in(tmp_path / "a")[1::2] == ["000_a_star.png", "001_a_tree.png"]
    assert star.shape == (64, 96, 3) and not np.array_equal(star, tree)
    (again,) = pictures("b", "--prompt", "a tree!", "--seed", "6")
    np.testing.assert_array_equal(again, tree)
    (free,) = pictures("c", "--prompt", "a tree!", "--seed", "6", "--guidance", "1")
    assert not np.array_equal(free, tree)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_keeps_finished_pictures_and_nothing_else(
    jstyle, photos, paintings, model, tmp_path, number, code
):
    words = ["stylize", "--content", photos, "--style", paintings, "--out", "out"]
    words += ["--model", model, "--steps", "100", "--size-px", "64"]
    command = [sys.executable, "-m", "jstyle", *map(str, words)]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True
    )
    first = tmp_path / "out" / "hill_stylized_ink.json"
    deadline = time.monotonic() + 600
    while not first.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    left = names_in(tmp_path / "out")
    assert first.name in left and len(left) < 12
    assert len(left) % 2 == 0 and not [name for name in left if name.startswith(".")]
    for path in (tmp_path / "out").glob("*.json"):
        assert json.loads(path.read_text())["key"] and path.with_suffix(".png").is_file()


@pytest.mark.slow
@pytest.mark.skipif(not PICTURES.is_dir(), reason="the demo pictures are not there")
def test_the_demo_ends_with_a_grid_of_all_pairs(jstyle, tmp_path):
    done = jstyle("demo", "--steps", "2")
    assert done.returncode == 0, done.stderr
    contents, styles = (len(list(PICTURES.glob(f"{r}_*.png"))) for r in ("content", "style"))
    out = tmp_path / "jstyle-demo"
    assert len(list(out.glob("*_stylized_*.png"))) == contents * styles
    assert (out / "grid.png").is_file()
    assert "look at jstyle-demo/grid.png" in done.stdout and "compiling" in done.stdout
    assert f"skipped {contents * styles} finished" in jstyle("demo", "--steps", "2").stdout
