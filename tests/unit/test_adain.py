"""AdaIN: an example by hand, matching statistics, and the inputs that break careless versions."""

from __future__ import annotations

import numpy as np
import pytest

from jstyle.adain import adain
from jstyle.sd.startup import jt
from tests.tolerances import assert_close


def _run(content, style, **kw):
    return adain(jt.array(np.float32(content)), jt.array(np.float32(style)), **kw).numpy()


def test_worked_example_by_hand():
    # content 1, 3: mean 2, unbiased variance 2. style 10, 20, 30, 40: mean 25, variance 500 / 3.
    out = _run([[[[1, 3]]]], [[[[10, 20], [30, 40]]]], eps=0.0)
    half = np.sqrt(500 / 3) / np.sqrt(2)
    np.testing.assert_allclose(out, [[[[25 - half, 25 + half]]]], rtol=1e-6)


def test_epsilon_is_inside_the_root():
    out = _run([[[[1, 3]]]], [[[[10, 20], [30, 40]]]], eps=7.0)
    half = np.sqrt(500 / 3 + 7) / np.sqrt(2 + 7)
    np.testing.assert_allclose(out, [[[[25 - half, 25 + half]]]], rtol=1e-6)


def test_result_has_the_statistics_of_the_style_per_channel():
    rng = np.random.default_rng(0)
    content = rng.normal(size=(2, 3, 8, 6)) * [[[[2.0]], [[0.5]], [[1.0]]]] + 3
    style = rng.normal(size=(2, 3, 5, 7)) * [[[[0.1]], [[4.0]], [[1.0]]]] - 50
    out = _run(content, style, eps=0.0)
    assert out.shape == content.shape
    assert_close("adain", out.mean((2, 3)), style.mean((2, 3)))
    assert_close("adain", out.std((2, 3), ddof=1), style.std((2, 3), ddof=1))


def test_one_style_serves_a_batch_of_contents():
    rng = np.random.default_rng(1)
    content, style = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(1, 3, 4, 5))
    both = _run(content, style)
    for i in range(2):
        np.testing.assert_allclose(both[i : i + 1], _run(content[i : i + 1], style), atol=1e-6)


def test_constant_channels_stay_finite():
    flat, lively = np.full((1, 2, 4, 4), 5.0), np.random.default_rng(2).normal(size=(1, 2, 4, 4))
    means = np.broadcast_to(lively.mean((2, 3), keepdims=True), flat.shape)
    np.testing.assert_allclose(_run(flat, lively), means, atol=1e-5)
    assert np.isfinite(_run(lively, flat)).all() and np.isfinite(_run(flat, flat)).all()


def test_half_precision_comes_back_as_half_precision():
    x = jt.array(np.random.default_rng(3).normal(size=(1, 2, 4, 4)).astype(np.float16))
    assert str(adain(x, x).dtype) == "float16"


def test_different_channel_counts_are_refused():
    with pytest.raises(ValueError, match="content has 3 channels and style 4"):
        _run(np.ones((1, 3, 2, 2)), np.ones((1, 4, 2, 2)))
