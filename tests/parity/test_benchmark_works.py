"""Both sides of the benchmarks do the same work: their results agree."""

from __future__ import annotations

import math

import pytest

from benchmarks.full_size import write_model
from benchmarks.works import WORKS, Setting, operations, units
from tests.tiny import config
from tests.tolerances import assert_close

CONFIGS = ("unet", "vae", "text_encoder", "scheduler")


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    counts = write_model(folder, {part: config("sd2", part) for part in CONFIGS}, "float32")
    assert set(counts) == {"unet", "vae", "text_encoder"} and min(counts.values()) > 1000
    return Setting(str(folder), size_px=64)


@pytest.mark.parametrize("work", WORKS)
def test_results_agree(work, setting):
    from benchmarks.works import ours, reference

    steps = [getattr(side, work)(setting) for side in (ours, reference)]
    mine, theirs = (step() for step in steps)
    assert_close("benchmark works", mine, theirs)
    if WORKS[work].group not in ("load", "lora"):  # LoRAs are born differently and learn
        assert_close("benchmark works", *(step() for step in steps))


def test_every_work_but_loading_has_its_operations_counted(setting):
    counts = {work: operations(work, setting) for work in WORKS}
    assert [work for work, count in counts.items() if count == 0] == ["load"]
    assert counts["style"] / units("style", setting) == counts["unet"]
    assert counts["unet_batch2"] == 2 * counts["unet"]
    assert math.isclose(counts["lora_checkpointed"] - counts["lora"], counts["unet"])
