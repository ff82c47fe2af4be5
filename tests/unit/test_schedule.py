"""Noise schedule and DDIM algebra: worked examples, and moves that undo each other."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jstyle.sd.config import ScheduleConfig
from jstyle.sd.noise import gaussian
from jstyle.sd.schedule import (
    PredictionType,
    Schedule,
    add_noise,
    alphas_cumprod,
    ddim_move,
    target,
    timesteps,
    x0_and_eps,
    zero_terminal_snr,
)
from jstyle.sd.startup import jt
from tests.tolerances import assert_close

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SHAPE = (2, 4, 5, 6)
KINDS = list(PredictionType)


def test_abar_by_hand():
    # linear, three timesteps: beta = 0.1, 0.2, 0.3
    cfg = ScheduleConfig(num_train_timesteps=3, beta_start=0.1, beta_end=0.3)
    np.testing.assert_allclose(alphas_cumprod(cfg), [0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.7], rtol=1e-15)
    # scaled_linear: sqrt(beta) = 0.1, 0.2, 0.3
    cfg = ScheduleConfig(
        num_train_timesteps=3, beta_start=0.01, beta_end=0.09, beta_schedule="scaled_linear"
    )
    expected = [0.99, 0.99 * 0.96, 0.99 * 0.96 * 0.91]
    np.testing.assert_allclose(alphas_cumprod(cfg), expected, rtol=1e-14)
    assert Schedule(ScheduleConfig(**SD)).abar_at(0) == pytest.approx(1 - 0.00085, abs=1e-15)


def test_zero_terminal_snr_by_hand():
    # sqrt(abar) = 0.9, 0.6, 0.3 less 0.3 is 0.6, 0.3, 0; times 1.5 the first is 0.9 again
    moved = zero_terminal_snr(np.array([0.81, 0.36, 0.09]))
    np.testing.assert_allclose(moved, [0.81, 0.2025, 0.0], rtol=1e-14)


def test_pure_noise_cannot_be_left_by_predicting_noise():
    def of(kind, spacing):
        return Schedule(
            ScheduleConfig(
                **SD, prediction_type=kind, timestep_spacing=spacing, rescale_betas_zero_snr=True
            )
        )

    with pytest.raises(ValueError, match="timestep 999 is pure noise"):
        of("epsilon", "trailing").timesteps(5)
    assert of("epsilon", "leading").timesteps(5)[0] == 800
    v = of("v_prediction", "trailing")
    z, out = gaussian(SHAPE, 1), gaussian(SHAPE, 2)
    x0, eps = x0_and_eps(out, z, v.abar_at(v.timesteps(5)[0]), v.kind)
    np.testing.assert_array_equal(x0, -out)
    np.testing.assert_array_equal(eps, z)
    with pytest.raises(ValueError, match="abar = 0"):
        x0_and_eps(out, z, 0.0, PredictionType.EPSILON)
    # upwards: the last step of an inversion ends in pure noise
    np.testing.assert_allclose(
        v.invert_step(out, z, 999, 5), x0_and_eps(out, z, v.abar_at(799), v.kind)[1], rtol=1e-6
    )


def test_timesteps_by_hand():
    def of(spacing, offset=1, n=4):
        cfg = ScheduleConfig(**SD, timestep_spacing=spacing, steps_offset=offset)
        return timesteps(cfg, n).tolist()

    assert of("leading") == [751, 501, 251, 1]
    assert of("leading", offset=0) == [750, 500, 250, 0]
    assert of("trailing") == [999, 749, 499, 249]
    assert of("linspace") == [999, 666, 333, 0]
    assert of("trailing", n=3) == [999, 666, 332]


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_every_step_count_gives_that_many_descending_timesteps(spacing):
    cfg = ScheduleConfig(**SD, timestep_spacing=spacing)
    for n in range(1, 1001):
        ts = timesteps(cfg, n)
        assert ts.dtype == np.int64 and len(ts) == n
        assert (np.diff(ts) < 0).all() and 0 <= ts[-1] and ts[0] <= 999


@pytest.mark.parametrize("n", [0, -3, 1001])
def test_impossible_step_counts_are_refused_in_one_line(n):
    with pytest.raises(ValueError) as caught:
        timesteps(ScheduleConfig(**SD), n)
    assert str(caught.value) == f"num_steps must be in 1..1000, got {n}"


def test_an_offset_that_leaves_the_table_is_refused():
    with pytest.raises(ValueError, match="timestep 1000, past the last one, 999"):
        timesteps(ScheduleConfig(**SD, steps_offset=1), 1000)


def test_the_level_below_the_last_timestep_is_clean_or_the_first_of_the_table():
    clean = Schedule(ScheduleConfig(**SD, set_alpha_to_one=True))
    first = Schedule(ScheduleConfig(**SD, set_alpha_to_one=False))
    assert clean.previous(1, 50) == -19
    assert clean.abar_at(-19) == 1.0
    assert first.abar_at(-19) == first.abar[0] == pytest.approx(0.99915)
    with pytest.raises(IndexError):
        clean.abar_at(1000)


def test_one_sampling_step_by_hand():
    cfg = ScheduleConfig(
        num_train_timesteps=3, beta_start=0.1, beta_end=0.3, prediction_type="v_prediction"
    )
    z, v, abar, below = 0.5, -0.25, 0.72, 0.9  # from t = 1 down to t = 0
    x0 = math.sqrt(abar) * z - math.sqrt(1 - abar) * v
    eps = math.sqrt(abar) * v + math.sqrt(1 - abar) * z
    expected = math.sqrt(below) * x0 + math.sqrt(1 - below) * eps
    assert Schedule(cfg).step(v, z, 1, 3) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("abar", [0.999, 0.5, 0.01])
def test_a_perfect_network_gives_back_x0_and_eps(kind, abar):
    x0, eps = gaussian(SHAPE, 1), gaussian(SHAPE, 2)
    x_t = add_noise(x0, eps, abar)
    got_x0, got_eps = x0_and_eps(target(kind, x0, eps, abar), x_t, abar, kind)
    assert_close("schedule.x0_eps_roundtrip", got_x0, x0)
    assert_close("schedule.x0_eps_roundtrip", got_eps, eps)


@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
def test_all_kinds_of_prediction_take_the_same_step(kind):
    z, eps = gaussian(SHAPE, 3), gaussian(SHAPE, 4)
    plain = Schedule(ScheduleConfig(**SD, steps_offset=1))
    other = Schedule(ScheduleConfig(**SD, steps_offset=1, prediction_type=kind))
    for t in plain.timesteps(10):
        x0, _ = x0_and_eps(eps, z, plain.abar_at(t), plain.kind)
        out = target(other.kind, x0, eps, plain.abar_at(t))
        a, b = other.step(out, z, t, 10), plain.step(eps, z, t, 10)
        assert_close("schedule.kinds_agree", a, b)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("to_one", [True, False])
def test_inverting_and_stepping_back_with_x0_and_eps_held_returns_to_the_start(kind, to_one):
    schedule = Schedule(
        ScheduleConfig(**SD, steps_offset=1, prediction_type=kind, set_alpha_to_one=to_one)
    )
    z, held = gaussian(SHAPE, 5), gaussian(SHAPE, 6)
    for t in schedule.timesteps(20)[::-1]:
        below = schedule.abar_at(schedule.previous(t, 20))
        if kind == "sample" and below == 1.0:
            continue  # refused, see below
        up = schedule.invert_step(held, z, t, 20)
        x0, eps = x0_and_eps(held, z, below, schedule.kind)
        out = target(schedule.kind, x0, eps, schedule.abar_at(t))
        assert_close("schedule.invert_and_back", schedule.step(out, up, t, 20), z)


def test_epsilon_inversion_undoes_sampling_exactly_when_the_output_is_held():
    schedule = Schedule(ScheduleConfig(**SD, steps_offset=1, set_alpha_to_one=False))
    z = start = gaussian(SHAPE, 7).astype(np.float64)
    held = gaussian(SHAPE, 8).astype(np.float64)
    ts = schedule.timesteps(50)
    for t in ts[::-1]:
        z = schedule.invert_step(held, z, t, 50)
    assert np.abs(z - start).max() > 0.5
    for t in ts:
        z = schedule.step(held, z, t, 50)
    np.testing.assert_allclose(z, start, atol=1e-12)


def test_a_sample_model_cannot_be_inverted_from_clean_latents():
    schedule = Schedule(ScheduleConfig(**SD, prediction_type="sample"))
    with pytest.raises(ValueError, match="abar = 1"):
        schedule.invert_step(1.0, 1.0, 0, 10)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="velocity"):
        x0_and_eps(1.0, 1.0, 0.5, "velocity")


@pytest.mark.parametrize("abar", [0.3, np.float64(0.3), np.array([0.3, 0.999]).reshape(2, 1, 1, 1)])
def test_vars_and_arrays_give_the_same_numbers(abar):
    x0, eps = gaussian(SHAPE, 1), gaussian(SHAPE, 2)
    pairs = [(add_noise(jt.array(x0), jt.array(eps), abar), add_noise(x0, eps, abar))]
    pairs += [
        (target(k, jt.array(x0), jt.array(eps), abar), target(k, x0, eps, abar)) for k in KINDS
    ]
    for kind in KINDS if np.ndim(abar) == 0 else ():
        ours = x0_and_eps(jt.array(eps), jt.array(x0), abar, kind)
        pairs += zip(ours, x0_and_eps(eps, x0, abar, kind), strict=True)
    for var, array in pairs:
        assert isinstance(var, jt.Var) and str(var.dtype) == "float32"
        assert array.dtype == np.float32
        assert_close("schedule.var_is_array", var.numpy(), array)


def test_a_batch_with_one_timestep_per_image_equals_its_images():
    x0, eps = gaussian(SHAPE, 1), gaussian(SHAPE, 2)
    abar = [0.99915, 0.0047]
    together = add_noise(x0, eps, np.array(abar).reshape(2, 1, 1, 1))
    for i, level in enumerate(abar):
        np.testing.assert_array_equal(together[i], add_noise(x0[i], eps[i], level))


def test_moving_to_the_same_level_changes_nothing():
    x0, eps = gaussian(SHAPE, 1), gaussian(SHAPE, 2)
    np.testing.assert_array_equal(ddim_move(x0, eps, 0.4), add_noise(x0, eps, 0.4))
