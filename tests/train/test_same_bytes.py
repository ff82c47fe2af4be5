"""One configuration and seed gives one set of bytes, wherever the run lies and however often it was
stopped. Left out are TensorBoard's events, which hold the time of day."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from jdreambooth.checkpoint import CheckpointError
from jdreambooth.runs import RunError, open_run
from jdreambooth.session import TENSORBOARD, Session
from jdreambooth.start import LOCK
from jstyle.sd.files import WriteError
from tests import tiny
from tests.mounts import small_disk
from tests.train.conftest import make_pictures


def silent_bar(total):
    return tqdm(total=total, disable=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and TENSORBOARD not in path.parts
    }


class Stop(Exception):
    pass


class Stopping(Session):
    """A session that is interrupted after a step."""

    def progress(self, stage, done, total, metrics):
        super().progress(stage, done, total, metrics)
        if stage == "train" and done == 3:
            raise Stop


OPTIONS = {
    "steps": 4, "save_at": "2", "checkpoint_every": 1, "keep_checkpoints": 9, "sample_every": 2,
    "sample_steps": 1, "sample_guidance": 1.0, "prior_weight": 1.0, "class_prompt": "a hill",
}  # fmt: skip


def test_a_run_that_is_stopped_moved_and_continued_leaves_the_bytes_of_a_plain_one(
    config, tmp_path
):
    Session(config(out=str(tmp_path / "plain"), **OPTIONS), silent_bar, tiny.make_ours("sd2")).run()
    with pytest.raises(Stop):
        Stopping(
            config(out=str(tmp_path / "a"), **OPTIONS), silent_bar, tiny.make_ours("sd2")
        ).run()
    (tmp_path / "deeper").mkdir()
    moved = (tmp_path / "a").rename(tmp_path / "deeper" / "b")
    cfg = config(out=str(moved), resume="auto", **OPTIONS)
    Session(cfg, silent_bar, tiny.make_ours("sd2")).run()
    plain, other = contents(tmp_path / "plain"), contents(moved)
    assert len(plain) > 20 and {"config.json", "loss.png", "samples/grid.png"} <= plain.keys()
    assert [name for name in plain | other if plain.get(name) != other.get(name)] == []
    told = json.loads(plain["config.json"])
    assert not {"out", "resume"} & told.keys() and told["instance_dir"] == cfg.instance_dir
    state = json.loads(plain["checkpoints/step-000004/state.json"])["config"]
    assert str(tmp_path) not in json.dumps(state) and state["rank"] == cfg.rank
    assert open_run(moved).config.out == str(moved)


def test_pictures_may_lie_elsewhere_when_a_run_goes_on_but_not_be_others(run, tmp_path):
    for name in ("one", "two"):
        make_pictures(tmp_path / name)
    run(instance_dir=str(tmp_path / "one"))
    run(instance_dir=str(tmp_path / "two"), resume="auto", steps=3)
    make_pictures(tmp_path / "three", ("ink",))
    before = contents(tmp_path / "run")
    with pytest.raises(CheckpointError, match="not the same any more"):
        run(instance_dir=str(tmp_path / "three"), resume="auto", steps=4)
    assert contents(tmp_path / "run") == before  # a refused run changes nothing


def test_a_run_does_not_go_on_when_its_model_has_become_another_one(run, model, tmp_path):
    shutil.copytree(model, tmp_path / "model")
    run(model=str(tmp_path / "model"))
    weights = tmp_path / "model" / "vae" / "diffusion_pytorch_model.safetensors"
    right = weights.read_bytes()
    weights.write_bytes(right[:-2] + bytes([right[-2] ^ 1]) + right[-1:])
    before = contents(tmp_path / "run")
    with pytest.raises(CheckpointError, match="files of .*model are not the same any more"):
        run(model=str(tmp_path / "model"), resume="auto", steps=4)
    assert contents(tmp_path / "run") == before
    weights.write_bytes(right)
    run(model=str(tmp_path / "model"), resume="auto", steps=3)


HOLD = """
import fcntl, sys
with open(sys.argv[1], "w") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_may_not_train_in_the_same_folder(run, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    command = [sys.executable, "-c", HOLD, str(folder / LOCK)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match="run: another process is training there"):
            run()
        assert [path.name for path in folder.iterdir()] == [LOCK]
        first.kill()
    assert run().folder == folder  # the lock went with its process
    assert not (folder / LOCK).exists()


@pytest.mark.parametrize("size", ["4k", "48k"])
def test_a_full_disk_names_the_file_of_the_run(run, tmp_path, size):
    with small_disk(tmp_path / "disk", size) as disk:
        with pytest.raises(WriteError, match="disk full") as caught:
            run(out=str(disk / "run"), checkpoint_every=1)
        assert str(disk / "run") in str(caught.value)
        assert not list(disk.rglob(".*")) and (disk / "run").exists() == (size != "4k")
