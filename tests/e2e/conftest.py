"""A contest of two styles, run to its end with a tiny model of random weights."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from jdreambooth.contest.config import make_config
from jdreambooth.contest.run import make_record, make_tasks, run_contest
from tests import tiny
from tests.contests import make_contest

VALUES = {
    "size_px": 32,
    "defaults": {
        "train": {"steps": 3, "save_at": "2", "rank": 2, "learning_rate": 1e-2},
        "generate": {"steps": 2, "guidance": 1.0, "seed": 7},
    },
    "styles": {
        "00": {
            "train": {"prior_weight": 1.0, "class_prompt": "a picture", "num_class_images": 1}
            | {"class_steps": 1, "class_guidance": 1.0},
            "pick": {"prompts": 2, "steps": 1, "guidance": 1.0, "draws": 1},
            "refine": {"steps": 2, "style_image": "moon"},
        }
    },
}


class Finished(NamedTuple):
    record: object
    lines: list[str]  # what was told meanwhile


@pytest.fixture(scope="session")
def run_contest_in(tmp_path_factory):
    """run_contest_in(out, **how) -> Finished of a run into that folder; how: as for run_contest."""
    folder = tmp_path_factory.mktemp("contest")
    root, _ = make_contest(folder)
    tiny.make_ours("sd2").save_pretrained(folder / "model", "float32")
    config = make_config({**VALUES, "model": str(folder / "model")}, "contest.yaml", folder)

    def run(out: str, **how) -> Finished:
        record, lines = make_record(root, folder / out, config), []
        done = run_contest(
            record, make_tasks(record, device="cpu"), **{"tell": lines.append, **how}
        )
        assert not [outcome.error for outcome in done if outcome.error]
        return Finished(record, lines)

    return run


@pytest.fixture(scope="session")
def finished(run_contest_in):
    """By the engine of this process."""
    return run_contest_in("out")
