"""`jstyle grid`: a sheet, its page and its cells, also after an interruption."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from jstyle.cli import main
from jstyle.sd import lora
from jstyle.sd.startup import jt
from tests import tiny

from .conftest import environment, names_in

SMALL = ("--height", "32", "--width", "64", "--device", "cpu")
AXES = ("--x", "sampler=ddim,heun", "--y", "steps=1,2", "--z", "guidance=1,4")


def pixels_of(path):
    return np.asarray(Image.open(path))


@pytest.fixture
def grid(model, tmp_path, monkeypatch, capsys):
    """grid("a.png", "--x", ...) -> (what it said, its record); run in tmp_path."""
    monkeypatch.chdir(tmp_path)

    def make(out, *words, code=0, base=("--model", model)):
        found = main(["grid", "--out", out, *map(str, (*base, *SMALL, *words))])
        said = capsys.readouterr()
        assert found == code, said.err
        if code:
            lines = said.err.strip().splitlines()
            assert len(lines) == 1 and lines[0].startswith("jstyle grid: error: "), said.err
            return lines[0], None
        return said.out, json.loads((tmp_path / out).with_suffix(".json").read_text())

    return make


@pytest.fixture(scope="module")
def loras(tmp_path_factory):
    """A LoRA for the model, and one for another."""
    folder = tmp_path_factory.mktemp("loras")
    for kind in tiny.KINDS:
        sd = tiny.make_ours(kind)
        added = {part: lora.add_lora(getattr(sd, part), 2, 3) for part in lora.PARTS}
        for one in added.values():
            for name, var in one.parameters().items():
                var.assign(jt.array(tiny.values_of(name, var.shape)))
        lora.save_lora(folder / f"{kind}.safetensors", sd, added)
    return folder


def test_three_axes_give_a_sheet_whose_cells_are_what_generate_paints(grid, model, tmp_path):
    words = ("--prompt", "a star, red", "--seed", "3")
    said, record = grid("one/g.png", *words, *AXES)
    assert "8 cells: 8 painted\nwrote one/g.png and one/g.html" in said
    assert [cell["values"] for cell in record["cells"][:3]] == [
        {"sampler": "ddim", "steps": 1, "guidance": 1.0},
        {"sampler": "heun", "steps": 1, "guidance": 1.0},
        {"sampler": "ddim", "steps": 2, "guidance": 1.0},
    ]
    inside = json.loads(Image.open("one/g.png").text["jstyle"])
    assert inside["axes"]["z"] == {
        "axis": "guidance",
        "labels": ["guidance 1", "guidance 4"],
        "values": [1.0, 4.0],
    }
    assert inside["config"]["prompt"] == "a star, red" and "steps" not in inside["config"]
    assert "seconds" not in json.dumps(inside) and record["cells"][0]["seconds"] > 0
    assert len({cell["file"] for cell in record["cells"]}) == 8
    assert len(names_in(tmp_path / "one")) == 3 + 2 * 8

    cell = next(c for c in record["cells"] if [*c["values"].values()] == ["heun", 2, 4.0])
    how = ("--sampler", "heun", "--steps", "2", "--guidance", "4", "--model", str(model))
    assert main(["generate", "--out", "same.png", *words, *how, *SMALL]) == 0
    np.testing.assert_array_equal(pixels_of(f"one/{cell['file']}"), pixels_of("same.png"))
    sheet = pixels_of("one/g.png")
    windows = np.lib.stride_tricks.sliding_window_view(sheet, (32, 64, 3))[:, :, 0]
    corner = (windows[:, :, 0, 0] == pixels_of("same.png")[0, 0]).all(-1)
    assert any(
        (windows[y, x] == pixels_of("same.png")).all()
        for y, x in zip(*np.nonzero(corner), strict=True)
    )


def test_an_interrupted_grid_goes_on_to_the_same_bytes_and_a_changed_axis_paints_what_is_new(
    grid, model, tmp_path
):
    words = ("--prompt", "a star", "--guidance", "1", "--y", "seed=0,1")
    long = (*words, "--x", "steps=1,40")
    command = [sys.executable, "-m", "jstyle", "grid", "--out", "cut/g.png", "--model", model]
    process = subprocess.Popen(
        [*map(str, (*command, *SMALL, *long))],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    cells, deadline = tmp_path / "cut" / "g.cells", time.monotonic() + 300
    while not [*cells.glob("[!.]*.json")] and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130 and "Traceback" not in errors, errors
    left = [name for name in names_in(tmp_path / "cut")]
    assert 2 <= len(left) < 8 and not [name for name in left if name.startswith(("g.", "."))]

    said, _ = grid("cut/g.png", *long)
    assert f"{4 - len(left) // 2} painted, {len(left) // 2} taken from what was there" in said
    grid("whole/g.png", *long)
    for name in ("g.png", "g.html"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()

    before = {path: path.stat().st_mtime_ns for path in cells.iterdir()}
    said, record = grid("cut/g.png", *words, "--x", "steps=2,1")
    assert "4 cells: 2 painted, 2 taken from what was there" in said
    assert {path: path.stat().st_mtime_ns for path in before} == before
    (cells.parent / record["cells"][1]["file"]).unlink()
    said, _ = grid("cut/g.png", *words, "--x", "steps=2,1")
    assert "4 cells: 1 painted, 3 taken" in said
    said, _ = grid("cut/g.png", *words, "--x", "steps=2,1", "--cell-px", "128")
    assert "4 cells: 0 painted, 4 taken" in said
    assert pixels_of("cut/g.png").shape[1] > 2 * 128


def test_loras_are_put_on_and_taken_off_one_model_as_generate_has_them(
    grid, model, loras, tmp_path
):
    file = loras / "sd2.safetensors"
    axes = ("--x", f"lora={file}|none", "--y", "weight=0.5,1", "--steps", "1")
    said, record = grid("g.png", "--prompt", "a star", *axes)
    assert "280 of 280 keys applied" in said and "4 cells: 3 painted" in said
    half, plain, full, plain_too = (pixels_of(cell["file"]) for cell in record["cells"])
    assert record["cells"][1]["file"] == record["cells"][3]["file"]
    assert [one["weight"] for one in record["model"]["loras"]] == [0.5, 1.0]
    for name, pixels, more in (("h", half, ("--lora", f"{file}:0.5")), ("p", plain, ())):
        words = ["--prompt", "a star", "--steps", "1", "--model", str(model), *SMALL]
        assert main(["generate", "--out", f"{name}.png", *words, *more]) == 0
        np.testing.assert_array_equal(pixels, pixels_of(f"{name}.png"))
    assert not np.array_equal(half, full)

    line, _ = grid(
        "other.png", "--prompt", "a", "--x", f"lora=none|{loras / 'sd1.safetensors'}", code=2
    )
    assert "made for another model" in line and names_in(tmp_path) == sorted(
        [p.name for p in tmp_path.rglob("*") if p.is_file()]
    )
    assert not (tmp_path / "other.cells").exists() and not (tmp_path / "other.png").exists()
    line, _ = grid("o.png", "--prompt", "a", "--x", f"lora={file}:0.3", "--y", "weight=1", code=2)
    assert "has a weight, and the axis weight gives another" in line


def test_saved_counts_of_a_run_are_loras_on_its_own_model(grid, model, loras, tmp_path):
    run = tmp_path / "run"
    for step, kind in ((2, "sd2"), (4, "sd2")):
        (run / f"step-{step:06d}").mkdir(parents=True)
        weights = (loras / f"{kind}.safetensors").read_bytes()
        (run / f"step-{step:06d}" / "pytorch_lora_weights.safetensors").write_bytes(weights)
    config = {"model": str(model), "variant": None, "size_px": 64, "train": "lora"}
    (run / "config.json").write_text(json.dumps(config))
    words = ("--prompt", "a star", "--run", run, "--steps", "1")
    _, record = grid("at.png", *words, "--x", "at=0,4,2", base=())
    assert record["axes"]["x"]["labels"] == ["at untrained", "at 4", "at 2"]
    untrained, last, first = (cell["file"] for cell in record["cells"])
    assert last == first != untrained  # the same weights are saved twice
    _, again = grid("at.png", *words, "--x", "weight=0.5,1", base=())
    assert again["cells"][1]["file"] == last != again["cells"][0]["file"]
    line, _ = grid("bad.png", *words, "--x", "at=3", base=(), code=2)
    assert "nothing is saved at step 3; saved: 2, 4" in line


def test_cells_without_a_picture_are_told_and_what_cannot_be_is_refused_before_the_start(
    grid, tmp_path, model, capsys
):
    words = ("--prompt", "a", "--steps", "1")
    said, record = grid("g.png", *words, "--x", "sampler=ddim,euler", "--y", "eta=0,0.5")
    assert "1 of 4 cells are empty: sampler euler has no eta, got 0.5; ddim has" in said
    assert [cell["file"] is None for cell in record["cells"]] == [False, False, False, True]
    assert record["cells"][3]["why"].startswith("sampler euler has no eta")
    said, record = grid("g.png", *words, "--x", "guidance=1,1e300", "--sampler", "ddim")
    assert "1 of 2 cells are empty: the latents hold values that are not finite" in said
    line, _ = grid("n.png", *words, "--x", "guidance=1e300", "--sampler", "ddim", code=2)
    assert "no cell has a picture" in line and not (tmp_path / "n.cells").exists()
    how = ["--guidance", "1e300", "--sampler", "ddim", "--model", str(model), "--out", "n.png"]
    assert main(["generate", *words, *how, *SMALL]) == 2 and not (tmp_path / "n.png").exists()
    assert "the latents hold values that are not finite" in capsys.readouterr().err
    for more, told in (
        (("--x", "stepz=1"), "must be NAME=VALUES"),
        (("--x", "seed=1"), "is there already and no result of this program"),
        (("--x", "seed=1", "--y", "sampler=ddim", "--sigmas", "karras"), "admits no sigmas karras"),
        (("--x", "lora=none|absent.safetensors"), "absent.safetensors: no such file"),
    ):
        (tmp_path / "n.html").write_text("somebody's own")
        line, _ = grid("n.png" if "already" in told else "m.png", *words, *more, code=2)
        assert told in line
    assert sorted(p.name for p in tmp_path.iterdir() if p.stem in "mn") == ["n.html"]
