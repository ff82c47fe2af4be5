"""Whole runs of every sampler against diffusers' schedulers, with the same start and noise.

diffusers' schedulers compute in float32 and get their network's output from the same analytic
denoiser. Prediction kinds that a scheduler lacks, or gets from another method than the paper's, are
given to it as eps.
"""

from __future__ import annotations

import importlib
import sys
import types
import warnings

import numpy as np
import pytest

from jstyle.sd import StableDiffusion, samplers
from jstyle.sd.schedule import PredictionType, x0_and_eps
from jstyle.sd.startup import jt
from tests import mixture, tiny
from tests.tolerances import assert_close

SIGMA_FLAGS = {None: {}, "karras": {"use_karras_sigmas": True}}
SIGMA_FLAGS["exponential"] = {"use_exponential_sigmas": True}
THEIRS = {  # name -> diffusers' class, what it is configured with, kinds of prediction it knows
    "ddim": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}, "evs"),
    "ddpm": ("DDPMScheduler", {"clip_sample": False}, "evs"),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}, "e"),
    "euler": ("EulerDiscreteScheduler", {}, "evs"),
    "euler-a": ("EulerAncestralDiscreteScheduler", {}, "ev"),
    "heun": ("HeunDiscreteScheduler", {}, "evs"),
    "lms": ("LMSDiscreteScheduler", {}, "evs"),
    "dpm2": ("KDPM2DiscreteScheduler", {}, "ev"),
    "dpm2-a": ("KDPM2AncestralDiscreteScheduler", {}, "ev"),
    "dpm++2m": ("DPMSolverMultistepScheduler", {}, "evs"),
    "dpm++2m-sde": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++"},
        "evs",
    ),
    "dpm++sde": ("DPMSolverSDEScheduler", {}, "ev"),
    "unipc": ("UniPCMultistepScheduler", {}, "evs"),
    "lcm": ("LCMScheduler", {}, "evs"),
}
WITHOUT_SIGMAS = ("euler-a",)  # diffusers' class has no such key
STEPS = (4, 12, 25)


def theirs_of(name, config, sigmas=None):
    """diffusers' scheduler of a sampler, and the module it draws noise in."""
    cls, options, kinds = THEIRS[name]
    if config["prediction_type"][0] not in kinds:
        config = config | {"prediction_type": "epsilon"}
    path = "diffusers.schedulers.scheduling_dpmsolver_sde"
    if name == "dpm++sde" and path not in sys.modules:  # imports torchsde, which it is spared
        sys.modules.setdefault("torchsde", types.ModuleType("torchsde"))
    module = path if name == "dpm++sde" else getattr(importlib.import_module("diffusers"), cls)
    module = importlib.import_module(module if isinstance(module, str) else module.__module__)
    return getattr(module, cls)(**mixture.SD, **options, **config, **SIGMA_FLAGS[sigmas]), module


def brownian(steps):
    """noise_sampler(sigma, sigma_next) of a Brownian motion in sigma, out of our normals."""
    import torch

    def sample(sigma, sigma_next):
        sigma, sigma_next = float(sigma), float(sigma_next)
        i, here, there = min(steps, key=lambda step: abs(step.here.sigma / sigma - 1))
        w = np.sqrt(here.sigma - np.sqrt(here.sigma * there.sigma)) * normals(2 * i)
        if sigma_next < 1.001 * there.sigma:
            w = w + np.sqrt(np.sqrt(here.sigma * there.sigma) - there.sigma) * normals(2 * i + 1)
        return torch.from_numpy(w / np.sqrt(sigma - sigma_next)).float()

    return sample


def normals(i, shape=None):
    """The i-th noise that both sides inject."""
    return mixture.noise(100 + i)


def run_theirs(theirs, module, out, z, num_steps, monkeypatch, kind):
    """Their run from standard normal z; out(z, t) is of `kind`. Returns (latents, evaluations)."""
    import torch

    calls = iter(range(10**6))
    if hasattr(module, "randn_tensor"):
        feed = lambda *a, **k: torch.from_numpy(normals(next(calls)))  # noqa: E731
        monkeypatch.setattr(module, "randn_tensor", feed)
    told, count = PredictionType(theirs.config.prediction_type), 0
    theirs.set_timesteps(num_steps)
    if module.__name__.endswith("_sde"):
        plan = samplers.plan(our_schedule(theirs), "dpm++sde", num_steps, sigmas_of(theirs))
        theirs.noise_sampler = brownian(plan.levels.steps[:-1])
    z = torch.from_numpy(z) * theirs.init_noise_sigma
    for t in theirs.timesteps:
        seen = theirs.scale_model_input(z, t).float()
        answer = out(seen.numpy(), float(t))
        if told is not kind:  # their scheduler does not know this kind; it gets eps
            a = float(level_of(theirs, t).abar)
            answer = x0_and_eps(answer, seen.numpy(), a, kind)[1]
        z, count = theirs.step(torch.from_numpy(np.float32(answer)), t, z).prev_sample, count + 1
    return z.numpy(), count


def our_schedule(theirs, **config):
    keys = ("prediction_type", "timestep_spacing", "steps_offset")
    return mixture.schedule(**{key: theirs.config[key] for key in keys}, **config)


def sigmas_of(theirs):
    return next((s for s, flag in SIGMA_FLAGS.items() for k in flag if theirs.config[k]), None)


def level_of(theirs, t):
    """The level of what the network sees now: by sigma where they have them, else by t."""
    sigma = getattr(theirs, "sigmas", None)
    if sigma is None or not len(sigma):
        return samplers.Level(int(t), float(theirs.alphas_cumprod[int(t)]))
    sigma = theirs.sigmas[theirs.step_index or 0]
    if not getattr(theirs, "state_in_first_order", True):
        middle = getattr(theirs, "mid_point_sigma", None)
        if hasattr(theirs, "sigmas_interpol"):
            back = 1 if "Ancestral" in type(theirs).__name__ else 0
            middle = theirs.sigmas_interpol[theirs.step_index - back]
        sigma = sigma if middle is None else middle
    return samplers.Level(float(t), 1 / (1 + float(sigma) ** 2))


def runs(name, sigmas):
    """(kind, spacing): every kind of prediction and every spacing once, in turns."""
    spacings = ("leading", "trailing", "linspace")
    if name == "pndm":  # elsewhere the levels of diffusers' first two evaluations do not meet
        spacings = ("leading", "trailing", "leading")
    if name == "lcm":  # has a spacing of its own
        spacings = ("leading",) * 3
    turn = len(name) + len(sigmas or "")
    return [(kind, spacings[(i + turn) % 3]) for i, kind in enumerate(PredictionType)]


CASES = [
    (name, sigmas)
    for name in THEIRS
    for sigmas in (None, *(() if name in WITHOUT_SIGMAS else samplers.SAMPLERS[name].sigmas))
]


def both(name, sigmas, config, steps, monkeypatch):
    """(ours, theirs, evaluations of both) for every number of steps."""
    ours = mixture.schedule(**config, set_alpha_to_one=False)
    kind, out = ours.kind, mixture.network(ours)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, module = theirs_of(name, config, sigmas)
    for n in steps:
        plan, seen = samplers.plan(ours, name, n, sigmas), []
        denoise = mixture.told_by(lambda z, t, seen=seen: seen.append(t) or out(z, t), ours)
        *_, (_, z) = plan.walk(mixture.noise(), denoise, normals)
        want, count = run_theirs(theirs, module, out, mixture.noise(), n, monkeypatch, kind)
        assert len(seen) == count == plan.evaluations
        yield z, want


@pytest.mark.parametrize("name, sigmas", CASES)
def test_whole_runs_are_those_of_diffusers(name, sigmas, monkeypatch):
    for kind, spacing in runs(name, sigmas):
        config = {"prediction_type": kind.value, "timestep_spacing": spacing, "steps_offset": 1}
        for z, want in both(name, sigmas, config, STEPS, monkeypatch):
            assert_close(f"sampler.{name}", z, want)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "euler", "euler-a", "dpm++2m", "unipc", "lcm"])
def test_a_schedule_that_ends_in_pure_noise(name, monkeypatch):
    config = {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    zero = config | {"rescale_betas_zero_snr": True}
    theirs, module = theirs_of(name, zero)
    ours = mixture.schedule(**config)
    ours.abar = np.append(theirs.alphas_cumprod.numpy().astype(np.float64)[:-1], 0.0)
    ours.final_abar = float(getattr(theirs, "final_alpha_cumprod", 1.0))
    out = mixture.network(ours)
    z = mixture.noise()
    for n in (4, 12):
        plan = samplers.plan(ours, name, n)
        assert plan.levels.steps[0].here.abar <= 2.0**-24
        *_, (_, got) = plan.walk(z, mixture.told_by(out, ours), normals)
        want, _ = run_theirs(theirs, module, out, z, n, monkeypatch, ours.kind)
        assert_close("sampler.zero_snr", got, want)


@pytest.fixture(scope="module")
def tiny_pair(tiny_folder):
    return StableDiffusion.from_pretrained(tiny_folder("sd2")), tiny.make_theirs("sd2")


@pytest.mark.parametrize("name, sigmas", [("dpm++2m", "karras"), ("dpm2-a", None), ("pndm", None)])
def test_a_networks_run_gives_the_same_latents(tiny_pair, name, sigmas, monkeypatch):
    import torch

    sd, pipeline = tiny_pair
    z, context = mixture.noise()[:, :, :4, :4].repeat(4, 2).repeat(2, 3), sd.encode_text(["a cat"])
    context = jt.concat([context, context])
    config = {"prediction_type": "v_prediction", "timestep_spacing": "leading", "steps_offset": 1}
    theirs, module = theirs_of(name, config, sigmas)
    torch_context = torch.from_numpy(context.numpy())

    def out(z, t):
        with torch.no_grad():
            return pipeline.unet(torch.from_numpy(z), t, torch_context).sample.numpy()

    def denoise(z, level):
        with jt.no_grad():
            answer = sd.unet(z, level.t, context)
        return x0_and_eps(answer, z, level.abar, sd.schedule.kind)

    tile = lambda x: x[:, :, :4, :4].repeat(4, 2).repeat(2, 3)  # noqa: E731
    noise = lambda i, shape: jt.array(tile(normals(i)))  # noqa: E731
    *_, (_, got) = samplers.plan(sd.schedule, name, 4, sigmas).walk(jt.array(z), denoise, noise)
    monkeypatch.setattr(sys.modules[__name__], "normals", lambda i: tile(mixture.noise(100 + i)))
    want, _ = run_theirs(theirs, module, out, z, 4, monkeypatch, sd.schedule.kind)
    assert_close("sampler.unet", got.numpy(), want)
