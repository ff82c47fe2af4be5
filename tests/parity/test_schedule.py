"""Timesteps and DDIM steps against diffusers' DDIMScheduler."""

from __future__ import annotations

import inspect
import itertools

import numpy as np
import pytest

from jstyle.sd.config import ScheduleConfig, UNetConfig, VAEConfig
from jstyle.sd.noise import gaussian
from jstyle.sd.schedule import Schedule, add_noise, timesteps
from tests.tolerances import assert_close

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SPACINGS = ("leading", "trailing", "linspace")
SHAPE = (2, 4, 5, 6)
STEP_CONFIGS = [
    {"prediction_type": kind, "set_alpha_to_one": to_one, "timestep_spacing": spacing}
    for kind, to_one, spacing in itertools.product(
        ("epsilon", "v_prediction", "sample"), (True, False), SPACINGS
    )
]


def reference(**config):
    from diffusers import DDIMScheduler

    return DDIMScheduler(**config, clip_sample=False)


def both_steps(config, theirs, n):
    """(ours, reference) results of one step at every timestep of an n-step run."""
    import torch

    ours = Schedule(ScheduleConfig(**config))
    theirs.set_timesteps(n)
    for t in ours.timesteps(n).tolist():
        z, out = gaussian(SHAPE, t), gaussian(SHAPE, t + 1000)
        step = theirs.step(torch.from_numpy(out), t, torch.from_numpy(z))
        yield ours.step(out, z, t, n), step.prev_sample.numpy()


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("count", [1000, 37])
def test_timesteps_are_those_of_diffusers(spacing, offset, count):
    config = {"timestep_spacing": spacing, "steps_offset": offset, "num_train_timesteps": count}
    theirs = reference(**SD, **config)
    for n in (1, 2, 3, 4, 7, 10, 20, 30, 36, 37, 49, 50, 61, 99, 100, 333, 500, 667, 999):
        if n > count or (spacing, offset, n) == ("leading", 1, count):
            continue  # refused by ours
        theirs.set_timesteps(n)
        expected = theirs.timesteps.numpy()
        # diffusers' rounding appends timestep -1 to some trailing lists; ours drops it
        assert (expected >= 0).all() or (spacing == "trailing" and len(expected) == n + 1)
        np.testing.assert_array_equal(
            timesteps(ScheduleConfig(**SD, **config), n), expected[expected >= 0]
        )


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear"])
def test_abar_is_that_of_diffusers(schedule):
    config = SD | {"beta_schedule": schedule}
    theirs = reference(**config).alphas_cumprod.numpy()
    assert_close("schedule.abar", Schedule(ScheduleConfig(**config)).abar, theirs)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear"])
def test_abar_with_zero_terminal_snr_is_that_of_diffusers(schedule):
    config = SD | {"beta_schedule": schedule, "rescale_betas_zero_snr": True}
    theirs = reference(**config).alphas_cumprod.numpy()
    ours = Schedule(ScheduleConfig(**config)).abar
    assert theirs[-1] == ours[-1] == 0.0
    assert_close("schedule.abar", ours, theirs)


@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_steps_with_zero_terminal_snr_are_those_of_diffusers(kind, spacing):
    config = SD | {"prediction_type": kind, "timestep_spacing": spacing, "steps_offset": 1}
    config["rescale_betas_zero_snr"] = True
    for n in (1, 7, 50):
        for ours, theirs in both_steps(config, reference(**config), n):
            assert_close(f"schedule.step.{kind}", ours, theirs)


@pytest.mark.parametrize("name", ["DDIMScheduler", "PNDMScheduler"])
@pytest.mark.parametrize("old", [{}, {"steps_offset": 0, "clip_sample": True}])
def test_old_files_are_put_right_as_by_the_pipeline_of_diffusers(name, old):
    import diffusers
    import torch

    from tests import tiny

    old = {"num_train_timesteps": 1000, "_diffusers_version": "0.2.4", **SD, **old}
    theirs = tiny.make_theirs("sd1")
    scheduler = getattr(diffusers, name).from_config(old)
    parts = {k: v for k, v in theirs.components.items() if k != "scheduler"}
    pipeline = diffusers.StableDiffusionPipeline(
        **parts, scheduler=scheduler, requires_safety_checker=False
    )
    ours = Schedule(ScheduleConfig.from_json({"_class_name": name, **old}))
    assert ours.config.steps_offset == pipeline.scheduler.config.steps_offset == 1
    assert not pipeline.scheduler.config.get("clip_sample", False)
    if name == "DDIMScheduler":
        pipeline.scheduler.set_timesteps(7)
        np.testing.assert_array_equal(ours.timesteps(7), pipeline.scheduler.timesteps.numpy())
        z, out = gaussian(SHAPE, 1), gaussian(SHAPE, 2)
        step = pipeline.scheduler.step(torch.from_numpy(out), 1, torch.from_numpy(z))
        assert_close("schedule.step.epsilon", ours.step(out, z, 1, 7), step.prev_sample.numpy())


@pytest.mark.parametrize("config", STEP_CONFIGS)
def test_steps_are_those_of_diffusers(config):
    config = SD | config | {"steps_offset": 1}
    name = f"schedule.step.{config['prediction_type']}"
    for n in (1, 7, 50):
        for ours, theirs in both_steps(config, reference(**config), n):
            assert_close(name, ours, theirs)


@pytest.mark.parametrize("config", STEP_CONFIGS)
def test_steps_agree_closer_when_diffusers_has_a_float64_table(config):
    config = SD | config | {"steps_offset": 1}
    import torch

    theirs = reference(**config)
    table = Schedule(ScheduleConfig(**config)).abar
    theirs.alphas_cumprod = torch.from_numpy(table)
    if not config["set_alpha_to_one"]:
        theirs.final_alpha_cumprod = theirs.alphas_cumprod[0]
    else:
        theirs.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    for ours, expected in both_steps(config, theirs, 50):
        assert_close("schedule.step.float64_table", ours, expected)


def test_added_noise_is_that_of_diffusers():
    import torch

    x0, eps, ts = gaussian(SHAPE, 1), gaussian(SHAPE, 2), np.array([3, 981])
    theirs = reference(**SD).add_noise(*map(torch.from_numpy, (x0, eps, ts))).numpy()
    abar = Schedule(ScheduleConfig(**SD)).abar[ts].reshape(2, 1, 1, 1)
    assert_close("schedule.add_noise", add_noise(x0, eps, abar), theirs)


@pytest.mark.parametrize(
    "cls, name",
    [
        (UNetConfig, "UNet2DConditionModel"),
        (VAEConfig, "AutoencoderKL"),
        (ScheduleConfig, "DDIMScheduler"),
    ],
)
def test_every_key_of_the_reference_is_known_and_its_default_is_ours(cls, name):
    import diffusers

    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters
    defaults = {key: p.default for key, p in parameters.items() if key != "self"}
    # null there; never clipped here; old files are put right
    for fields_of_ours in ("sample_size", "clip_sample", "steps_offset"):
        defaults.pop(fields_of_ours, None)
    written = {k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()}
    if cls is ScheduleConfig:
        assert cls.from_json({"_class_name": name, **written}) == cls(steps_offset=1)
    else:
        assert cls.from_json({"_class_name": name, **written}) == cls()
