"""What cannot work is one clear line, and leaves what was there."""

from __future__ import annotations

import os
import re
import resource
import shutil

import pytest

from jdreambooth import checkpoint
from jdreambooth.config import TrainConfig
from jdreambooth.train import TrainingError
from tests.train.conftest import make_pictures

REQUIRED = {"instance_dir": "pictures", "out": "run"}
WRONG = [
    ({}, "give either instance_prompt or captions"),
    ({"instance_prompt": "x", "captions": "c.jsonl"}, "only one of them"),
    ({"instance_prompt": " "}, "instance_prompt must be text that is not empty, got ' '"),
    ({"prior_weight": 1.0}, "prior_weight = 1.0 needs a class_prompt"),
    ({"prior_weight": -1.0}, "prior_weight must be a finite number, at least 0, got -1.0"),
    ({"save_at": "100,600"}, "save_at must be in 1..500 (steps), got 600"),
    ({"save_at": "soon"}, "save_at must be like \"250,500,1000\", got 'soon'"),
    ({"steps": 0}, "steps must be an integer from 1 to 1000000, got 0"),
    ({"steps": True}, "steps must be an integer from 1 to 1000000, got True"),
    ({"warmup_steps": 500}, "warmup_steps must be below steps = 500, got 500"),
    ({"train": "all"}, "train must be one of lora, full, kv, up, down, got 'all'"),
    ({"train": "kv", "train_text_encoder": True}, "needs train = lora or full, got 'kv'"),
    ({"text_learning_rate": 1e-4}, "text_learning_rate needs train_text_encoder"),
    ({"targets": "to_q"}, "targets must be one of attention, feed-forward, convolutions"),
    ({"rank": 0}, "rank must be an integer from 1 to 4096, got 0"),
    ({"learning_rate": float("nan")}, "learning_rate must be a finite number above 0, got nan"),
    ({"ema_decay": 1.0}, "ema_decay must be a number in [0, 1), got 1.0"),
    ({"caption_dropout": 2}, "caption_dropout must be a number in [0, 1], got 2"),
    ({"class_prompt": [1]}, "class_prompt must be text or a list of texts, got [1]"),
    ({"random_flip": "yes"}, "random_flip must be true or false, got 'yes'"),
    (
        {"sampler": "lcm", "sample_steps": 100, "sample_every": 5},
        "sample_steps of sampler lcm must be an integer from 1 to 50, got 100",
    ),
    (
        {"sampler": "lcm", "class_steps": 51, "prior_weight": 1.0, "class_prompt": "y"},
        "class_steps of sampler lcm must be an integer from 1 to 50, got 51",
    ),
]


@pytest.mark.parametrize("options, message", WRONG)
def test_a_wrong_option_is_named_with_what_is_allowed(options, message):
    if not {"instance_prompt", "captions"} & options.keys() and options:
        options = {**options, "instance_prompt": "x"}
    with pytest.raises(ValueError, match=re.escape(message)):
        TrainConfig(**REQUIRED, **options)


def test_counts_come_as_text_or_list_and_end_with_the_last_step():
    for given in ("500, 250", [250, 500], (250,)):
        assert TrainConfig(**REQUIRED, instance_prompt="x", save_at=given).save_at == [250, 500]


def test_the_saved_options_give_the_same_configuration():
    cfg = TrainConfig(**REQUIRED, instance_prompt="x", class_prompt="y", save_at="3")
    assert TrainConfig(**cfg.to_json()) == cfg


def test_folders_without_pictures(run, tmp_path):
    (tmp_path / "empty").mkdir()
    for name, message in (("none", "no such folder"), ("empty", "no images in this folder")):
        with pytest.raises(ValueError, match=message):
            run(instance_dir=str(tmp_path / name))


def test_one_bad_picture_is_named(run, tmp_path):
    folder = make_pictures(tmp_path / "mixed")
    (folder / "lake.png").write_bytes((folder / "lake.png").read_bytes()[:100])
    with pytest.raises(ValueError, match=r"lake.png: is .*; skip_bad_images leaves such files out"):
        run(instance_dir=str(folder))


def test_a_run_does_not_go_where_its_plot_would_be_a_training_picture(run, tmp_path):
    folder = make_pictures(tmp_path / "both")
    before = sorted(folder.iterdir())
    with pytest.raises(ValueError, match="is also the instance_dir; give the run a folder"):
        run(instance_dir=str(folder), out=f"{folder}/../both")
    assert sorted(folder.iterdir()) == before


def test_only_bad_pictures(run, tmp_path):
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="none of the images can be read"):
        run(instance_dir=str(folder), skip_bad_images=True)


def test_a_size_that_does_not_fit(run):
    with pytest.raises(ValueError, match="height must be a multiple of 32, got 40"):
        run(size_px=40)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_state(run):
    with pytest.raises(TrainingError, match=r"step \d+: \w+ is (nan|inf)") as caught:
        run(learning_rate=1e30, steps=9, checkpoint_every=1, train="full", max_grad_norm=0.0)
    report = str(caught.value)
    assert "the last good state is" in report and "\n" not in report


def test_a_loss_that_is_no_number_before_any_state(run):
    with pytest.raises(TrainingError, match="there is no state yet"):
        run(learning_rate=1e30, steps=9, checkpoint_every=0, train="full", max_grad_norm=0.0)


@pytest.mark.parametrize("gone", ["", "checkpoints"])
def test_a_run_whose_folder_is_removed_meanwhile_says_so_and_makes_no_new_one(run, tmp_path, gone):
    def remove(stage, done, total, metrics):
        if done == 2:
            shutil.rmtree(tmp_path / "run" / gone)

    if gone:  # what is written whole is made again
        assert run(steps=4, checkpoint_every=1, progress=remove).steps == 4
        assert (tmp_path / "run" / gone / "step-000004").is_dir()
    else:
        with pytest.raises(OSError, match="run/.*: its folder is not there"):
            run(steps=4, checkpoint_every=1, progress=remove)
        assert not (tmp_path / "run").exists()


def test_a_clock_that_was_set_back_changes_nothing(run, tmp_path):
    """Every file of the run is from the future: what is newest is told by its name."""
    run(out=str(tmp_path / "straight"), steps=4, checkpoint_every=1)
    run(steps=2, save_at=[2], checkpoint_every=1)
    for path in (tmp_path / "run").rglob("*"):
        os.utime(path, (4e9, 4e9 - path.stat().st_size))
    run(steps=4, save_at=[2], checkpoint_every=1, resume="auto")
    ends = [tmp_path / name / "step-000004" for name in ("straight", "run")]
    one, other = ({p.name: p.read_bytes() for p in folder.iterdir()} for folder in ends)
    assert one.keys() == other.keys() and one


def test_a_full_disk_keeps_the_older_state_and_the_run_goes_on_later(run, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    run(out=str(tmp_path / "straight"), steps=4)

    def fill_disk(stage, done, total, metrics):
        if done == 3:  # no file can grow beyond this from now on
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))

    try:
        with pytest.raises(OSError, match="File too large"):
            run(steps=4, checkpoint_every=2, progress=fill_disk)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    folder = tmp_path / "run"
    assert [p.name for p in (folder / "checkpoints").iterdir()] == ["step-000002"]
    assert checkpoint.newest_state(folder / "checkpoints").facts["step"] == 2
    assert not (folder / "step-000004").exists()
    run(steps=4, checkpoint_every=2, resume="auto")
    for name in ("metrics.jsonl", "step-000004/pytorch_lora_weights.safetensors"):
        assert len((folder / name).read_bytes()) > 0
    straight = tmp_path / "straight" / "metrics.jsonl"
    assert (folder / "metrics.jsonl").read_bytes() == straight.read_bytes()
