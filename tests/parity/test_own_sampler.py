"""The sampler that a model's scheduler file names is the default of `generate`, as in diffusers."""

from __future__ import annotations

import json

import diffusers
import numpy as np
import pytest
import torch

from jstyle.commands.generate import Request, generate
from jstyle.sd.config import ScheduleConfig
from jstyle.sd.pipeline import StableDiffusion
from jstyle.sd.samplers.options import Sampling
from jstyle.sd.samplers.own import own
from jstyle.sd.schedule import Schedule
from tests import tiny
from tests.tolerances import assert_close

KEEP = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
CASES = {
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": False}),
    "euler": ("EulerDiscreteScheduler", {}),
    "dpm++2m": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "unipc": ("UniPCMultistepScheduler", {"timestep_spacing": "trailing"}),
}
SILENT = [("PNDMScheduler", {"skip_prk_steps": True}), ("HeunDiscreteScheduler", {})]
SILENT += [("LCMScheduler", {}), ("EulerDiscreteScheduler", {})]


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


@pytest.mark.parametrize("kind, options", SILENT, ids=[kind for kind, _ in SILENT])
def test_what_a_file_does_not_say_is_what_its_class_takes(kind, options):
    """For its own sampler; another one takes the schedule as DDIM reads it, as in diffusers."""
    values = {"_class_name": kind, "steps_offset": 1, **options}
    theirs = getattr(diffusers, kind).from_config(values)
    sd = tiny.make_ours("sd1")
    sd.own_sampler = own(values)
    sd.schedule = Schedule(ScheduleConfig.from_json(values))
    theirs.set_timesteps(5)
    ours = sd.plan(5).levels.steps
    if kind == "PNDMScheduler":  # abar where the last step ends
        assert ours[-1].there.abar == pytest.approx(float(theirs.final_alpha_cumprod), rel=1e-6)
    else:
        t = int(theirs.timesteps[0])
        assert round(ours[0].here.t) == t
        assert ours[0].here.abar == pytest.approx(float(theirs.alphas_cumprod[t]), rel=1e-5)
    ddim = diffusers.DDIMScheduler.from_config(theirs.config, clip_sample=False)
    ddim.set_timesteps(5)
    last = sd.plan(5, sampler="ddim").levels.steps[-1]
    assert last.here.abar == pytest.approx(float(ddim.alphas_cumprod[int(last.here.t)]), rel=1e-5)
    assert last.there.abar == pytest.approx(float(ddim.final_alpha_cumprod), rel=1e-6)


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
    paths = generate(asked, _Bar, lines.append).written
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
