"""DDIM inversion: the way back, its convention, and both prediction types."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from jstyle import JStyleID, StyleConfig
from jstyle.sd import samplers, sampling
from jstyle.sd.denoiser import Denoiser
from jstyle.sd.hooks import around_attention
from jstyle.sd.schedule import Schedule
from jstyle.sd.startup import jt
from tests.pictures import picture
from tests.tiny import make_ours
from tests.tolerances import assert_close, rel_l2


@pytest.fixture(scope="module")
def sd():
    return make_ours("sd2")


def _last(loop):
    return [z for _, z in loop][-1]


def _invert(unet, schedule, z, context, steps):
    """The inversion of a model that has just these two parts."""
    denoiser = Denoiser(SimpleNamespace(unet=unet, schedule=schedule), context)
    return sampling.invert(denoiser, samplers.plan(schedule, "ddim", steps), z)


def _noise(sd, z, steps):
    return _last(sd.invert(z, sd.encode_text([""]), steps))


def test_inversion_then_sampling_returns_nearer_with_more_steps(sd):
    z = sd.encode_image(jt.array(picture(1)))
    errors = []
    for steps in (5, 20, 80):
        back = _last(sd.sample(_noise(sd, z, steps), sd.encode_text([""]), steps))
        errors.append(rel_l2(back.numpy(), z.numpy()))
    assert errors[0] > 2 * errors[1] > 4 * errors[2], errors


def test_inversion_evaluates_ascending_timesteps_on_the_level_below(sd):
    seen = []

    def unet(z, t, context):
        seen.append((t, z.numpy().mean()))
        return jt.zeros_like(z)

    # a network that answers v = 0 has x0 = sqrt(abar) z and eps = sqrt(1 - abar) z
    z, before = jt.ones((1, 4, 2, 2)), [1, 251, 501, 751]
    trail = list(_invert(unet, sd.schedule, z, jt.zeros((1, 1, 1)), 4))
    assert [t for t, _ in trail] == [t for t, _ in seen] == before
    abar = [sd.schedule.final_abar] + [float(sd.schedule.abar[t]) for t in before]
    level = 1.0
    for (_, value), here, there in zip(seen, abar[:-1], abar[1:], strict=True):
        assert value == pytest.approx(level, rel=1e-6)
        level *= (here * there) ** 0.5 + ((1 - here) * (1 - there)) ** 0.5
    assert trail[-1][1].numpy().mean() == pytest.approx(level, rel=1e-6)


def test_the_recorded_features_are_those_of_the_evaluation_at_that_timestep(sd):
    cfg = StyleConfig(steps=4)
    site = sd.unet.attention_sites()[-1]
    bank = JStyleID(sd).invert(picture(1), cfg, "k").features
    z = sd.encode_image(jt.array(picture(1)))
    context, level = sd.encode_text([""]), {}
    for t, noisy in sd.invert(z, context, 4):
        level[t], z = z, noisy
    found = []
    with around_attention(sd.unet, [site], lambda call, q, k, v: found.append(k) or call(q, k, v)):
        with jt.no_grad():
            sd.unet(level[501], 501, context).sync()
    assert np.array_equal(bank["k", site, 501].numpy(), found[0].numpy())


def test_a_v_model_and_the_epsilon_model_made_from_it_agree(sd):
    v_schedule = sd.schedule
    config = dataclasses.replace(v_schedule.config, prediction_type="epsilon")

    def epsilon_model(level_seen):
        def unet(z, t, context):
            abar = v_schedule.abar_at(level_seen(t))
            return abar**0.5 * sd.unet(z, t, context) + (1 - abar) ** 0.5 * z

        return unet

    steps, context = 10, sd.encode_text([""])
    z = sd.encode_image(jt.array(picture(1)))
    up = epsilon_model(lambda t: v_schedule.previous(t, steps))  # z stands one level below t
    noise = _noise(sd, z, steps)
    noise_e = _last(_invert(up, Schedule(config), z, context, steps))
    assert_close("styleid.v_and_epsilon", noise_e.numpy(), noise.numpy())
    down = epsilon_model(lambda t: t)
    z_v = z_e = noise
    with jt.no_grad():
        for t in map(int, v_schedule.timesteps(steps)):
            z_v = v_schedule.step(sd.unet(z_v, t, context), z_v, t, steps)
            z_e = Schedule(config).step(down(z_e, t, context), z_e, t, steps)
            jt.sync([z_v, z_e])
    assert_close("styleid.v_and_epsilon", z_e.numpy(), z_v.numpy())


def test_a_batch_is_inverted_as_its_images_are(sd):
    styler, cfg = JStyleID(sd), StyleConfig(steps=3)
    pair = np.concatenate([picture(1), picture(2)])
    both = styler.invert(pair, cfg, "").latent.numpy()
    for i in range(2):
        one = styler.invert(pair[i : i + 1], cfg, "").latent.numpy()
        assert_close("styleid.batch", both[i : i + 1], one)


def test_inference_asks_for_no_gradient_and_leaves_the_mode_alone(sd):
    loop = sd.invert(jt.ones((1, 4, 16, 16)), sd.encode_text([""]), 2)
    _, z = next(loop)
    assert z.requires_grad is False and not jt.flags.no_grad
