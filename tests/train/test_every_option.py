"""Every option of TrainConfig changes something that can be seen from outside."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jdreambooth.config import TrainConfig
from jdreambooth.runs import open_run
from jdreambooth.train import train
from jstyle.sd import hub
from jstyle.sd.single_file import write_checkpoint
from jstyle.sd.startup import jt
from tests import tiny
from tests.train.conftest import make_pictures

PRIOR = {"prior_weight": 1.0, "class_prompt": "a picture"}
PAINTED = {**PRIOR, "class_steps": 3}
TEXT = {"train_text_encoder": True}
SAMPLES = {"sample_prompts", "sample_steps", "sample_guidance"}  # tests/cli, where they are drawn
ELSEWHERE = {  # tests below, each of its own
    "instance_dir", "out", "model", "variant", "prediction", "tokenizer", "device", "captions",
    "skip_bad_images", "gradient_checkpointing", "precision", "sample_every", "resume",
} | SAMPLES  # fmt: skip

# option -> another value, what both runs have in common besides the basics
CHANGES = {
    "instance_prompt": ("a {stem}", {}),
    "caption_case": ("lower", {}),
    "size_px": (64, {}),
    "random_crops": (2, {}),
    "random_flip": (True, {"steps": 4}),
    "train": ("kv", {}),
    "train_text_encoder": (True, {}),
    "rank": (3, {}),
    "alpha": (7.0, {}),
    "targets": ("feed-forward", {}),
    "prior_weight": (1.0, {"class_prompt": "a picture"}),
    "class_prompt": ("a photo", PRIOR),
    "class_dir": ("elsewhere", PRIOR),
    "num_class_images": (2, PRIOR),
    "class_steps": (2, PRIOR),
    "class_guidance": (3.0, PRIOR),
    "min_snr_gamma": (1.0, {}),
    "offset_noise": (0.2, {}),
    "caption_dropout": (1.0, {}),
    "steps": (3, {}),
    "save_at": ("1", {}),
    "batch": (2, {}),
    "accumulation": (2, {}),
    "learning_rate": (1e-3, {}),
    "text_learning_rate": (1e-3, TEXT),
    "lr_schedule": ("linear", {}),
    "warmup_steps": (1, {}),
    "weight_decay": (0.5, {}),
    "max_grad_norm": (0.01, {}),
    "ema_decay": (0.9, {}),
    "seed": (5, {}),
    "rng": ("torch-cpu", PRIOR),
    "sampler": ("euler-a", PAINTED),
    "sigmas": ("karras", {**PAINTED, "sampler": "euler-a"}),
    "eta": (0.5, {**PAINTED, "sampler": "ddim"}),
    "rescale": (0.7, {**PAINTED, "class_guidance": 9.0}),
    "syntax": ("webui", {"instance_prompt": "({stem}:1.5) in red"}),
    "clip_skip": (2, {}),
    "checkpoint_every": (1, {}),
    "keep_checkpoints": (1, {"checkpoint_every": 1}),
}
_seen: dict[str, dict] = {}


def outcome(folder: Path) -> dict[str, str]:
    """Relative path -> hash of everything a run left but for config.json, which only repeats."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "config.json"]
    found = {}
    for path in files:
        content = path.read_bytes()
        if path.suffix == ".png":  # the record in it repeats the options
            content = np.asarray(Image.open(path)).tobytes()
        if path.name == "state.json":
            content = json.loads(content)["sha256"].encode()
        if path.name == "pytorch_lora_weights.safetensors":  # its header repeats the config
            length = int.from_bytes(content[:8], "little")
            header = json.loads(content[8 : 8 + length])
            header.pop("__metadata__")
            content = json.dumps(header).encode() + content[8 + length :]
        found[path.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()
    return found


@pytest.fixture
def outcome_of(config, tmp_path):
    """outcome_of(**options) -> outcome of that run; runs with equal options are made once."""

    def make(**options):
        key = json.dumps(options, sort_keys=True)
        if key not in _seen:
            if "class_dir" in options:
                options["class_dir"] = str(tmp_path / options["class_dir"])
            report = train(config(**options), sd=tiny.make_ours("sd2"))
            _seen[key] = outcome(report.folder)
        return _seen[key]

    return make


def test_no_option_is_forgotten_here():
    assert {field.name for field in fields(TrainConfig)} == CHANGES.keys() | ELSEWHERE


@pytest.mark.parametrize("option", CHANGES)
def test_option_changes_the_outcome(option, outcome_of, tmp_path):
    value, common = CHANGES[option]
    before = outcome_of(**common)
    if (tmp_path / "run").exists():
        (tmp_path / "run").rename(tmp_path / "before")
    assert before != outcome_of(**{**common, option: value})


def test_the_same_options_give_the_same_bytes(run, config, outcome_of, tmp_path):
    before = outcome_of()
    if (tmp_path / "run").exists():
        (tmp_path / "run").rename(tmp_path / "before")
    assert outcome(run().folder) == before


def test_instance_dir_and_out(run, tmp_path):
    other = make_pictures(tmp_path / "others", ("ink",))
    report = run(instance_dir=str(other), out=str(tmp_path / "there"))
    assert report.folder == tmp_path / "there"
    assert json.loads((report.folder / "captions.json").read_text()) == {"ink.png": "ink in red"}


def test_model_and_variant_choose_the_weights(config, model):
    def name_of(**options):
        report = train(config(out=str(model.parent / "run"), **options))
        return report.folder.joinpath("config.json").read_text()

    assert str(model) in name_of(model=str(model))
    with pytest.raises(ValueError, match="nowhere: no such model"):
        train(config(model="nowhere"))
    with pytest.raises(ValueError, match="fp16.safetensors: no such file"):
        train(config(model=str(model), variant="fp16"))


def test_prediction_and_tokenizer_are_those_of_a_model_in_one_file(config, tmp_path):
    path = tmp_path / "one.safetensors"
    write_checkpoint(tiny.make_ours("sd1"), path, "float32")
    with pytest.raises(ValueError, match="holds no tokenizer; give --tokenizer"):
        train(config(model=str(path)))
    given = {"model": str(path), "tokenizer": "tiny", "steps": 1, "size_px": 64}
    found = {}
    for said in (None, "v"):
        report = train(config(**given, prediction=said, out=str(tmp_path / str(said))))
        found[said] = report.loss
        assert open_run(report.folder).config.source == hub.Source(str(path), None, said, "tiny")
        kept = json.loads((report.folder / "config.json").read_text())
        assert kept["tokenizer"] == "tiny" and kept.get("prediction") == said
    assert found[None] != found["v"]
    assert not {"prediction", "tokenizer"} & config().to_json().keys()


@pytest.mark.skipif(bool(jt.has_cuda), reason="there is a device")
def test_device_is_refused_where_it_is_missing(run):
    with pytest.raises(ValueError, match="cuda is not available here"):
        run(device="cuda")


def test_precision_is_refused_on_the_cpu(run):
    with pytest.raises(ValueError, match="precision = 'float16' needs cuda: on the CPU"):
        run(precision="float16")


@pytest.mark.parametrize("suffix", ["jsonl", "txt"])
def test_captions_of_a_file_are_used(run, tmp_path, suffix):
    captions = {"Red_hill_.png": "one", "lake.png": "two", "tree.png": "three"}
    lines = [
        json.dumps({"file": n, "caption": c}) if suffix == "jsonl" else f"{n}\t{c}"
        for n, c in captions.items()
    ]
    file = tmp_path / f"captions.{suffix}"
    file.write_text("\n".join(lines), encoding="utf-8")
    folder = run(captions=str(file), steps=1).folder
    assert json.loads((folder / "captions.json").read_text()) == captions


def test_skip_bad_images_leaves_one_out(run, tmp_path, caplog):
    folder = make_pictures(tmp_path / "mixed")
    (folder / "broken.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="broken.png: is not an image; skip_bad_images"):
        run(instance_dir=str(folder))
    report = run(instance_dir=str(folder), skip_bad_images=True)
    assert "broken.png" not in (report.folder / "captions.json").read_text()
    assert "broken.png" in caplog.text


@pytest.mark.parametrize("on", [False, True])
def test_gradient_checkpointing_wraps_the_blocks_during_training_only(run, on):
    sd, seen = tiny.make_ours("sd2"), []
    block = sd.unet.mid_block.resnets[0]
    run(
        sd=sd,
        gradient_checkpointing=on,
        progress=lambda *a: seen.append("execute" in vars(block)),
    )
    assert seen == [on, on] and "execute" not in vars(block)


@pytest.mark.parametrize("every, steps", [(None, []), (1, [0, 1, 2, 3]), (2, [0, 2])])
def test_samples_are_asked_for_every_so_many_steps(run, every, steps):
    seen = []
    run(sample_every=every, steps=3, on_sample=lambda step, sd: seen.append(step))
    assert seen == steps


def test_resume_goes_on_where_a_run_stopped(run, caplog):
    seen, sampled = [], []
    run()
    with pytest.raises(ValueError, match="holds a run already"):
        run()
    report = run(
        resume="auto", steps=3, save_at="1,2", sample_every=1,
        progress=lambda stage, done, *rest: seen.append(done),
        on_sample=lambda step, sd: sampled.append(step),
    )  # fmt: skip
    assert seen == sampled == [3]
    assert list(report.results) == [2, 3]
    assert "save_at 1: the run is at step 2 already" in caplog.text
