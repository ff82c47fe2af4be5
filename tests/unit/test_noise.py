"""Noise depends on the seed and the shape, and on nothing else."""

from __future__ import annotations

import numpy as np

from jstyle.sd.noise import gaussian, gaussian_from


def test_one_seed_gives_one_array():
    a, b = gaussian((2, 4, 3, 5), 7), gaussian([2, 4, 3, 5], 7)
    assert a.dtype == np.float32 and a.shape == (2, 4, 3, 5)
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - gaussian((2, 4, 3, 5), 8)).max() > 0.1


def test_the_values_never_change_between_releases():
    expected = np.array([0.14190717, -1.6685079, -1.332108], np.float32)
    np.testing.assert_allclose(gaussian((3,), 42), expected, atol=1e-7)


def test_global_random_state_is_neither_read_nor_moved():
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    first = gaussian((4,), 0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    np.random.seed(2)
    np.testing.assert_array_equal(gaussian((4,), 0), first)


def test_a_generator_goes_on_where_it_stopped():
    rng = np.random.default_rng(3)
    first, second = gaussian_from(rng, (5,)), gaussian_from(rng, (5,))
    np.testing.assert_array_equal(first, gaussian((5,), 3))
    assert np.abs(first - second).max() > 0.1


def test_mean_and_deviation_are_those_of_a_standard_normal():
    x = gaussian((100_000,), 0)
    assert abs(x.mean()) < 0.01 and abs(x.std() - 1) < 0.01
