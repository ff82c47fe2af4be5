"""Features are computed once for each content, a few pictures at a time."""

from __future__ import annotations

import os

import numpy as np
import pytest

from jstyle.score import cache
from jstyle.score.cache import BATCH, FeatureCache, features_of, fingerprint, identity
from jstyle.score.layout import ContestError
from tests.contests import save


class Means:
    """A metric with the mean colour as features, and a list of what it was asked."""

    def __init__(self):
        self.batches = []

    def __call__(self, batch):
        assert batch.dtype == np.uint8
        self.batches.append(batch.shape)
        return batch.mean((1, 2))


@pytest.fixture
def paths(tmp_path):
    """More pictures than fit into one batch, the last two of another size."""
    found = [tmp_path / f"{i}.png" for i in range(BATCH + 3)]
    for i, path in enumerate(found):
        save(path, i, 16 if i < BATCH + 1 else 24)
    return found


def test_batches_are_small_and_of_one_size_and_the_order_is_kept(paths):
    means, told = Means(), []
    asked = [*reversed(paths), paths[0]]
    found = features_of(asked, means, FeatureCache(None), "m", told.append)
    assert means.batches == [(2, 24, 24, 3), (BATCH, 16, 16, 3), (1, 16, 16, 3)]
    assert sum(told) == len(paths) and found.dtype == np.float32
    alone = [features_of([path], Means(), FeatureCache(None), "m")[0] for path in asked]
    np.testing.assert_array_equal(found, alone)


def test_what_is_known_is_not_computed_again_even_under_another_name(paths, tmp_path):
    folder = tmp_path / "cache"
    first = features_of(paths, Means(), FeatureCache(folder), "m")
    moved = [path.rename(path.with_name(f"x{path.name}")) for path in paths]
    means, told = Means(), []
    again = features_of(moved, means, FeatureCache(folder), "m", told.append)
    assert means.batches == [] and sum(told) == len(paths)
    np.testing.assert_array_equal(first, again)


def test_another_metric_another_content_and_a_damaged_file_are_computed(paths, tmp_path):
    folder, path = tmp_path / "cache", paths[0]
    features_of([path], Means(), FeatureCache(folder), "m")
    (kept,) = (folder / "m").iterdir()

    def computed(metric="m"):
        means = Means()
        features_of([path], means, FeatureCache(folder), metric)
        return bool(means.batches)

    assert not computed() and computed("other")
    kept.write_bytes(kept.read_bytes()[:-3])
    assert computed() and not computed()
    save(path, 99, 16)
    assert computed() and not computed()


def test_interrupted_work_is_kept_up_to_the_last_batch(paths, tmp_path):
    def fails(batch):
        if len(batch) < BATCH:
            raise KeyboardInterrupt
        return batch.mean((1, 2))

    kept = FeatureCache(tmp_path / "cache")
    with pytest.raises(KeyboardInterrupt):
        features_of(paths, fails, kept, "m")
    means = Means()
    features_of(paths, means, kept, "m")
    assert sum(shape[0] for shape in means.batches) == len(paths) - BATCH


def test_an_unreadable_picture_is_named(paths, tmp_path):
    paths[1].write_bytes(b"no picture")
    with pytest.raises(ContestError, match=r"1\.png: is not an image"):
        features_of(paths, Means(), FeatureCache(tmp_path / "cache"), "m")


def test_an_identity_tells_weights_options_and_versions_apart(tmp_path, monkeypatch):
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "a.bin").write_bytes(b"1")
    names = [identity("m", fingerprint(weights)), identity("m", fingerprint(weights), "corrected")]
    (weights / "a.bin").write_bytes(b"12")
    names += [identity("m", fingerprint(weights)), identity("m", fingerprint(weights / "a.bin"))]
    monkeypatch.setattr(cache, "__version__", "0.0.0")
    names.append(identity("m", fingerprint(weights / "a.bin")))
    assert len(set(names[:3])) == 3 and names[3] != names[4]


def test_weights_are_known_by_their_bytes_and_not_by_their_times(tmp_path):
    weights = tmp_path / "a.bin"
    weights.write_bytes(bytes(2_000_000))
    before = fingerprint(weights)
    os.utime(weights, (1, 1))
    assert fingerprint(weights) == before
    for place in (0, 1_000_000 // 2, 1_999_999):
        changed = bytearray(2_000_000)
        changed[place : place + 40_000] = b"1" * len(changed[place : place + 40_000])
        weights.write_bytes(changed)
        os.utime(weights, (1, 1))
        assert fingerprint(weights) != before


def test_the_users_cache_is_where_the_system_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.default_folder() == tmp_path / "jstyle" / "features"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.default_folder() == tmp_path / "home" / ".cache" / "jstyle" / "features"
