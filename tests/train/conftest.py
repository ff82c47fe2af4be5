"""Runs of a few real steps on a tiny model."""

from __future__ import annotations

import pytest

from jdreambooth.config import TrainConfig
from jstyle.sd import image
from tests import tiny
from tests.pictures import picture

BASICS = {
    "instance_prompt": "{stem} in red",
    "device": "cpu",
    "size_px": 32,
    "steps": 2,
    "rank": 2,
    "learning_rate": 1e-2,
    "class_steps": 1,
    "class_guidance": 1.0,
    "num_class_images": 1,
}


def make_pictures(folder, names=("Red_hill_", "lake", "tree"), height=40, width=56):
    folder.mkdir(exist_ok=True)
    for name in names:
        pixels = image.to_uint8(picture(sum(map(ord, name)), height, width))[0]
        image.save_png(folder / f"{name}.png", pixels)
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder with three pictures, wider than high."""
    return make_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A tiny v_prediction model in diffusers format."""
    folder = tmp_path_factory.mktemp("model")
    tiny.make_ours("sd2").save_pretrained(folder, "float32")
    return folder


@pytest.fixture
def config(tmp_path, pictures):
    """config(rank=4, ...) -> TrainConfig of a short run into tmp_path / "run"."""

    def make(**options):
        basics = {"instance_dir": str(pictures), "out": str(tmp_path / "run"), **BASICS}
        if "captions" in options:
            basics.pop("instance_prompt")
        return TrainConfig(**{**basics, **options})

    return make


@pytest.fixture
def run(config):
    """run(rank=4, ...) -> RunReport of a run on a fresh tiny model.

    kind: of the model. Keywords on_sample, progress and sd are those of `train`.
    """
    from jdreambooth.train import train

    def start(kind="sd2", on_sample=None, progress=None, sd=None, **options):
        cfg = config(**options)
        return train(cfg, progress, on_sample, sd or tiny.make_ours(kind))

    return start
