"""AdamW under accumulation, learning rates, and a gradient norm that is right for many numbers."""

from __future__ import annotations

import numpy as np
import pytest

from jdreambooth.ema import Average
from jdreambooth.optimizer import AdamW, clip_gradients, global_norm, lr_at
from jstyle.sd.startup import jt
from tests.tolerances import assert_close


def reference(values, gradients, lr, weight_decay):
    """Algorithm 2 of arXiv:1711.05101 in float64."""
    p, m, v = values.astype(np.float64), 0.0, 0.0
    for n, g in enumerate(gradients.astype(np.float64), 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        move = (m / (1 - 0.9**n)) / (np.sqrt(v / (1 - 0.999**n)) + 1e-8)
        p = p - lr * weight_decay * p - lr * move
    return p


@pytest.mark.parametrize("micro", [1, 4])
def test_adamw_is_right_however_many_backward_calls_make_a_step(micro):
    rng = np.random.default_rng(0)
    values = rng.standard_normal(50).astype(np.float32)
    gradients = (rng.standard_normal((6, 50)) * 10.0 ** rng.integers(-5, 2, 50)).astype(np.float32)
    p = jt.array(values)
    optimizer = AdamW({"p": p}, weight_decay=0.1)
    for g in gradients:
        for _ in range(micro):
            optimizer.backward((p * jt.array(g)).sum() / micro)
        optimizer.step(1e-2)
        jt.sync_all()
    assert_close("train.adamw", p.numpy(), reference(values, gradients, 1e-2, 0.1))


def test_a_rate_is_a_factor_on_the_learning_rate_of_one_parameter():
    slow, fast = jt.array([1.0, 2.0]), jt.array([1.0, 2.0])
    optimizer = AdamW({"slow": slow, "fast": fast}, 0.0, {"slow": 0.5})
    optimizer.backward((slow * slow + fast * fast).sum())
    optimizer.step(0.1)
    np.testing.assert_allclose(slow.numpy(), [0.95, 1.95], rtol=1e-6)
    np.testing.assert_allclose(fast.numpy(), [0.9, 1.9], rtol=1e-6)


def test_the_norm_of_many_numbers_is_not_too_small():
    rng = np.random.default_rng(0)
    arrays = [rng.random(shape, dtype=np.float32) for shape in ((4096, 4096), (777,))]
    want = np.sqrt(sum(np.square(a, dtype=np.float64).sum() for a in arrays))
    got = global_norm([jt.array(a) for a in arrays]).item()
    assert got == pytest.approx(want, rel=1e-5)  # one sum over all: 2e-2 too small


@pytest.mark.parametrize("limit, norm", [(0.5, 0.5), (100.0, 5.0)])
def test_clipping_only_ever_shortens(limit, norm):
    gradients = [jt.array([[3.0, 0.0]]), jt.array([4.0])]
    assert clip_gradients(gradients, limit).item() == pytest.approx(5.0)
    assert global_norm(gradients).item() == pytest.approx(norm, rel=1e-5)
    assert gradients[0].numpy()[0, 0] / gradients[1].numpy()[0] == pytest.approx(0.75)


def test_learning_rates_by_hand():
    assert [lr_at(s, 2.0, 4, "constant") for s in range(4)] == [2.0] * 4
    assert [lr_at(s, 2.0, 4, "linear") for s in range(4)] == [2.0, 1.5, 1.0, 0.5]
    np.testing.assert_allclose([lr_at(s, 2.0, 2, "cosine") for s in range(2)], [2.0, 1.0])
    warm = [lr_at(s, 3.0, 6, "linear", warmup=2) for s in range(6)]
    np.testing.assert_allclose(warm, [1.0, 2.0, 3.0, 2.25, 1.5, 0.75])


def test_the_average_follows_and_leaves_the_values_as_they_were():
    p = jt.array([0.0])
    average = Average({"p": p}, 0.9)
    p.update(jt.array([1.0]))
    average.update()  # decay 2 / 11
    with average.in_place():
        np.testing.assert_allclose(p.numpy(), [9 / 11], rtol=1e-6)
    np.testing.assert_array_equal(p.numpy(), [1.0])
    assert not p.is_stop_grad()
