"""One model for all styles of a process: every style finds it as if it had been loaded afresh."""

from __future__ import annotations

import numpy as np
import pytest

from jdreambooth import runs
from jdreambooth.contest.folders import Out
from jdreambooth.contest.task import Setup
from jdreambooth.contest.worker import Worker
from jdreambooth.trainables import find_trainable
from jstyle.sd.startup import jt


@pytest.fixture
def worker_and_setup(model, tmp_path):
    return Worker(), Setup(Out(tmp_path), str(model), None, "fingerprint")


def output(sd) -> np.ndarray:
    z = jt.array(np.linspace(-1, 1, 4 * 8 * 8, dtype=np.float32).reshape(1, 4, 8, 8))
    with jt.no_grad():
        return sd.unet(z, 500, sd.encode_text(["a hill in red"])).numpy()


def test_a_lora_is_put_on_and_taken_off_without_a_trace(worker_and_setup, run, model):
    worker, setup = worker_and_setup
    before = output(worker.plain(setup))
    sd = worker.for_training(setup, find_trainable("lora"))
    found = runs.open_run(run(sd=sd, steps=2, save_at=[1], model=str(model)).folder)
    first, last = (output(worker.trained(setup, found, step)) for step in (1, 2))
    assert len({values.tobytes() for values in (before, first, last)}) == 3
    np.testing.assert_array_equal(output(worker.trained(setup, found, 1)), first)
    np.testing.assert_array_equal(output(runs.load_model(found, 2)), last)
    np.testing.assert_array_equal(output(worker.trained(setup, found, None)), before)
    np.testing.assert_array_equal(output(worker.plain(setup)), before)
    assert worker.loads == 1


def test_a_model_that_was_trained_itself_is_loaded_anew(worker_and_setup, run, model):
    worker, setup = worker_and_setup
    before = output(worker.plain(setup))
    sd = worker.plain(setup)
    found = runs.open_run(run(sd=sd, steps=1, train="kv", model=str(model)).folder)
    worker.forget_model()
    np.testing.assert_array_equal(output(worker.plain(setup)), before)
    assert np.abs(output(worker.trained(setup, found, 1)) - before).max() > 1e-5
    np.testing.assert_array_equal(output(worker.plain(setup)), before)
    assert worker.loads == 4
