"""Tests here run on the emulated CUDA device, and are skipped, loudly, where it is not made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.cuda import laboratory

HERE = Path(__file__).resolve().parent
WITHOUT = "test_stand_in.py"  # what needs no device


class Results(NamedTuple):
    """Of one program, by name. counts: of everything that it did on CUDA."""

    cuda: dict[str, np.ndarray]
    cpu: dict[str, np.ndarray]
    counts: dict[str, int]
    folder: Path

    def pairs(self, *words: str):
        """(CUDA, CPU) of each result whose name holds all the words. At least one."""
        names = [n for n in self.cuda if all(word in n.split() for word in words)]
        assert names and all(np.isfinite(self.cuda[n]).all() for n in names), (words, names)
        return [(self.cuda[n], self.cpu[n]) for n in names]


def pytest_collection_modifyitems(items):
    missing = laboratory.missing()
    for item in items:
        path = Path(item.fspath)
        if HERE not in path.parents or path.name == WITHOUT:
            continue
        item.add_marker(pytest.mark.cuda_emulated)
        item.add_marker(pytest.mark.slow)
        if missing:
            item.add_marker(pytest.mark.skip(reason=missing))


def pytest_terminal_summary(terminalreporter):
    skipped = terminalreporter.stats.get("skipped", [])
    skipped = [r for r in skipped if "cuda_emulated" in r.keywords]
    if skipped and laboratory.missing():
        terminalreporter.section("EMULATED CUDA SKIPPED")
        terminalreporter.line(f"{len(skipped)} tests did NOT run: {laboratory.missing()}")


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """results("networks") -> Results of that program, which runs once."""
    known: dict[str, Results] = {}

    def get(name: str) -> Results:
        if name not in known:
            folder = tmp_path_factory.mktemp(name)
            done = laboratory.run("-m", "tests.cuda.program", name, str(folder))
            assert done.returncode == 0, done.stderr[-3000:]
            sides = [dict(np.load(folder / f"{device}.npz")) for device in ("cuda", "cpu")]
            counts = json.loads((folder / "counts.json").read_text())["cuda"]
            known[name] = Results(*sides, counts, folder)
        return known[name]

    return get
