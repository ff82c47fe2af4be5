"""Runs that stop and go on, runs that are killed, states that are damaged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jdreambooth import checkpoint
from jdreambooth.checkpoint import CheckpointError
from tests.cli.conftest import environment
from tests.train.test_every_option import outcome

FULL = {"ema_decay": 0.9, "lr_schedule": "constant", "random_flip": True, "caption_dropout": 0.2}


@pytest.mark.parametrize(
    "options",
    [{}, FULL, {"train": "kv"}, {"train_text_encoder": True, "accumulation": 2}],
    ids=["lora", "everything", "kv", "text"],
)
def test_five_steps_are_three_and_two_more_bit_for_bit(run, tmp_path, options):
    straight = outcome(run(out=str(tmp_path / "straight"), steps=5, **options).folder)
    parts = {"out": str(tmp_path / "parts"), **options}
    run(steps=3, **parts)
    stopped = outcome(run(steps=5, resume="auto", **parts).folder)
    for name in ("step-000003/pytorch_lora_weights.safetensors", "checkpoints/step-000003"):
        stopped = {n: h for n, h in stopped.items() if not n.startswith(name.split("/pyt")[0])}
    assert stopped == straight and "metrics.jsonl" in straight


WORKER = """
import json, sys
from jdreambooth.config import TrainConfig
from jdreambooth.train import train
train(TrainConfig(**json.loads(sys.argv[1])))
"""


def start(options: dict) -> subprocess.Popen:
    command = [sys.executable, "-c", WORKER, json.dumps(options)]
    return subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True)


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_after(worker: subprocess.Popen, metrics: Path, steps: int, delay: float) -> None:
    deadline = time.monotonic() + 240
    while lines_in(metrics) < steps and worker.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(delay)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()


def test_a_run_killed_at_random_steps_ends_with_the_same_bytes(model, pictures, tmp_path):
    seed = int.from_bytes(os.urandom(4), "little")
    rng = np.random.default_rng(seed)
    print(f"seed of the kills: {seed}")
    options = {
        "model": str(model), "instance_dir": str(pictures), "instance_prompt": "{stem}",
        "device": "cpu", "size_px": 32, "steps": 24, "save_at": "7,16", "rank": 2,
        "checkpoint_every": 3, "ema_decay": 0.9, "random_flip": True, "resume": "auto",
    }  # fmt: skip
    straight = start({**options, "out": str(tmp_path / "straight")})
    assert straight.wait() == 0, straight.stderr.read()
    options["out"] = str(tmp_path / "killed")
    folder = tmp_path / "killed"
    for least in (1, 8, 15):
        worker = start(options)
        steps, delay = least + int(rng.integers(7)), float(rng.uniform(0, 0.1))
        kill_after(worker, folder / "metrics.jsonl", steps, delay)
        assert worker.returncode == -signal.SIGKILL
        assert lines_in(folder / "metrics.jsonl") < 24
    last = start(options)
    assert last.wait() == 0, last.stderr.read()
    assert outcome(folder) == outcome(tmp_path / "straight")
    assert not list(folder.rglob(".*"))


def test_auto_takes_the_newest_whole_state(run):
    folder = run(steps=3, checkpoint_every=1, keep_checkpoints=3).folder / "checkpoints"
    assert sorted(p.name for p in folder.iterdir()) == [f"step-00000{i}" for i in (1, 2, 3)]
    assert checkpoint.newest_state(folder).facts["step"] == 3
    with open(folder / "step-000003" / checkpoint.TENSORS, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    assert checkpoint.newest_state(folder).facts["step"] == 2
    (folder / "step-000002" / checkpoint.FACTS).unlink()
    assert checkpoint.newest_state(folder).facts["step"] == 1
    with pytest.raises(CheckpointError, match="step-000003/state.safetensors: does not match"):
        run(steps=4, resume=str(folder / "step-000003"))


def test_a_chosen_state_is_taken(run):
    folder = run(steps=3, checkpoint_every=1, keep_checkpoints=3).folder / "checkpoints"
    seen = []
    run(
        steps=3, checkpoint_every=1, resume=str(folder / "step-000001"),
        progress=lambda stage, done, *rest: seen.append(done),
    )  # fmt: skip
    assert seen == [2, 3]


def test_auto_without_a_state_starts_from_the_beginning(run):
    seen = []
    run(resume="auto", progress=lambda stage, done, *rest: seen.append(done))
    assert seen == [1, 2]


def test_a_changed_configuration_is_refused_naming_what_differs(run):
    run()
    with pytest.raises(CheckpointError, match="another configuration") as caught:
        run(resume="auto", steps=3, learning_rate=0.5, rank=4)
    message = str(caught.value)
    assert "learning_rate: 0.01 -> 0.5" in message and "rank: 2 -> 4" in message
    assert "steps" not in message.split("configuration:")[1]


def test_another_length_changes_a_falling_learning_rate_and_is_refused(run):
    run(lr_schedule="cosine")
    with pytest.raises(CheckpointError, match="steps: 2 -> 3"):
        run(lr_schedule="cosine", steps=3, resume="auto")


def test_changed_pictures_are_refused(run, tmp_path):
    from tests.train.conftest import make_pictures

    own = make_pictures(tmp_path / "own")
    run(instance_dir=str(own))
    (own / "lake.png").write_bytes((own / "tree.png").read_bytes())
    with pytest.raises(CheckpointError, match="pictures or captions are not the same"):
        run(instance_dir=str(own), steps=3, resume="auto")


def test_fewer_steps_than_are_done_are_refused(run):
    run(steps=3)
    with pytest.raises(CheckpointError, match="3 steps are done, steps = 2 are fewer"):
        run(steps=2, resume="auto")


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "there"
    with pytest.raises(OSError, match="full"), checkpoint.whole_folder(target) as part:
        (part / "a").write_text("1")
        raise OSError("full")
    assert list(tmp_path.iterdir()) == []
    for text in ("old", "new"):
        with checkpoint.whole_folder(target) as part:
            (part / "a").write_text(text)
    assert (target / "a").read_text() == "new" and len(list(tmp_path.iterdir())) == 1
