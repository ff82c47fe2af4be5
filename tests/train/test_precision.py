"""Half precision with float32 masters. It is offered on CUDA alone; what it computes is the same
on the CPU, slowly."""

from __future__ import annotations

import numpy as np
import pytest

from jdreambooth.precision import PATIENCE, LossScale, in_half
from jdreambooth.train import Run
from jdreambooth.trainables.base import values_of
from tests import tiny
from tests.tolerances import TOLERANCES


def test_the_scale_falls_at_once_and_rises_with_patience():
    scale = LossScale(8.0)
    scale.lower()
    assert scale.value == 4.0
    for _ in range(PATIENCE):
        scale.keep()
    assert (scale.value, scale.good_steps) == (8.0, 0)


def test_the_parameters_are_back_after_an_exception():
    unet = tiny.make_ours("sd2").unet
    before = {name: id(value) for name, value in unet.named_parameters()}
    with pytest.raises(ZeroDivisionError), in_half(unet):
        assert {str(value.dtype) for value in unet.parameters()} == {"float16"}
        _ = 1 / 0
    assert {name: id(value) for name, value in unet.named_parameters()} == before


@pytest.mark.slow  # for the kernels of float16 that have to be compiled
@pytest.mark.parametrize("part", ["lora", "kv"])
def test_losses_agree_with_float32_and_masters_keep_small_changes(config, tmp_path, part):
    common = {"train": part, "size_px": 64, "learning_rate": 1e-6, "steps": 3, "batch": 2}
    runs = [
        Run(config(out=str(tmp_path / kind), precision=kind, **common), None, None, sd)
        for kind, sd in (("float32", tiny.make_ours("sd2")), ("float16", tiny.make_ours("sd2")))
    ]
    start = values_of(runs[1].trained.parameters)
    steps = [[run.step(i) for i in range(3)] for run in runs]
    for full, half in zip(*steps, strict=True):
        assert half["loss"] == pytest.approx(full["loss"], rel=TOLERANCES["train.half"].limit)
        assert half["grad_norm"] == pytest.approx(full["grad_norm"], rel=1e-2)
    for name, values in values_of(runs[1].trained.parameters).items():
        change = np.abs(values - start[name]).max()
        assert 0 < change < 1e-5 and values.dtype == np.float32, name


@pytest.mark.slow
def test_an_overflow_skips_the_step_and_lowers_the_scale(config):
    run = Run(config(precision="float16", size_px=64), None, None, tiny.make_ours("sd2"))
    run.scale.value = 2.0**60
    before = values_of(run.trained.parameters)
    assert run.step(0)["lr"] == 0.0 and run.scale.value == 2.0**59
    for name, values in values_of(run.trained.parameters).items():
        np.testing.assert_array_equal(values, before[name])
    run.scale.value = 1024.0
    assert run.step(1)["lr"] > 0 and run.optimizer.steps_done == 1
