"""Features on disk, and how many bytes features take."""

from __future__ import annotations

import os
import resource

import numpy as np
import pytest

from benchmarks import full_size
from jstyle import StyleConfig, storage
from jstyle.features import FeatureBank
from jstyle.injection import resolve_sites
from jstyle.sd.config import UNetConfig
from jstyle.sd.files import WriteError
from jstyle.sd.startup import jt
from jstyle.storage import DiskBank, choose, feature_bytes
from tests.mounts import small_disk
from tests.unit.test_style_config import SITES

SD21 = {**full_size.UNET, "sample_size": 64}
GIB = 2**30


def fill(bank, seed=0):
    rng = np.random.default_rng(seed)
    for t in (1, 501):
        for part, shape in (("k", (1, 5, 2, 3)), ("v", (1, 7, 3, 2))):
            bank[part, "site", t] = jt.array(rng.normal(size=shape).astype(np.float32))
        jt.sync_all()
        bank.settle()
    return bank


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_features_come_back_from_disk_as_they_were(dtype, tmp_path):
    kept, filed = fill(FeatureBank(dtype)), fill(DiskBank(dtype, tmp_path))
    assert list(kept) == list(filed) and len(filed) == 4 and ("k", "site", 1) in filed
    assert kept.nbytes == filed.nbytes and not filed._features
    for key in kept:
        np.testing.assert_array_equal(filed[key].numpy(), kept[key].numpy())
    with pytest.raises(KeyError, match=r"'k' of site at timestep 3; nearest recorded: \[1, 501\]"):
        filed["k", "site", 3]


def test_the_file_has_no_name_and_may_grow(tmp_path):
    bank = fill(DiskBank("float32", tmp_path))
    assert list(tmp_path.iterdir()) == []  # gone with the process, however that ends
    before = bank["k", "site", 1].numpy()
    bank["k", "other", 1] = jt.array(np.ones((1, 2, 3, 4), np.float32))
    assert bank["k", "other", 1].numpy().sum() == 24  # waiting in memory
    bank.settle()
    assert bank["k", "other", 1].numpy().sum() == 24
    np.testing.assert_array_equal(bank["k", "site", 1].numpy(), before)


def test_a_full_disk_names_the_folder_and_the_switch(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        bank = DiskBank("float32", disk)
        bank["k", "site", 1] = jt.array(np.ones((1, 1, 200, 200), np.float32))
        with pytest.raises(WriteError, match=r"disk \(--features disk; .*\): disk full"):
            bank.settle()
        del bank
        assert list(disk.iterdir()) == []
    with pytest.raises(WriteError, match=r"gone \(--features disk; .*\): its folder is not there"):
        DiskBank("float32", tmp_path / "gone")


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads /proc")
def test_memory_stays_bounded_while_features_on_disk_grow(tmp_path):
    bank, size = DiskBank("float32", tmp_path), 2**21  # 8 MiB each

    def put(t):
        bank["q", "site", t] = jt.array(np.full((1, size, 1, 1), t, np.float32))
        jt.sync_all()
        bank.settle()

    for t in range(3):
        put(t)
    before = resident()
    for t in range(3, 24):
        put(t)
    for t in range(24):
        assert bank["q", "site", t].numpy()[0, -1, 0, 0] == t
    assert bank.nbytes == 24 * 8 * 2**20
    assert resident() - before < 64 * 2**20  # of 168 MiB


def test_a_pair_at_the_real_size_takes_what_was_promised():
    cfg, unet = StyleConfig(feature_dtype="float16"), UNetConfig.from_json(SD21)
    sites = resolve_sites(cfg.sites, SITES)

    def pair(dtype):
        return sum(feature_bytes(unet, sites, p, cfg.steps, (64, 64), dtype) for p in ("q", "kv"))

    per_step = 3 * (32 * 32 * 640 + 64 * 64 * 320)  # numbers of one part at the six sites
    assert pair("float16") == 3 * 50 * per_step * 2 == 1_769_472_000 < 1.8 * GIB
    assert pair("float32") == 2 * pair("float16")
    middle = feature_bytes(unet, SITES[6:7], "k", 1, (64, 96), "float32")
    assert middle == 8 * 12 * 1280 * 4 and SITES[6].startswith("mid_block")
    down = feature_bytes(unet, SITES[2:3], "k", 1, (64, 96), "float32")
    assert down == 32 * 48 * 640 * 4 and SITES[2].startswith("down_blocks.1")


@pytest.mark.parametrize(
    "memory, disk, chosen, told",
    [
        (4.0, 1.0, "memory", "2.00 GiB, are kept in memory (4.00 GiB free)"),
        (3.9, 4.0, "disk", "kept on disk (4.00 GiB free; only 3.90 GiB of memory)"),
        (3.9, 3.9, "recompute", "computed again when they are needed (only 3.90 GiB of memory"),
    ],
)
def test_auto_takes_half_of_what_is_free_and_says_so(monkeypatch, memory, disk, chosen, told):
    monkeypatch.setattr(storage, "free_memory_bytes", lambda: int(memory * GIB))
    monkeypatch.setattr(storage, "free_disk_bytes", lambda folder: int(disk * GIB))
    features, why = choose(2 * GIB)
    assert features == chosen and told in why


@pytest.mark.parametrize("working, chosen", [(1.3, "memory"), (1.6, "disk")])
def test_with_a_plan_the_evaluations_have_room_beside_the_features(monkeypatch, working, chosen):
    """2 GiB and 1.15 times the plan and a reserve of a quarter, of 3.9."""
    monkeypatch.setattr(storage, "free_memory_bytes", lambda: int(3.9 * GIB))
    monkeypatch.setattr(storage, "free_disk_bytes", lambda folder: 9 * GIB)
    assert choose(2 * GIB, working=int(working * GIB))[0] == chosen
