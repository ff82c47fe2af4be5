"""The C++ kernels against their plain twins, outputs and gradients, and the switch between them."""

from __future__ import annotations

import numpy as np
import pytest

from jstyle.sd import kernels
from jstyle.sd.startup import jt
from tests.tolerances import assert_close


def normal(*shape, seed=0, mean=0.0):
    rng = np.random.default_rng((seed, *shape))
    return (rng.standard_normal(shape) + mean).astype(np.float32)


# name: (function of Vars, inputs)
CASES = {
    "attend": (
        lambda q, k, v: kernels.attend(q, k, v, 0.35),
        (normal(2, 150, 3, 8), normal(2, 33, 3, 8, seed=1), normal(2, 33, 3, 8, seed=2)),
    ),
    "attend causal": (
        lambda q, k, v: kernels.attend(q, k, v, 0.35, causal=True),
        (normal(2, 140, 3, 8), normal(2, 140, 3, 8, seed=1), normal(2, 140, 3, 8, seed=2)),
    ),
    "group_norm": (
        lambda x, w, b: kernels.group_norm(x, 3, w, b, 1e-5),
        (normal(2, 12, 7, 5, mean=3), normal(12, seed=1), normal(12, seed=2)),
    ),
    "group_norm silu": (
        lambda x, w, b: kernels.group_norm(x, 4, w, b, 1e-6, silu=True),
        (normal(2, 12, 7, 5, mean=3), normal(12, seed=1), normal(12, seed=2)),
    ),
    "layer_norm": (
        kernels.layer_norm,
        (normal(2, 9, 20, mean=3), normal(20, seed=1), normal(20, seed=2)),
    ),
    "softmax": (kernels.softmax, (normal(2, 9, 21) * 4,)),
    "geglu": (kernels.geglu, (normal(2, 9, 22),)),
}


def value_and_gradients(name):
    function, arrays = CASES[name]
    inputs = [jt.array(a) for a in arrays]
    out = function(*inputs)
    weight = jt.array(normal(*out.shape, seed=7))
    return [out.numpy(), *(g.numpy() for g in jt.grad((out * weight).sum(), inputs))]


@pytest.mark.parametrize("name", CASES)
def test_a_kernel_agrees_with_its_plain_twin_in_value_and_gradients(name):
    fast = value_and_gradients(name)
    with kernels.plain():
        plain = value_and_gradients(name)
    for ours, theirs in zip(fast, plain, strict=True):
        assert_close("kernel.twin", ours, theirs)


def test_the_kernels_are_really_used_on_the_cpu():
    x = jt.array(normal(2, 3))
    assert kernels.fast(x)
    with kernels.plain():
        assert not kernels.fast(x)
    assert kernels.fast(x)
    assert not kernels.fast(x.float16())


def test_plain_is_undone_after_an_exception():
    with pytest.raises(KeyError), kernels.plain():
        raise KeyError
    assert kernels.fast(jt.array(normal(2, 3)))


@pytest.mark.parametrize("plain", [False, True])
def test_norms_are_exact_far_from_zero(plain):
    x = normal(1, 8, 40, mean=1000).astype(np.float64)
    want = (x - x.mean(2, keepdims=True)) / np.sqrt(x.var(2, keepdims=True) + 1e-5)
    ones, zeros = jt.ones(40), jt.zeros(40)
    x32 = jt.array(x.astype(np.float32))
    if plain:
        with kernels.plain():
            got = kernels.layer_norm(x32, ones, zeros).numpy()
    else:
        got = kernels.layer_norm(x32, ones, zeros).numpy()
    x_rounded = x.astype(np.float32).astype(np.float64)
    want = x_rounded - x_rounded.mean(2, keepdims=True)
    want /= np.sqrt(x_rounded.var(2, keepdims=True) + 1e-5)
    assert_close("kernel.norm_mean_1000", got, want)


def test_causal_attention_ignores_later_tokens():
    q, k, v = (normal(1, 20, 2, 4, seed=s) for s in range(3))
    changed = k.copy()
    changed[:, 12:] += 5
    before = kernels.attend(*map(jt.array, (q, k, v)), 0.5, causal=True).numpy()
    after = kernels.attend(*map(jt.array, (q, changed, v)), 0.5, causal=True).numpy()
    assert np.array_equal(before[:, :12], after[:, :12])
    assert not np.allclose(before[:, 12:], after[:, 12:])


def test_attention_survives_large_logits():
    q = jt.array(np.full((1, 4, 1, 8), 30, np.float32))
    v = normal(1, 6, 1, 8)
    out = kernels.attend(q, jt.array(np.full((1, 6, 1, 8), 30, np.float32)), jt.array(v), 1.0)
    assert_close("kernel.twin", out.numpy()[0, 0, 0], v.mean(1)[0, 0])


def test_half_precision_takes_the_plain_path_and_keeps_its_type():
    x = jt.array(normal(2, 12, 5, 5)).float16()
    w, b = jt.ones(12).float16(), jt.zeros(12).float16()
    y = kernels.group_norm(x, 4, w, b, silu=True)
    assert y.dtype == "float16"
    full = kernels.group_norm(x.float32(), 4, w.float32(), b.float32(), silu=True)
    assert_close("kernel.half", y.float32().numpy(), full.numpy())
