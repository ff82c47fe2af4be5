"""The loss as numbers: its parts, the prior's weight, min-SNR."""

from __future__ import annotations

import numpy as np
import pytest

from jdreambooth.data import Batch
from jdreambooth.loss import dreambooth_loss, snr_weights
from jstyle.sd.schedule import Schedule, ScheduleConfig
from jstyle.sd.startup import jt
from tests import tiny

KINDS = ("epsilon", "v_prediction")


def schedule_of(kind):
    return Schedule(ScheduleConfig.from_json({**tiny.SCHEDULE, "prediction_type": kind}))


def batch_of(count, instances):
    rng = np.random.default_rng(3)
    z, noise = rng.standard_normal((2, count, 4, 6, 8)).astype(np.float32)
    return Batch(z, noise, np.array([5, 400, 900, 30])[:count], ["x"] * count, instances)


def errors_of(kind, batch):
    """What a network that always says 0 is off by, per picture, in float64."""
    abar = schedule_of(kind).abar[batch.t].reshape(-1, 1, 1, 1)
    velocity = np.sqrt(abar) * batch.noise - np.sqrt(1 - abar) * batch.z
    return (({"epsilon": batch.noise, "v_prediction": velocity}[kind]) ** 2).mean((1, 2, 3))


def zero(z, t, context):
    return z * 0.0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_both_parts_are_there_and_the_weight_counts(kind, weight):
    batch = batch_of(4, 2)
    total, parts = dreambooth_loss(zero, batch, jt.zeros(1), schedule_of(kind), weight, None)
    errors = errors_of(kind, batch)
    assert parts["instance"].item() == pytest.approx(errors[:2].mean(), rel=1e-5)
    assert parts["prior"].item() == pytest.approx(errors[2:].mean(), rel=1e-5) and errors[2:].all()
    want = errors[:2].mean() + weight * errors[2:].mean()
    assert total.item() == pytest.approx(want, rel=1e-5)


def test_without_class_pictures_there_is_no_prior():
    total, parts = dreambooth_loss(
        zero, batch_of(2, 2), jt.zeros(1), schedule_of("epsilon"), 1.0, None
    )
    assert list(parts) == ["instance"] and total.item() == parts["instance"].item()


@pytest.mark.parametrize("kind", KINDS)
def test_min_snr_weighs_the_error_of_the_clean_picture_by_the_clipped_snr(kind):
    schedule, t = schedule_of(kind), np.array([1, 300, 999])
    snr = schedule.abar[t] / (1 - schedule.abar[t])
    # an error d of the target is one of x0 of d times this, squared:
    x0_error = {"epsilon": 1 / snr, "v_prediction": 1 - schedule.abar[t]}[kind]
    got = snr_weights(schedule, t, 5.0) / x0_error
    np.testing.assert_allclose(got, np.minimum(snr, 5.0), rtol=1e-5)


@pytest.mark.parametrize("kind, weight", [("epsilon", 1.0), ("v_prediction", 0.0)])
def test_pure_noise_has_a_finite_weight(kind, weight):
    values = {**tiny.SCHEDULE, "prediction_type": kind, "rescale_betas_zero_snr": True}
    schedule = Schedule(ScheduleConfig.from_json(values))
    assert schedule.abar[999] == 0.0
    assert snr_weights(schedule, np.array([999]), 5.0).tolist() == [weight]


def test_min_snr_changes_the_loss_of_clean_timesteps_most():
    batch, schedule = batch_of(4, 4), schedule_of("epsilon")
    total, _ = dreambooth_loss(zero, batch, jt.zeros(1), schedule, 0.0, 5.0)
    want = (errors_of("epsilon", batch) * snr_weights(schedule, batch.t, 5.0)).mean()
    assert total.item() == pytest.approx(want, rel=1e-5)
