"""Convolution by matrix products, and with fewer multiplications: against Jittor's own, for every
way the sizes can fall."""

from __future__ import annotations

import numpy as np
import pytest

from jstyle.sd import convolution_choice, kernels
from jstyle.sd.kernels import convolution, winograd
from jstyle.sd.startup import jt
from tests.tolerances import assert_close

CASES = {  # x, w, stride, padding
    "3x3": ((2, 24, 3, 4), (5, 24, 3, 3), 1, 1),
    "stride": ((1, 40, 4, 6), (6, 40, 3, 3), 2, 1),
    "no padding": ((1, 40, 5, 4), (6, 40, 3, 3), 1, 0),
    "several slices": ((2, 600, 9, 8), (3, 600, 3, 3), 1, 1),
    "1x1": ((2, 6, 5, 7), (4, 6, 1, 1), 1, 0),
}


def draw(shape, seed):
    return jt.array(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_jittors_convolution(case, monkeypatch):
    x_shape, w_shape, stride, padding = CASES[case]
    x, w = draw(x_shape, 1), draw(w_shape, 2)
    ran = []
    source = convolution.code
    monkeypatch.setattr(convolution, "code", lambda *a, **k: ran.append(1) or source(*a, **k))

    def run():
        y = kernels.convolve(x, w, stride, padding)
        g = draw(y.shape, 3)
        return [v.numpy() for v in (y, *jt.grad((y * g).sum(), [x, w]))]

    found = run()
    assert len(ran) == 3  # the output and both gradients came from here
    with kernels.plain():
        wanted = run()
    assert len(ran) == 3
    for a, b in zip(found, wanted, strict=True):
        assert_close("kernel.convolve", a, b)


def test_large_maps_of_few_channels_are_left_to_onednn(monkeypatch):
    monkeypatch.setattr(convolution, "code", None)
    x, w = draw((1, 4, 8, 8), 1), draw((5, 4, 3, 3), 2)
    assert tuple(kernels.convolve(x, w, 1, 1).shape) == (1, 5, 8, 8)


@pytest.mark.parametrize(
    "workspace", [convolution_choice.WORKSPACE, 1], ids=["whole", "a row at a time"]
)
def test_winograd_gives_values_and_gradients_of_jittors_convolution(workspace, monkeypatch):
    monkeypatch.setattr(convolution_choice, "WORKSPACE", workspace)
    x, w = draw((2, 128, 32, 34), 1), draw((136, 128, 3, 3), 2).stop_grad()
    ran = []
    source = winograd.code
    monkeypatch.setattr(winograd, "code", lambda *a, **k: ran.append(1) or source(*a, **k))

    def run():
        y = kernels.convolve(x, w, 1, 1)
        return y.numpy(), jt.grad((y * draw(y.shape, 3)).sum(), x).numpy()

    found = run()
    assert len(ran) == 4  # the weights and a product, twice
    with kernels.plain():
        wanted = run()
    assert len(ran) == 4
    for a, b in zip(found, wanted, strict=True):
        assert_close("kernel.winograd", a, b)


def test_weights_in_training_and_small_or_odd_maps_are_not_winograds():
    x, w = draw((1, 128, 32, 32), 1), draw((128, 128, 3, 3), 2).stop_grad()

    def is_winograds(x, w, stride=1):
        return convolution.fastest(x, w, stride, 1) == convolution_choice.WINOGRAD

    assert is_winograds(x, w) and not is_winograds(x, w, 2)
    assert not is_winograds(x, draw(w.shape, 2))  # takes gradients
    assert not is_winograds(draw((1, 128, 16, 16), 1), w)
    assert not is_winograds(draw((1, 128, 33, 32), 1), w)
