"""Styles spread over processes: one that fails or is lost takes no other with it."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time

import pytest

from jdreambooth.contest.config import read_config
from jdreambooth.contest.engines import check_engine, gpus, run_styles
from jdreambooth.contest.folders import Out, locked
from jdreambooth.contest.task import Setup, Task
from jstyle.score.layout import Style


@pytest.fixture
def tasks(tmp_path):
    """Three tasks whose references are not there: each fails at once, without a model."""
    setup = Setup(Out(tmp_path / "out"), "tiny", None, "fingerprint")
    missing = (tmp_path / "fox.png",)
    names = ("00", "01", "02")
    options = read_config(None)
    return [Task(setup, Style(n, missing, ("Cup",)), options.style(n)) for n in names]


def test_a_style_that_fails_says_why_and_the_others_have_their_turn(tasks):
    found = list(run_styles(tasks))
    assert sorted(outcome.style for outcome in found) == ["00", "01", "02"]
    assert all("fox.png" in outcome.error and not outcome.made for outcome in found)


def test_a_process_that_is_lost_fails_its_style_only(tasks):
    found, others = [], set(multiprocessing.active_children())
    with locked(tasks[0].setup.out.style("00")):  # its worker waits for this
        runner = threading.Thread(target=lambda: found.extend(run_styles(tasks, jobs=2)))
        runner.start()
        until = time.monotonic() + 120
        while len(found) < 2 or len(set(multiprocessing.active_children()) - others) > 1:
            assert runner.is_alive() and time.monotonic() < until, found
            time.sleep(0.01)
        (waiting,) = set(multiprocessing.active_children()) - others
        waiting.kill()
        runner.join(30)
    assert not runner.is_alive()
    errors = {outcome.style: outcome.error for outcome in found}
    assert "fox.png" in errors["01"] and "fox.png" in errors["02"]
    assert f"exit code -{signal.SIGKILL:d}" in errors["00"]


def test_engines_and_jobs_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="engine must be local or ray, got 'dask'"):
        check_engine("dask", 1)
    with pytest.raises(ValueError, match="jobs must be an integer from 1 to 1024, got 0"):
        check_engine("local", 0)


def test_visible_gpus_are_dealt_out_by_name(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    assert gpus() == ["3", "5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus() == []
