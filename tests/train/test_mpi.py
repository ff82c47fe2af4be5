"""One run on two processes: `mpirun -np 2 jdreambooth train`, with Jittor's own MPI on the CPU."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest

from jdreambooth.checkpoint import load_state
from jdreambooth.ranks import OTHER_LAUNCHERS
from jstyle.sd import toolchain
from jstyle.sd.startup import StartupError
from tests.cli.conftest import environment
from tests.tolerances import TOLERANCES, rel_l2
from tests.train.test_every_option import outcome

PRIOR = {"prior_weight": 0.5, "class_prompt": "a picture", "num_class_images": 2}
OPTIONS = {"steps": 4, "size_px": 64, "learning_rate": 1e-3, "random_flip": True, **PRIOR}
WORKER = """
import json, sys
import numpy as np
from jdreambooth.config import TrainConfig
from jdreambooth.train import Run
from jstyle.sd import runtime
from jstyle.sd.startup import jt
from tests import tiny
assert jt.world_size == 2
for options in json.loads(sys.argv[1]):
    with runtime.use("cpu"):
        run = Run(TrainConfig(**options), None, None, tiny.make_ours("sd2"))
        run.go()
        values = {name: tensor.numpy() for name, tensor in run._tensors().items()}
        batches = [run.data.batch(0, micro).noise for micro in range(run.cfg.accumulation)]
    np.savez(f"{options['out']}.{jt.rank}.npz", noise=np.concatenate(batches), **values)
"""


@pytest.fixture
def mpirun():
    """mpirun(words, ...) -> CompletedProcess of two processes; skips loudly where it cannot."""
    missing = [name for name in ("mpirun", "mpicc") if shutil.which(name) is None]
    if missing:
        reason = f"not installed: {', '.join(missing)} (apt install openmpi-bin libopenmpi-dev)"
        warnings.warn(f"training on two processes was NOT tested; {reason}", stacklevel=1)
        pytest.skip(reason)

    def start(words):
        allow = ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM")
        env = environment(OMP_NUM_THREADS="1", **dict.fromkeys(allow, "1"))
        command = ["mpirun", "-np", "2", "--oversubscribe", sys.executable, *map(str, words)]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)

    return start


def test_two_processes_train_what_one_does_with_all_their_batches(mpirun, run, config, tmp_path):
    def of(name, **options):
        out = str(tmp_path / name)
        return config(**{**OPTIONS, "accumulation": 2, "out": out, **options}).to_json()

    runs = [of("straight"), of("parts", steps=2), of("parts", resume="auto")]
    done = mpirun(["-c", WORKER, json.dumps(runs)])
    assert done.returncode == 0, done.stderr
    whole = run(**{**OPTIONS, "batch": 4, "out": str(tmp_path / "whole")}).folder

    ranks = [np.load(tmp_path / f"straight.{rank}.npz") for rank in range(2)]
    for name in ranks[0].files:  # the same bytes but for the data, of which none is the same
        same = ranks[0][name].tobytes() == ranks[1][name].tobytes()
        assert same == (name != "noise"), name
    want = load_state(whole / "checkpoints" / "step-000004").tensors
    for kind in ("value", "m"):  # m is linear in the gradients, values follow their signs
        names = [name for name in want if name.startswith(f"{kind}/")]
        error = max(rel_l2(ranks[0][name], want[name]) for name in names)
        assert error <= TOLERANCES[f"train.ranks_{kind}"].limit, error

    lines = {
        name: [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").open()]
        for name in ("straight", "whole")
    }
    for a, b in zip(lines["straight"], lines["whole"], strict=True):  # a line of one writer
        for name in ("loss", "instance", "prior", "grad_norm"):
            assert a[name] == pytest.approx(b[name], rel=1e-4)
    straight = outcome(tmp_path / "straight")
    assert straight.keys() == outcome(whole).keys()

    parts = outcome(tmp_path / "parts")
    assert {name: parts[name] for name in straight} == straight
    with pytest.raises(ValueError, match="by 2 processes and cannot go on with 1"):
        run(**{**OPTIONS, "accumulation": 2, "out": str(tmp_path / "parts"), "resume": "auto"})


def test_bad_input_is_told_once_and_ends_all_processes(mpirun, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").touch()  # only the first process looks at it
    words = ["--instance-dir", tmp_path, "--instance-prompt", "x", "--out", tmp_path / "run"]
    done = mpirun(["-m", "jdreambooth", "train", *words])
    assert done.returncode == 2
    told = [line for line in done.stderr.splitlines() if "error:" in line]
    assert len(told) == 1 and "holds a run already" in told[0] and "process 1" not in done.stderr


def test_mpirun_without_a_compiler_for_jittors_mpi_is_one_line(pictures, tmp_path):
    words = ["--instance-dir", pictures, "--instance-prompt", "x", "--out", tmp_path / "run"]
    command = [sys.executable, "-m", "jdreambooth", "train", *map(str, words)]
    env = environment(OMPI_COMM_WORLD_SIZE="2", OMPI_COMM_WORLD_RANK="0", mpicc_path="nowhere")
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and "apt install libopenmpi-dev" in done.stderr
    assert not (tmp_path / "run").exists()


def test_commands_for_one_process_refuse_several():
    env = environment(OMPI_COMM_WORLD_SIZE="2", OMPI_COMM_WORLD_RANK="0")
    command = [sys.executable, "-m", "jdreambooth", "contest", "run", "root", "--out", "out"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 2 and "contest: error: works in one process" in done.stderr


def test_mpi_that_is_switched_off_is_named(monkeypatch):
    monkeypatch.setenv("use_mpi", "0")
    assert "use_mpi=0 is in the environment" in toolchain.mpi_problem()


@pytest.mark.parametrize("name", OTHER_LAUNCHERS)
def test_processes_that_another_launcher_started_do_not_write_into_one_run(name, monkeypatch, run):
    monkeypatch.setenv(name, "2")
    with pytest.raises(StartupError, match="2 processes were started, but not by the mpirun of"):
        run()
