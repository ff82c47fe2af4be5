from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jstyle.commands.spill import InversionStore
from jstyle.features import FeatureBank
from jstyle.inversion import Inversion
from jstyle.sd.startup import jt


def inversion(seed, dtype="float32"):
    rng = np.random.default_rng(seed)
    bank = FeatureBank(dtype)
    for t in (1, 501):
        for part, shape in (("k", (1, 5, 2, 3)), ("v", (1, 7, 3, 2))):
            bank[part, "site", t] = jt.array(rng.normal(size=shape).astype(np.float32))
    return Inversion(jt.array(rng.normal(size=(1, 4, 2, 2)).astype(np.float32)), bank, 2)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_features_come_back_from_files_as_they_were(dtype):
    originals = {seed: inversion(seed, dtype) for seed in (0, 1)}
    with InversionStore(expected=2, budget_bytes=10) as store:
        for seed, original in originals.items():
            store.keep(seed, original)
        assert store.in_files and 0 in store and 2 not in store
        folder = Path(store._folder.name)
        assert len(list(folder.iterdir())) == 2
        for seed, original in originals.items():
            back = store[seed]
            assert back.latent is original.latent and back.num_steps == 2
            for key in original.features:
                expected = original.features[key].numpy()
                np.testing.assert_array_equal(back.features[key].numpy(), expected)
    assert not folder.exists()


def test_features_that_fit_stay_in_memory():
    with InversionStore(expected=2, budget_bytes=10**6) as store:
        original = inversion(3)
        store.keep("a", original)
        assert store["a"] is original and not store.in_files


def test_the_files_go_after_an_exception_too():
    with pytest.raises(RuntimeError), InversionStore(expected=2, budget_bytes=10) as store:
        store.keep("a", inversion(4))
        folder = Path(store._folder.name)
        raise RuntimeError
    assert not folder.exists()
