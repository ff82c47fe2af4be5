"""--lora of the commands that make pictures."""

from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from jdreambooth.cli import main as jdreambooth
from jstyle.cli import main as jstyle_here
from jstyle.sd import lora
from jstyle.sd.startup import jt
from tests import tiny
from tests.contests import make_contest
from tests.loras import diffusers_name, kohya_on_ldm, peft_both, respelled, torch_zip, write_peft

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
    refuse(f"{good}:much", "much", "must be a finite number")
    refuse(loras / "sd1_diffusers.safetensors", "made for another model, tiny sd1")
    refuse(model / "unet" / "diffusion_pytorch_model.safetensors", "is a whole UNet, not a plain")
    mark, evil = tmp_path / "ran", tmp_path / "evil.bin"
    evil.write_bytes(pickle.dumps({"unet.x.lora.up.weight": Evil(mark)}))
    refuse(evil, evil, "asks for posix.system; only tensors are read")
    assert not mark.exists()
    assert not [name for name in names_in(tmp_path) if name.endswith(".json")]


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def test_files_of_other_programs_give_the_picture_of_the_plain_one(picture, loras, tmp_path):
    plain = loras / "sd2_diffusers.safetensors"
    wanted, _ = picture("wanted.png", "--lora", plain)
    tensors = respelled(plain, diffusers_name)
    (tmp_path / "style_00").mkdir()
    for part in lora.PARTS:
        mine = {n: v for n, v in respelled(plain, peft_both).items() if n.startswith(part)}
        mine = {n.removeprefix(f"{part}."): v for n, v in mine.items()}
        write_peft(tmp_path / "peft" / part, mine, r=2, lora_alpha=3)
    again, said = picture("peft.png", "--lora", tmp_path / "peft")
    assert (again == wanted).all() and "280 of 280 keys applied, weight 1" in said

    torch_zip(tmp_path / "style_00" / "pytorch_lora_weights.bin", tensors, checksum=0)
    bare, said = picture("bin.png", "--lora", f"{tmp_path / 'style_00'}:1.5")  # alpha 3 of rank 2
    assert (bare == wanted).all() and "280 of 280 keys applied, weight 1.5" in said
    record = json.loads((tmp_path / "bin.json").read_text())
    assert record["model"]["loras"][0]["file"].endswith("style_00/pytorch_lora_weights.bin")


def test_import_writes_one_plain_file_and_tells_its_parts(loras, tmp_path, capsys):
    plain, out = loras / "sd2_diffusers.safetensors", tmp_path / "new" / "out.safetensors"
    torch_zip(tmp_path / "k.bin", respelled(plain, kohya_on_ldm), checksum=0)
    assert jdreambooth(["import", str(tmp_path / "k.bin"), "--out", str(out)]) == 0
    unet, text, wrote = capsys.readouterr().out.splitlines()
    assert unet == "unet: 128 layers, rank 2, alpha 2" and wrote == f"wrote {out}"
    assert text == "text_encoder: 12 layers, rank 2, alpha 2"
    first, back = load_file(plain), load_file(out)
    assert first.keys() == back.keys() and all((first[n] == back[n]).all() for n in first)

    mark, evil = tmp_path / "ran", tmp_path / "evil.bin"
    evil.write_bytes(pickle.dumps({"x": Evil(mark)}))
    assert jdreambooth(["import", str(evil), "--out", str(tmp_path / "o.safetensors")]) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1
    assert said.err.startswith(f"jdreambooth import: error: {evil}: asks for posix.system")
    assert not mark.exists() and not (tmp_path / "o.safetensors").exists()


def test_weights_of_a_metric_that_would_run_a_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    root, result = make_contest(tmp_path)
    mark, weights = tmp_path / "ran", tmp_path / "w"
    weights.mkdir()
    (weights / "RN50.pt").write_bytes(pickle.dumps({"x": Evil(mark)}))
    code = jstyle_here(["score", str(result), str(root), "--weights", str(weights), "--quiet"])
    said = capsys.readouterr().err.splitlines()
    assert code == 2 and len(said) == 1, said
    assert f"{weights / 'RN50.pt'}: asks for posix.system; only tensors are read" in said[0]
    assert not mark.exists()
