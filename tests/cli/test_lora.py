"""--lora of the commands that make pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from jstyle.sd import lora
from jstyle.sd.startup import jt
from tests import tiny

from .conftest import names_in
from .test_bad_input import assert_refused

FAST = ("--steps", "2")


@pytest.fixture(scope="module")
def loras(tmp_path_factory):
    """A folder with the same LoRA in both formats, and one for another base."""
    folder = tmp_path_factory.mktemp("loras")
    for kind in tiny.KINDS:
        sd = tiny.make_ours(kind)
        added = {part: lora.add_lora(getattr(sd, part), 2, 3) for part in lora.PARTS}
        for one in added.values():
            for name, var in one.parameters().items():
                var.assign(jt.array(tiny.values_of(name, var.shape)))
        for format in ("diffusers", "kohya"):
            lora.save_lora(folder / f"{kind}_{format}.safetensors", sd, added, format)
    return folder


@pytest.fixture
def picture(jstyle, model, tmp_path):
    """picture("name.png", "--lora", file, ...) -> its pixels, and what the command said."""

    def make(name, *more):
        words = ("--prompt", "a tree", "--out", name, "--model", model, *FAST, *more)
        done = jstyle("generate", *words)
        assert done.returncode == 0, done.stderr
        return np.asarray(Image.open(tmp_path / name)).astype(int), done.stdout

    return make


def test_generate_applies_a_lora_in_either_format_with_its_weight(picture, loras, tmp_path):
    diffusers, kohya = (loras / f"sd2_{name}.safetensors" for name in ("diffusers", "kohya"))
    plain, _ = picture("plain.png")
    full, said = picture("full.png", "--lora", diffusers)
    assert np.abs(full - plain).mean() > 1
    assert f"lora {diffusers}: 280 of 280 keys applied, weight 1" in said
    record = json.loads((tmp_path / "full.json").read_text())
    assert [one["file"] for one in record["model"]["loras"]] == [str(diffusers)]
    assert len(record["model"]["loras"][0]["sha256"]) == 64

    parts = ("--lora", f"{kohya}:0.25", "--lora", f"{diffusers}:0.75")
    both, said = picture("both.png", *parts)
    assert np.abs(both - full).max() <= 1  # rounding to 8 bits
    assert "420 of 420 keys applied, weight 0.25" in said
    (tmp_path / "run.yaml").write_text(f"lora: ['{kohya}:0.5']\n")
    both, said = picture("yaml.png", "--config", "run.yaml", "--lora", f"{kohya}:0.5")
    assert np.abs(both - full).max() <= 1 and said.count("weight 0.5") == 2
    none, _ = picture("none.png", "--lora", f"{kohya}:0")
    assert (none == plain).all()


def test_stylize_makes_a_result_anew_when_the_lora_or_its_weight_changes(
    jstyle, model, loras, photos, paintings, tmp_path
):
    words = ("--content", photos / "hill.png", "--style", paintings / "ink.png", "--out", "out")
    words += ("--model", model, "--size-px", "64", *FAST)
    file = loras / "sd2_diffusers.safetensors"

    def run(*more):
        done = jstyle("stylize", *words, *more)
        assert done.returncode == 0, done.stderr
        png = tmp_path / "out" / "hill_stylized_ink.png"
        return done.stdout, np.asarray(Image.open(png)).tobytes()

    _, plain = run()
    said, full = run("--lora", file)
    assert "280 of 280 keys" in said and "wrote 1 picture" in said and full != plain
    said, half = run("--lora", f"{file}:0.5")
    assert "wrote 1 picture" in said and half != full
    (tmp_path / "run.yaml").write_text(f"lora: ['{file}:0.5']\n")
    assert "skipped 1 finished result" in run("--config", "run.yaml")[0]
    (tmp_path / "run.yaml").write_text(f"lora: {file}:0.5\n")
    assert "skipped 1 finished result" in run("--config", "run.yaml")[0]
    said, _ = run()
    assert "wrote 1 picture" in said


@pytest.mark.parametrize("command", ["generate", "stylize"])
def test_a_lora_that_cannot_be_used_is_one_line(
    jstyle, model, loras, photos, paintings, command, tmp_path
):
    words = ("--prompt", "a tree") if command == "generate" else ()
    words = words or ("--content", photos / "hill.png", "--style", paintings / "ink.png")
    words += ("--out", "out", "--model", model, *FAST, "--lora")

    def refuse(word, *expected):
        assert_refused(jstyle(command, *words, word), command, *expected)
        assert not (tmp_path / "out").exists()

    good = loras / "sd2_kohya.safetensors"
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(good.read_bytes()[:5000])
    refuse(tmp_path / "none.safetensors", "none.safetensors", "no such file")
    refuse(f"{tmp_path / 'none.safetensors'}:0.5", "none.safetensors: ", "no such file")
    refuse(bad, bad, "cut short")
    refuse(f"{good}:much", "much", "must be a number")
    refuse(loras / "sd1_diffusers.safetensors", "made for another model, tiny sd1")
    refuse(model / "unet" / "diffusion_pytorch_model.safetensors", "keys are left over")
    assert not [name for name in names_in(tmp_path) if name.endswith(".json")]
