"""One process at a time in a folder: the lock is a file that goes with its process."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from jstyle.sd.files import WriteError
from jstyle.sd.locks import Taken, holding

HOLD = """
import sys, time
from pathlib import Path
from jstyle.sd.locks import holding
with holding(Path(sys.argv[1]), wait=True):
    print("held", flush=True)
    if sys.argv[2:]:
        time.sleep(float(sys.argv[2]))
    else:
        sys.stdin.read()
"""


@pytest.fixture
def hold():
    """hold(path, seconds) -> a process that holds the lock; until it is ended without seconds."""
    started = []

    def start(path, *seconds):
        words = [sys.executable, "-c", HOLD, str(path), *map(str, seconds)]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_lock_is_waited_for_or_refused_and_its_file_goes_with_it(hold, tmp_path):
    path = tmp_path / ".lock"
    hold(path, 1.0)
    with pytest.raises(Taken), holding(path, wait=False):
        pass
    begun = time.monotonic()
    with holding(path, wait=True):
        assert time.monotonic() - begun > 0.3 and path.exists()
    assert os.listdir(tmp_path) == []
    with holding(path, wait=False):
        pass


def test_a_killed_process_holds_nothing_any_more(hold, tmp_path):
    path = tmp_path / ".lock"
    process = hold(path)
    process.kill()
    process.wait()
    with holding(path, wait=False):
        with pytest.raises(AssertionError):  # another one is refused meanwhile
            hold_at_once(path)
    assert os.listdir(tmp_path) == []


def hold_at_once(path):
    code = "import sys; from pathlib import Path; from jstyle.sd.locks import holding\n"
    code += "with holding(Path(sys.argv[1]), wait=False): pass"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(WriteError, match="none/.lock: its folder is not there"):
        with holding(tmp_path / "none" / ".lock", wait=True):
            pass
