"""Prompts as users give them: the syntax in every command, and many pictures from lists."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jdreambooth.cli import main as jdreambooth
from jstyle.cli import main as jstyle
from jstyle.sd import StableDiffusion, image
from tests.cli.conftest import make_pictures

SMALL = ("--steps", "3", "--height", "64", "--width", "64")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pixels_of(path):
    return np.asarray(image.read_rgb(path))


def far(a, b):
    """The largest difference, in steps of 8 bits."""
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def test_generate_paints_what_the_syntax_says(here, model):
    prompt, negative = "a [star:(tree:1.4):1] AND cat:0.5", "[dark|light]"
    words = ["generate", "--model", str(model), "--prompt", prompt, "--negative", negative, *SMALL]
    how = ("--syntax", "webui", "--clip-skip", "2")
    assert jstyle([*words, "--out", "a.png", *how, "--seed", "4"]) == 0
    sd = StableDiffusion.from_pretrained(model)
    options = {"seed": 4, "num_steps": 3, "height": 64, "width": 64, "negative": negative}
    made = sd.generate(prompt, syntax="webui", clip_skip=2, **options)
    np.testing.assert_array_equal(pixels_of("a.png"), image.to_uint8(made)[0])
    record = json.loads((here / "a.json").read_text())["config"]
    assert (record["syntax"], record["clip_skip"]) == ("webui", 2)
    for given in ((), how[:2], how[2:]):
        assert jstyle([*words, "--out", "b.png", *given, "--seed", "4"]) == 0
        assert not np.array_equal(pixels_of("a.png"), pixels_of("b.png"))


def test_a_fault_in_a_prompt_ends_every_command_in_one_line(here, model, capsys):
    make_pictures(here / "in", ("fox", "cat"))
    train = ["train", "--instance-dir", "in", "--model", str(model), "--out", "run"]
    train += ["--syntax", "webui"]
    generate = ["generate", "--model", str(model), "--out", "a.png", "--syntax", "webui"]
    (here / "contest" / "00" / "images").mkdir(parents=True)
    for main, words, told in (
        (jstyle, [*generate, "--prompt", "a (b"], "the bracket ( at character 3 is never closed"),
        (jstyle, [*generate, "--prompt", "a", "--negative", "b]"], "negative prompt 'b]'"),
        (jstyle, ["grid", "--model", str(model), "--x", "prompt=a|b)", *generate[3:]], "closes"),
        (jdreambooth, [*train, "--instance-prompt", "a ({stem}"], "instance_prompt: the bracket ("),
        (jdreambooth, [*train, "--instance-prompt", "a AND {stem}"], "has AND, which is about"),
        (jdreambooth, [*train, "--instance-prompt", "[a|{stem}]"], "has [a|b], which is about"),
        (
            jdreambooth,
            [*train, "--instance-prompt", "a", "--sample-prompts", "[a"],
            "sample_prompts: the bracket [",
        ),
        (
            jdreambooth,
            [*train, "--instance-prompt", "a", "--class-prompt", "[a::2]", "--prior-weight", "1"],
            "class_prompt: the caption",
        ),
    ):
        assert main(words) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert told in line
    assert not (here / "run").exists() and not (here / "a.png").exists()


def test_a_layer_that_the_text_encoder_has_not_is_refused(here, model, capsys):
    words = ["generate", "--model", str(model), "--prompt", "a", "--out", "a.png", *SMALL]
    assert jstyle([*words, "--clip-skip", "9"]) == 2
    told = "clip_skip must be in 1..3, the layers of this model's text encoder, got 9"
    assert told in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_prompt_that_changes_needs_a_sampler_with_known_steps(here, model, capsys):
    words = ["generate", "--model", str(model), "--prompt", "[a|b]", "--out", "a.png", *SMALL]
    assert jstyle([*words, "--syntax", "webui", "--sampler", "dpm-adaptive"]) == 2
    assert "sampler dpm-adaptive chooses its steps itself" in capsys.readouterr().err


def test_a_list_is_painted_and_what_is_finished_is_skipped(here, model, capsys):
    lines = ['{"prompt": "a __thing__", "size": "96x64", "seed": 9, "name": "one"}', '"a tree"']
    (here / "list.jsonl").write_text("\n".join(lines))
    (here / "words").mkdir()
    (here / "words" / "thing.txt").write_text("star\ncat\n")
    words = ["generate", "--model", str(model), "--prompts", "list.jsonl", "--out", "out", *SMALL]
    words += ["--wildcards", "words"]
    assert jstyle(words) == 0
    assert [p.name for p in sorted((here / "out").glob("*.png"))] == ["001_a_tree.png", "one.png"]
    assert pixels_of("out/one.png").shape == (64, 96, 3)
    record = json.loads((here / "out" / "one.json").read_text())
    assert record["config"]["drawn_from"] == "a __thing__"
    assert record["config"]["prompt"] in ("a star", "a cat")
    again = ["generate", "--model", str(model), "--prompt", "a tree", "--out", "b.png", *SMALL]
    assert jstyle([*again, "--seed", "1"]) == 0
    np.testing.assert_array_equal(pixels_of("out/001_a_tree.png"), pixels_of("b.png"))
    before = {p.name: p.stat().st_mtime_ns for p in (here / "out").iterdir()}
    (here / "out" / "001_a_tree.json").unlink()
    capsys.readouterr()
    assert jstyle(words) == 0
    told = capsys.readouterr().out
    assert "skipped 1 finished result" in told and "wrote out/001_a_tree.png" in told
    after = {p.name: p.stat().st_mtime_ns for p in (here / "out").iterdir()}
    assert {name for name in before if before[name] == after[name]} == {"one.png", "one.json"}
    assert jstyle([*words, "--guidance", "3"]) == 0
    assert "wrote out/one.png" in capsys.readouterr().out


def test_a_grid_reads_prompts_as_its_run_does(here, model):
    make_pictures(here / "in", ("fox", "cat"))
    train = ["train", "--instance-dir", "in", "--model", str(model), "--out", "run", "--steps", "1"]
    train += ["--instance-prompt", "a ({stem}:1.3)", "--rank", "1", "--size-px", "64"]
    assert jdreambooth([*train, "--syntax", "webui", "--clip-skip", "2"]) == 0
    grid = ["grid", "--run", "run", "--prompt", "a (cup:1.5)", "--out", "g.png", "--steps", "2"]
    assert jstyle([*grid, "--x", "clip_skip=2,1"]) == 0
    cells = json.loads((here / "g.json").read_text())["cells"]
    first, second = (pixels_of(cell["file"]) for cell in cells)
    assert far(first, second) > 2
    made = ["generate", "--run", "run", "--prompts", "a (cup:1.5)", "--out", "out", "--steps", "2"]
    assert jdreambooth(made) == 0
    assert far(pixels_of("out/a (cup_1.5).png"), first) <= 2  # a LoRA merged, and one beside
    assert jdreambooth([*made[:-4], "--out", "plain", "--steps", "2", "--syntax", "plain"]) == 0
    assert far(pixels_of("plain/a (cup_1.5).png"), first) > 2


def test_a_method_hears_weights_and_each_line_has_its_references(here, model):
    make_pictures(here / "in", ("x", "y"))
    lines = ['{"prompt": "a (star:1.5)", "references": "in/x.png", "seed": 3, "name": "x"}']
    lines += ['{"prompt": "a (star:1.5)", "references": "in/y.png", "seed": 3, "name": "y"}']
    (here / "list.jsonl").write_text("\n".join(lines))
    words = ["generate", "--model", str(model), "--method", "reference-only", *SMALL]
    assert jstyle([*words, "--prompts", "list.jsonl", "--out", "out", "--syntax", "webui"]) == 0
    assert far(pixels_of("out/x.png"), pixels_of("out/y.png")) > 2
    alone = [*words, "--prompt", "a (star:1.5)", "--reference", "in/y.png", "--seed", "3"]
    assert jstyle([*alone, "--out", "same.png", "--syntax", "webui"]) == 0
    np.testing.assert_array_equal(pixels_of("same.png"), pixels_of("out/y.png"))
    assert jstyle([*alone, "--out", "plain.png"]) == 0
    assert far(pixels_of("plain.png"), pixels_of("out/y.png")) > 2
    record = json.loads((here / "out" / "y.json").read_text())["config"]
    assert [one["file"] for one in record["reference"]] == ["in/y.png"]
