"""The package against small stored results of PyTorch and diffusers; needs neither of them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from jstyle.adain import adain
from jstyle.features import FeatureBank
from jstyle.injection import StyleInjector
from jstyle.sd.facts import Facts, Row
from jstyle.sd.hooks import AttentionCall
from jstyle.sd.kernels import attend
from jstyle.sd.schedule import Schedule, ScheduleConfig
from jstyle.sd.startup import jt
from tests.golden import make_golden
from tests.tolerances import assert_close


@pytest.fixture(scope="module")
def golden():
    with np.load(make_golden.PATH) as file:
        return dict(file)


@pytest.mark.parametrize("name", make_golden.SCHEDULES)
def test_the_noise_schedule_is_that_of_diffusers(golden, name):
    options = {**make_golden.COMMON, **make_golden.SCHEDULES[name]}
    schedule = Schedule(ScheduleConfig.from_json(options))
    assert_close("golden", schedule.abar[::37], golden[f"{name}/abar"])
    timesteps = schedule.timesteps(20)
    assert np.array_equal(timesteps, golden[f"{name}/timesteps"])
    z, out = golden[f"{name}/z"], golden[f"{name}/out"]
    assert_close("golden", schedule.step(out, z, int(timesteps[7]), 20), golden[f"{name}/stepped"])


def test_adain_is_that_of_torch(golden):
    content, style = (jt.array(golden[f"adain/{name}"]) for name in ("content", "style"))
    assert_close("golden", adain(content, style).numpy(), golden["adain/out"])


def test_injected_attention_is_that_of_torch(golden):
    q, q_c, k_s, v_s = (jt.array(golden[f"attention/{n}"]) for n in ("q", "q_c", "k_s", "v_s"))
    bank = FeatureBank()
    for part, value in zip("qkv", (q_c, k_s, v_s), strict=True):
        bank[part, "site", 41] = value
    injector = StyleInjector(bank, bank, make_golden.GAMMA, make_golden.TAU)
    plain = partial(attend, scale=q.shape[-1] ** -0.5)
    out = injector(AttentionCall("site", Facts(41, 0, (Row(0),)), plain), q, q, q)
    assert_close("golden", out.numpy(), golden["attention/out"])


@pytest.mark.parity
def test_the_stored_arrays_are_what_the_reference_gives_today(golden):
    made = make_golden.make()
    assert made.keys() == golden.keys()
    for name, array in made.items():
        assert_close("golden", array, golden[name])
