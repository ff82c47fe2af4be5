"""`--engine ray` on a cluster of several nodes, which are processes of this machine.

One is lost, one is slow, one has a full disk, and the disk of all is full: what is left is what one
process leaves. Slow: JSTYLE_CLUSTER=1 runs it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import threading
import time
import warnings
from collections import Counter
from pathlib import Path

import pytest

from jdreambooth.contest.config import make_config
from jdreambooth.contest.run import make_record, make_tasks, run_contest
from tests import tiny
from tests.contests import make_contest
from tests.e2e.test_ray import digests
from tests.mounts import small_disk

pytestmark = pytest.mark.skipif(
    os.environ.get("JSTYLE_CLUSTER") != "1", reason="slow; JSTYLE_CLUSTER=1 runs it"
)
VALUES = {
    "size_px": 32,
    "defaults": {
        "train": {"steps": 3, "rank": 2, "learning_rate": 1e-2},
        "generate": {"steps": 2, "guidance": 1.0, "seed": 7},
    },
}
STYLES = ("00", "01", "02", "03")


@pytest.fixture(scope="module")
def cluster():
    """Three nodes with one processor each, the first one with the driver; add(**environment) adds
    another one."""
    if importlib.util.find_spec("ray") is None:
        reason = "Ray is not installed (pip install '.[ray]')"
        warnings.warn(f"a cluster was NOT tested; {reason}", stacklevel=1)
        pytest.skip(reason)
    import ray
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80_000_000}
    made = Cluster(initialize_head=True, head_node_args=head)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def add(cluster, **environment):
    node = cluster.add_node(
        num_cpus=1, object_store_memory=80_000_000, env_vars=environment or None
    )
    cluster.wait_for_nodes()
    return node


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A contest of four styles, and the record of its run into the folder "out"."""
    folder = tmp_path_factory.mktemp("cluster")
    root, _ = make_contest(folder)
    for name, source in zip(STYLES[2:], STYLES, strict=False):
        shutil.copytree(root / source, root / name)
        prompts = {"0": f"Tower {name}", "1": "Boat"}
        (root / name / "prompt.json").write_text(json.dumps(prompts))
    tiny.make_ours("sd2").save_pretrained(folder / "model", "float32")
    config = make_config({**VALUES, "model": str(folder / "model")}, "contest.yaml", folder)
    return make_record(root, folder / "out", config)


@pytest.fixture(scope="module")
def alone(place):
    """The digests of what this process leaves."""
    found = run(place)
    assert not any(outcome.error for outcome in found[0])
    try:
        return digests(place.out.folder)
    finally:
        shutil.rmtree(place.out.folder)


def run(place, tell=lambda line: None, **how):
    lines = []

    def hear(line):
        lines.append(line)
        tell(line)

    tasks = make_tasks(place, device="cpu")
    return run_contest(place, tasks, tell=hear, **how), lines


@pytest.fixture(autouse=True)
def clean(request):
    yield
    if "place" in request.fixturenames:
        shutil.rmtree(request.getfixturevalue("place").out.folder, ignore_errors=True)


def trained(lines) -> Counter:
    """style -> how often its training was finished."""
    return Counter(line.split()[0] for line in lines if " train: " in line)


def crews(node=None) -> list[int]:
    """Processes that work on styles, of one node or of all."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (path / "cmdline").read_bytes().startswith(b"ray::Crew"):
                parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
                if node is None or parent == node.raylet_pid:
                    found.append(int(path.name))
        except OSError:
            continue
    return found


class Handle:
    """A node with the number of the process that starts its workers."""

    def __init__(self, node):
        self.node = node
        ((process,),) = [part for name, part in node.all_processes.items() if name == "raylet"]
        self.raylet_pid = process.process.pid


def test_a_lost_node_and_a_slow_one_change_nothing(cluster, place, alone):
    lost, slow = add(cluster), add(cluster)
    stop, killed = threading.Event(), []

    def drag():
        """Let the worker of the slow node run a tenth of the time."""
        handle = Handle(slow)
        while not stop.is_set():
            for pid in crews(handle):
                for number, seconds in ((signal.SIGSTOP, 0.45), (signal.SIGCONT, 0.05)):
                    try:
                        os.kill(pid, number)
                    except OSError:
                        break
                    time.sleep(seconds)
            time.sleep(0.01)

    def tell(line):
        if not killed and " train: " in line:
            killed.append(line)
            cluster.remove_node(lost)  # whatever it is at work on

    thread = threading.Thread(target=drag, daemon=True)
    thread.start()
    try:
        outcomes, lines = run(place, tell, engine="ray", jobs=3)
    finally:
        stop.set()
        thread.join()
        cluster.remove_node(slow)
    assert not [outcome.error for outcome in outcomes if outcome.error]
    assert digests(place.out.folder) == alone
    assert killed and set(trained(lines)) == set(STYLES)
    again = [line for line in lines if "another one goes on" in line]
    assert len(again) <= 1  # the node may have been idle at that moment
    assert sum(trained(lines).values()) <= len(STYLES) + len(again)


def test_a_node_with_a_full_disk_gives_its_style_to_another_one(cluster, place, alone, tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        (disk / "filler").write_bytes(bytes(1 << 16))
        full = add(cluster, HOME=str(disk), JITTOR_HOME=str(disk))
        try:
            outcomes, lines = run(place, engine="ray", jobs=2)
        finally:
            cluster.remove_node(full)
    assert not [outcome.error for outcome in outcomes if outcome.error]
    assert digests(place.out.folder) == alone
    given = [line for line in lines if "its machine cannot go on" in line]
    assert len(given) == 1 and "disk full" in given[0] and "another one goes on" in given[0]
    assert trained(lines) == Counter(STYLES)


def test_a_full_disk_of_all_is_told_and_the_next_run_goes_on(cluster, place, alone):
    with small_disk(place.out.folder, "300k") as disk:
        outcomes, _ = run(place, engine="ray", jobs=1)
        errors = [outcome.error for outcome in outcomes if outcome.error]
        assert errors and all("disk full" in error for error in errors)
        kept = {path for path in disk.rglob("stage.json") if json.loads(path.read_text())["done"]}
        assert kept
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        outcomes, lines = run(place, engine="ray", jobs=1)
        assert not [outcome.error for outcome in outcomes if outcome.error]
        assert digests(disk) == alone
        done = {path.parent.parent.name for path in kept if path.parent.name == "train"}
        assert done and not done & set(trained(lines))
