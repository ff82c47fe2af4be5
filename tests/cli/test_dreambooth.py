"""`jdreambooth` as a user runs it, on a tiny model: a run, and everything that is done with it."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from jdreambooth import drawings
from jdreambooth.cli import PROGRAM
from jstyle.sd import image
from jstyle.sd.pipeline import StableDiffusion

from .conftest import environment, make_pictures, names_in

FOLDER = "pictures"


@pytest.fixture(scope="session")
def call():
    """call(*words, cwd=folder) -> CompletedProcess of jdreambooth."""

    def run(*words, cwd, **options):
        command = [sys.executable, "-m", "jdreambooth", *map(str, words)]
        options = {"capture_output": True, "text": True, "timeout": 600, **options}
        return subprocess.run(command, cwd=cwd, env=environment(), **options)

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory, model, call):
    """A finished run with everything switched on: (folder, CompletedProcess)."""
    folder = tmp_path_factory.mktemp("dreambooth")
    pictures = folder / FOLDER
    pictures.mkdir()
    for name in ("fox", "red_owl_", "snail"):
        pixels = drawings.draw(name.strip("_").split("_")[-1], "knitted", 1, 64)
        image.save_png(pictures / f"{name}.png", np.asarray(pixels))
    (folder / "run.yaml").write_text(
        f"model: {model}\ninstance_prompt: '{{stem}} in sks style'\nsteps: 4\nsave_at: [2]\n"
        "sample_steps: 2\nsample_guidance: 3.0\nseed: 3\nlearning_rate: 0.001\nrank: 2\n"
    )
    words = ("--config", "run.yaml", "--instance-dir", FOLDER, "--out", "run", "--size_px", 64)
    words += ("--sample-every", 2, "--sample-prompts", "a cup", "--checkpoint-every", 0)
    return folder, call("train", *words, cwd=folder)


def scalars(folder, tag):
    """(step, value) of every event of one tag in the folder's only TensorBoard file."""
    (path,) = folder.glob("events.out.tfevents.*")
    data = path.read_bytes()
    while data:  # records of length, crc, payload, crc
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        yield from ((event.step, v.simple_value) for v in event.summary.value if v.tag == tag)
        data = data[16 + length :]


def test_a_run_leaves_results_logs_and_pictures(trained):
    folder, done = trained
    assert done.returncode == 0, done.stderr
    run = folder / "run"
    assert " tensors, " in done.stderr and "unet.down_blocks" in done.stderr
    assert "4/4" in done.stderr and "loss=" in done.stderr
    assert "step 2: run/step-000002" in done.stdout and "step 4: run/step-000004" in done.stdout
    config = json.loads((run / "config.json").read_text())
    assert config["steps"] == 4 and config["rank"] == 2 and config["size_px"] == 64
    captions = json.loads((run / "captions.json").read_text())
    assert captions["red_owl_.png"] == "red owl in sks style"
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    assert [line["step"] for line in metrics] == [1, 2, 3, 4]
    logged = dict(scalars(run / "tensorboard", "loss"))
    assert logged == pytest.approx({line["step"]: line["loss"] for line in metrics})
    assert Image.open(run / "loss.png").size[0] > 300
    for step in (2, 4):
        assert (run / f"step-{step:06d}" / "pytorch_lora_weights.safetensors").is_file()
        sample = Image.open(run / "samples" / f"step-{step:06d}" / "a cup.png")
        assert sample.size == (64, 64) and json.loads(sample.text["jstyle"])["step"] == step
    assert Image.open(run / "samples" / "grid.png").size[0] > 3 * 64


def test_samples_are_what_generate_makes_of_the_same_options(trained, model):
    """The prompt, steps, guidance and seed of the samples: before the first step and after it."""
    drawn = np.asarray(Image.open(trained[0] / "run/samples/step-000000/a cup.png"))
    sd = StableDiffusion.from_pretrained(model)
    same = {
        "prompt": "a cup",
        "seed": 3,
        "num_steps": 2,
        "guidance": 3.0,
        "height": 64,
        "width": 64,
    }
    np.testing.assert_array_equal(image.to_uint8(sd.generate(**same))[0], drawn)
    for change in ({"prompt": "a star"}, {"seed": 0}, {"num_steps": 3}, {"guidance": 1.0}):
        other = image.to_uint8(sd.generate(**same | change))[0]
        assert (other != drawn).any(), change


def pictures_of(folder):
    return {path.name: np.asarray(Image.open(path)) for path in folder.glob("*.png")}


def test_generate_writes_safe_names_and_a_manifest(trained, call):
    folder, _ = trained
    prompts = {"0": "Ice cream", "1": "../../a/b", "2": "a cup"}
    (folder / "prompt.json").write_text(json.dumps(prompts))
    common = ("generate", "--run", "run", "--steps", 2, "--seed", 5)
    before = set(names_in(folder))
    done = call(*common, "--prompts", "prompt.json", "--out", "made", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "wrote 3 pictures" in done.stdout
    made = pictures_of(folder / "made")
    assert set(made) == {"Ice cream.png", "_.._a_b.png", "a cup.png"}
    assert set(names_in(folder)) == before | set(made) | {"manifest.json"}
    manifest = json.loads((folder / "made" / "manifest.json").read_text())
    assert manifest["step"] == 4 and manifest["recipe"]["steps"] == 2
    rows = [(row["file"], row["prompt"], row["seed"]) for row in manifest["pictures"]]
    assert rows[1] == ("_.._a_b.png", "../../a/b", 6) and rows[2][2] == 7

    def one(out, *words):
        done = call(*common, "--prompts", "a cup", "--out", out, *words, cwd=folder)
        assert done.returncode == 0, done.stderr
        (pixels,) = pictures_of(folder / out).values()
        return pixels

    again = one("again", "--seed", 7)
    np.testing.assert_array_equal(again, made["a cup.png"])
    assert not np.array_equal(one("early", "--seed", 7, "--at", 2), again)
    assert not np.array_equal(
        one("told", "--seed", 7, "--template", "{prompt} in sks style"), again
    )
    assert not np.array_equal(one("free", "--seed", 7, "--guidance", 1), again)
    assert not np.array_equal(one("not", "--seed", 7, "--negative", "a boat"), again)


def test_the_start_and_its_strength_change_the_picture(trained, call):
    folder, _ = trained

    def start(out, *words):
        given = ("--run", "run", "--prompts", "a cup", "--out", out, "--steps", 4, "--guidance", 1)
        done = call("generate", *given, *words, cwd=folder)
        assert done.returncode == 0, done.stderr
        return pictures_of(folder / out)["a cup.png"].astype(int)

    free, average = start("free4"), start("average4", "--init", "average")
    weak = start("weak4", "--init", "average", "--strength", 0.5)
    fox = start("fox4", "--init", f"{FOLDER}/fox.png", "--strength", 0.5)
    made = (free, average, weak, fox)
    assert all((a != b).any() for i, a in enumerate(made) for b in made[:i])
    np.testing.assert_array_equal(start("again4", "--init", "average", "--strength", 0.5), weak)


def test_pick_prints_the_table_and_keeps_the_record(trained, call):
    folder, _ = trained
    words = ("pick", "run", "--prompts", "a cup in sks style", "a boat in sks style")
    words += ("--steps", 2, "--draws", 1)
    done = call(*words, cwd=folder)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[:2] == ["step", "style"]
    assert [line.split()[0] for line in lines[1:4]] == ["0", "2", "4"]
    assert "recommended" in done.stdout and lines[-1] == "look at run/pick/grid.png"
    record = json.loads((folder / "run" / "pick" / "pick.json").read_text())
    assert [row["step"] for row in record["measured"]] == [0, 2, 4]
    assert record["prompts"] == ["a cup in sks style", "a boat in sks style"]
    assert record["measured"][0] != record["measured"][2] and set(record["style"]) == {
        "0",
        "2",
        "4",
    }
    pictures = pictures_of(folder / "run" / "pick" / "step-000004")
    assert set(pictures) == {
        f"a {thing} in sks style {s}.png" for thing in ("cup", "boat") for s in (0, 1)
    }


def test_merge_and_export_give_the_model_of_the_run(trained, call, jstyle):
    folder, _ = trained
    done = call("merge", "--run", "run", "--out", "merged", "--dtype", "float32", cwd=folder)
    assert done.returncode == 0, done.stderr
    done = call("export", "--run", "run", "--out", "kohya.safetensors", cwd=folder)
    assert done.returncode == 0, done.stderr
    from jstyle.sd.lora_files import read_lora
    from jstyle.sd.weights import read_safetensors

    file = read_lora(folder / "kohya.safetensors")
    assert all(key.startswith("lora_") for key in read_safetensors(folder / "kohya.safetensors"))
    own = read_lora(folder / "run" / "step-000004" / "pytorch_lora_weights.safetensors")
    assert file.parts["unet"].keys() and file.keys >= own.keys

    words = (
        "generate",
        "--prompt",
        "a cup",
        "--seed",
        7,
        "--steps",
        2,
        "--height",
        64,
        "--width",
        64,
    )
    done = jstyle(*words, "--model", folder / "merged", "--out", folder / "merged.png")
    assert done.returncode == 0, done.stderr
    done = call(
        *("generate", "--run", "run", "--prompts", "a cup", "--seed", 7, "--steps", 2),
        *("--out", "unmerged"), cwd=folder,
    )  # fmt: skip
    ours = pictures_of(folder / "unmerged")["a cup.png"].astype(int)
    assert np.abs(np.asarray(Image.open(folder / "merged.png")).astype(int) - ours).max() <= 1


def test_a_merged_model_in_one_file_paints_as_the_folder_does(trained, call, jstyle):
    folder, _ = trained
    words = ("merge", "--run", "run", "--dtype", "float32", "--out")
    assert call(*words, "as_folder", cwd=folder).returncode == 0
    done = call(*words, "one.safetensors", "--format", "checkpoint", cwd=folder)
    assert done.returncode == 0 and done.stdout == "wrote one.safetensors\n", done.stderr
    done = call(*words, "one.safetensors", "--format", "checkpoint", cwd=folder)
    assert done.returncode == 0, done.stderr  # an earlier result of ours is replaced

    small = ("generate", "--prompt", "a cup", "--steps", 2, "--height", 64, "--width", 64)
    one = ("--model", "one.safetensors", "--tokenizer", "as_folder")
    for name, given in (("a", ("--model", "as_folder")), ("b", one)):
        done = jstyle(*small, *given, "--quiet", "--out", f"{name}.png", cwd=folder)
        assert done.returncode == 0 and not done.stderr, done.stderr
    pictures = [np.asarray(Image.open(folder / f"{name}.png")) for name in "ab"]
    np.testing.assert_array_equal(*pictures)
    record = json.loads((folder / "b.json").read_text())
    assert record["model"]["tokenizer"] == "as_folder"

    for given, told in (
        (one[:2], "one.safetensors: a single file holds no tokenizer; give --tokenizer"),
        ((*one, "--variant", "fp16"), "--variant is for folders"),
        ((*one, "--prediction", "x"), "prediction must be v or epsilon, got 'x'"),
        (("--model", "as_folder", "--prediction", "v"), "--prediction is for a model in a single"),
    ):
        done = jstyle(*small, *given, "--out", "c.png", cwd=folder)
        assert_refused(done, "generate", told, program="jstyle")
    for out, told in (("one", "must end in .safetensors"), ("one.ckpt", "must end in")):
        done = call(*words, out, "--format", "checkpoint", cwd=folder)
        assert_refused(done, "merge", told)
    done = call(*words, "x", "--format", "webui", cwd=folder)
    assert_refused(done, "merge", "format must be one of diffusers, checkpoint, got 'webui'")


def test_a_finished_run_is_not_overwritten_but_can_be_resumed(trained, call):
    folder, _ = trained
    words = ("train", "--config", "run/config.json")
    done = call(*words, cwd=folder)
    assert done.returncode == 2 and "holds a run already" in done.stderr.splitlines()[-1]
    done = call(*words, "--resume", "auto", cwd=folder)
    assert done.returncode == 0, done.stderr
    done = call(*words, "--resume", "auto", "--rank", 4, cwd=folder)
    assert done.returncode == 2 and "rank: 2 -> 4" in done.stderr


def assert_refused(done, command, *expected, program="jdreambooth"):
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2 and len(lines) == 1, done.stderr
    assert lines[0].startswith(f"{program} {command}: error: ")
    for text in expected:
        assert str(text) in lines[0], lines[0]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), ("required", "instance_dir")),
        (
            ("--instance-prompt", "a", "--steps", "many"),
            ("--steps must be an integer, got 'many'",),
        ),
        (
            ("--instance-prompt", "a", "--steps", "9", "--save-at", "5,10"),
            ("save_at", "1..9", "10"),
        ),
        (("--instance-prompt", "a", "--prior-weight", "1"), ("prior_weight", "class_prompt")),
        (("--instance-prompt", "a", "--train", "some"), ("lora, full, kv, up, down", "'some'")),
        ((), ("instance_prompt or captions",)),
    ],
)
def test_train_refuses_options_in_one_line(tmp_path, call, words, expected):
    given = ("--instance-dir", "in", "--out", "out") if words or "captions" in expected[0] else ()
    assert_refused(call("train", *given, *words, cwd=tmp_path), "train", *expected)
    assert not (tmp_path / "out").exists()


def test_train_without_a_folder_is_refused(tmp_path, call):
    done = call("train", "--instance-dir", "in", "--instance-prompt", "a", cwd=tmp_path)
    assert_refused(done, "train", "out is required", "--config RUN/config.json")


def test_a_run_that_was_moved_paints_goes_on_and_leaves_its_old_place_alone(trained, call):
    folder, _ = trained
    shutil.copytree(folder / "run", folder / "elsewhere" / "renamed")
    moved = "elsewhere/renamed"
    for run, out in (("run", "here"), (moved, "there")):
        words = ("--run", run, "--prompts", "a cup", "--steps", 2, "--out", out)
        done = call("generate", *words, cwd=folder)
        assert done.returncode == 0, done.stderr
    assert (folder / "here" / "a cup.png").read_bytes() == (
        folder / "there" / "a cup.png"
    ).read_bytes()
    before = {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()}
    config = f"{moved}/config.json"
    done = call("train", "--config", config, "--steps", 5, "--resume", "auto", cwd=folder)
    assert done.returncode == 0 and f"step 5: {moved}/step-000005" in done.stdout, done.stderr
    assert {p: p.read_bytes() for p in (folder / "run").rglob("*") if p.is_file()} == before


def test_what_is_not_a_run_or_not_saved_is_refused(trained, call, tmp_path):
    folder, _ = trained
    words = ("--prompts", "a", "--out", tmp_path / "out")
    done = call("generate", "--run", tmp_path, *words, cwd=folder)
    assert_refused(done, "generate", "config.json", "is not a run")
    done = call("generate", "--run", "run", "--at", 3, *words, cwd=folder)
    assert_refused(done, "generate", "step 3", "saved: 2, 4")
    done = call("generate", "--run", "run", *words, "--init", "no.png", cwd=folder)
    assert_refused(done, "generate", "no.png", "no such file")
    done = call("generate", "--run", "run", *words, "--strength", 0, cwd=folder)
    assert_refused(done, "generate", "strength", "above 0")
    done = call("pick", "run", "--prompts", "fox in sks style", "b", cwd=folder)
    assert_refused(done, "pick", "training caption")
    done = call("export", "--run", "run", "--out", tmp_path / "a.bin", cwd=folder)
    assert_refused(done, "export", ".safetensors")
    done = call("merge", "--run", "run", "--out", tmp_path / "out", "--dtype", "int8", cwd=folder)
    assert_refused(done, "merge", "float16, float32")
    assert names_in(tmp_path) == []


def test_identifiers_are_printed(call, model, tmp_path):
    done = call("identifiers", "--model", model, "--count", 3, cwd=tmp_path)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 3, done.stderr
    done = call("identifiers", "--model", model, "--count", 0, cwd=tmp_path)
    assert_refused(done, "identifiers", "count must be an integer from 1")


def test_bad_pictures_are_named(call, model, tmp_path):
    make_pictures(tmp_path / "in", ("hill", "lake"))
    (tmp_path / "in" / "moon.png").write_bytes(b"this is text")
    words = ("--instance-dir", "in", "--out", "out", "--instance-prompt", "a", "--model", model)
    done = call("train", *words, cwd=tmp_path)
    assert_refused(done, "train", "in/moon.png", "skip_bad_images")


def test_a_run_of_a_whole_model_generates_and_needs_no_merging(trained, call, model):
    folder, _ = trained
    words = ("train", "--model", model, "--instance-dir", FOLDER, "--out", "whole")
    words += ("--instance-prompt", "a toy", "--size-px", 64, "--steps", 1, "--train", "kv")
    done = call(*words, "--learning-rate", 0.01, cwd=folder)
    assert done.returncode == 0, done.stderr
    made = []
    for name in ("whole", "run"):
        given = ("--run", name, "--prompts", "a toy", "--out", f"by_{name}", "--steps", 1)
        assert call("generate", *given, cwd=folder).returncode == 0
        made.append(pictures_of(folder / f"by_{name}")["a toy.png"])
    assert not np.array_equal(*made)
    done = call("merge", "--run", "whole", "--out", "again", cwd=folder)
    assert_refused(done, "merge", "whole/step-000001", "a whole model already")
    done = call("pick", "whole", cwd=folder)
    assert_refused(done, "pick", "--prompts")


NO_JITTOR = """
import sys
from jdreambooth.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
heavy = [name for name in ("jittor", "torch", "transformers", "matplotlib") if name in sys.modules]
sys.exit(99 if heavy else code)
"""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--version",), 0),
        ((), 2),
        *(((command, "--help"), 0) for command in PROGRAM.commands),
        (("train", "--instance-dir", "a", "--out", "b"), 2),
        (("generate", "--run", "nothing", "--prompts", "a", "--out", "b"), 2),
        (("pick", "nothing"), 2),
    ],
)
def test_help_and_bad_words_are_answered_without_starting_jittor(tmp_path, words, code):
    command = [sys.executable, "-c", NO_JITTOR, *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True)
    assert done.returncode == code, done.stderr
