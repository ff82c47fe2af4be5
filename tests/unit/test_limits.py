"""Counts have an upper end that is named, before anything is made."""

from __future__ import annotations

import pytest

from jdreambooth.config import TrainConfig
from jdreambooth.contest.engines import check_engine
from jdreambooth.contest.options import PickOptions, refine_options
from jdreambooth.identifiers import rare_identifiers
from jdreambooth.make_drawings import make_drawings
from jdreambooth.recipe import Recipe
from jdreambooth.verdict import PickConfig
from jstyle.commands import generate, stylize
from jstyle.commands.parity import Request
from jstyle.config import StyleConfig
from jstyle.sd import limits
from jstyle.sd.samplers.options import Sampling

HUGE = 10**30


def _train(**values):
    return TrainConfig("a", "b", instance_prompt="c", **values)


def _draw(**values):
    return make_drawings("nowhere", "star", **values)


def _generate(**values):
    return generate.Request(["a"], "nowhere", **values)


TRAIN = "size_px rank num_class_images random_crops seed class_steps sample_steps batch"
TRAIN += " accumulation steps sample_every warmup_steps checkpoint_every keep_checkpoints"
COUNTS = {
    _train: TRAIN.split(),
    StyleConfig: ["steps", "size_px"],
    refine_options("styleid"): ["steps", "size_px", "style_seed"],
    Recipe: ["seed", "steps"],
    PickConfig: ["seeds", "seed", "steps", "draws"],
    PickOptions: ["prompts"],
    Request: ["steps", "seed", "size_px"],
    _draw: ["count", "seed", "size_px"],
    Sampling: ["steps"],
    _generate: ["seed", "height", "width"],
}


@pytest.mark.parametrize(
    ("make", "name"), [(make, name) for make, names in COUNTS.items() for name in names]
)
@pytest.mark.parametrize("value", [HUGE, -1, 1.5, True])
def test_every_count_names_its_bounds(make, name, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match=rf"{name} must be an integer from \d+ to \d+, got {value}"
    ):
        make(**{name: value})
    assert not list(tmp_path.iterdir())


def test_counts_outside_of_dataclasses_are_bounded_too():
    told = "must be an integer from 1 to"
    with pytest.raises(ValueError, match=f"jobs {told} 1024"):
        check_engine("local", HUGE)
    with pytest.raises(ValueError, match=f"batch {told} 1024"):
        stylize.Request("a", "b", "c", StyleConfig(), batch=HUGE)
    with pytest.raises(ValueError, match=f"count {told} 100000"):
        rare_identifiers(None, HUGE)


def test_the_bounds_themselves_are_allowed():
    limits.require_whole("n", 3, 3, 5)
    limits.require_whole("n", 5, 3, 5)
    for value in (2, 6, "4", None):
        with pytest.raises(ValueError, match="n must be an integer from 3 to 5"):
            limits.require_whole("n", value, 3, 5)
    with pytest.raises(ValueError, match="thousands of digits"):
        limits.require_whole("n", 10**5000, 3, 5)
