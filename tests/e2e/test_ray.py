"""`--engine ray` on one machine: what it leaves is what the engine of this process leaves."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import sys
import warnings
from pathlib import Path

import pytest

from jdreambooth.contest.engine_ray import EngineError, run_with_ray

TIMED = ("events.out", "loss.png")  # hold the time of day, and what Matplotlib makes of it


@pytest.fixture
def ray():
    if importlib.util.find_spec("ray") is None:
        reason = "Ray is not installed (pip install '.[ray]')"
        warnings.warn(f"the engine ray was NOT tested; {reason}", stacklevel=1)
        pytest.skip(reason)


def digests(folder: Path) -> dict[str, str]:
    """Relative path -> hash of every file; of manifests without the seconds that it took."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith((".", *TIMED)):
            content = path.read_bytes()
            if path.name == "stage.json":
                manifest = json.loads(content)
                del manifest["measured"]
                content = json.dumps(manifest).encode()
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()
    return found


def workers() -> list[int]:
    """Processes of this one's Ray that hold a model."""
    parents, found = {}, []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if (path / "cmdline").read_bytes().startswith(b"ray::Crew"):
                found.append(int(path.name))
        except OSError:  # ended meanwhile
            continue

    def is_ours(pid: int) -> bool:
        return pid == os.getpid() or pid in parents and is_ours(parents[pid])

    return [pid for pid in found if is_ours(pid)]


def test_ray_leaves_the_same_bytes_though_a_worker_is_lost(ray, run_contest_in, finished, tmp_path):
    folder = finished.record.out.folder
    local = digests(folder)
    folder.rename(tmp_path / "kept")  # paths are in some files: both runs have the same
    lines, killed = [], []

    def tell(line: str) -> None:
        lines.append(line)
        if not killed:
            killed.extend(workers()[:1])
            os.kill(killed[0], signal.SIGKILL)

    try:
        run_contest_in(folder.name, engine="ray", jobs=2, tell=tell)
        assert digests(folder) == local
    finally:
        shutil.rmtree(folder)
        shutil.move(tmp_path / "kept", folder)
    assert killed and sum("worker was lost; another one goes on" in line for line in lines) == 1
    told = sorted(line.split(":")[0] for line in lines if " in " in line)
    assert told == sorted(line.split(":")[0] for line in finished.lines)


def test_without_ray_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineError, match=r"pip install 'jstyle\[ray\]'"):
        list(run_with_ray([], None, print))
