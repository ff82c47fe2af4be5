"""The sampler that a model's scheduler file names is the default of `generate`, as in diffusers."""

from __future__ import annotations

import json

import diffusers
import numpy as np
import pytest
import torch

from jstyle.commands.generate import Request, generate
from jstyle.sd.pipeline import StableDiffusion
from jstyle.sd.samplers.options import Sampling
from tests import tiny
from tests.tolerances import assert_close

KEEP = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
CASES = {
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": False}),
    "euler": ("EulerDiscreteScheduler", {}),
    "dpm++2m": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "unipc": ("UniPCMultistepScheduler", {"timestep_spacing": "trailing"}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_picture_is_that_of_the_pipeline_with_its_own_scheduler(name, tmp_path):
    kind, options = CASES[name]
    common = {key: tiny.config("sd1", "scheduler")[key] for key in KEEP}
    theirs = tiny.make_theirs("sd1")
    theirs.scheduler = getattr(diffusers, kind)(**common, steps_offset=1, **options)
    folder = tmp_path / "model"
    tiny.make_ours("sd1").save_pretrained(folder, "float32")
    theirs.scheduler.save_pretrained(folder / "scheduler")
    sd = StableDiffusion.from_pretrained(folder)
    assert sd.own_sampler.sampler == name
    how = {"num_inference_steps": 6, "guidance_scale": 5.0, "height": 64, "width": 64}
    noise = torch.Generator().manual_seed(3)
    want = theirs("a star", generator=noise, output_type="np", **how).images * 2 - 1
    got = sd.generate("a star", 3, 6, 5.0, height=64, width=64, rng="torch-cpu").numpy()
    assert_close("pipeline image with its own sampler", got.transpose(0, 2, 3, 1), want)


def test_the_name_is_told_and_recorded(tmp_path, capsys):
    folder = tmp_path / "model"
    tiny.make_ours("sd2").save_pretrained(folder, "float32")
    path = folder / "scheduler" / "scheduler_config.json"
    config = {**json.loads(path.read_text()), "_class_name": "HeunDiscreteScheduler"}
    path.write_text(json.dumps(config))
    lines = []
    how = Sampling(steps=3, guidance=1.0)
    asked = Request(
        ["a star"], str(tmp_path / "a.png"), how, model=str(folder), device="cpu",
        height=32, width=32,
    )  # fmt: skip
    paths = generate(asked, _Bar, lines.append)
    assert lines == ["sampler heun, as the model's scheduler file says"]
    assert json.loads(paths[0].with_suffix(".json").read_text())["config"]["sampler"] == "heun"
    assert (_Bar.total, _Bar.done) == (5, 5)  # 2 x 3 - 1 evaluations


class _Bar:
    def __init__(self, total):
        _Bar.total, _Bar.done = total, 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def update(self):
        _Bar.done += 1


def test_stochastic_samplers_draw_pytorchs_noise_after_the_first(tmp_path):
    common = {key: tiny.config("sd1", "scheduler")[key] for key in KEEP}
    theirs = tiny.make_theirs("sd1")
    theirs.scheduler = diffusers.DDIMScheduler(
        **common, steps_offset=1, clip_sample=False, set_alpha_to_one=False
    )
    noise = torch.Generator().manual_seed(3)
    how = {"num_inference_steps": 5, "guidance_scale": 1.0, "height": 64, "width": 64, "eta": 1.0}
    want = theirs("a star", generator=noise, output_type="np", **how).images * 2 - 1
    sd = tiny.make_ours("sd1")
    got = sd.generate(
        "a star", 3, 5, 1.0, height=64, width=64, rng="torch-cpu", sampler="ddim", eta=1.0
    ).numpy()
    assert_close("pipeline image with its own sampler", got.transpose(0, 2, 3, 1), want)
    assert not np.isnan(got).any()
