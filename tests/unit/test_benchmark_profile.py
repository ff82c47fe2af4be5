"""Operations find their groups, and the CUDA check says so where there is no CUDA."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import profile
from jstyle.config import StyleConfig
from jstyle.pipeline import JStyleID
from jstyle.sd.pipeline import StableDiffusion


def test_every_operation_of_a_stylisation_has_a_group():
    styler = JStyleID(StableDiffusion.from_pretrained("tiny"))
    picture = np.random.default_rng(0).uniform(-1, 1, (1, 3, 64, 64)).astype(np.float32)
    cfg = StyleConfig(steps=1, size_px=64)
    lines = profile.profile_ours(lambda: styler.stylize(picture, picture, cfg).numpy())
    found = profile.by_group(lines, profile.OURS)
    assert sum(found.values()) == pytest.approx(sum(seconds for _, seconds in lines))
    assert all(found[group] > 0 for group in profile.GROUPS if group != "other")
    named = {name: profile.group_of(name, profile.OURS) for name, _ in lines}
    groups = list(named.values())
    assert "other" not in [group for name, group in named.items() if "reduce" not in name]
    assert groups.count("attention") == 2  # causal and not
    assert groups.count("convolution") >= 3  # oneDNN's, patches, points
    assert groups.count("norms") == 3  # with SiLU, without, of layers


@pytest.mark.parametrize(
    "name, group",
    [
        ("aten::mkldnn_convolution", "convolution"),
        ("aten::addmm", "linear"),
        ("aten::bmm", "attention"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("aten::native_group_norm", "norms"),
        ("aten::silu", "elementwise"),
        ("aten::cat", "copies"),
        ("aten::empty", "other"),
    ],
)
def test_pytorchs_operations_have_groups(name, group):
    assert profile.group_of(name, profile.TORCH) == group


def test_the_profile_as_a_table():
    found = {"ours": dict.fromkeys(profile.GROUPS, 0.001), "torch": {"convolution": 0.002}}
    found["torch"] = dict.fromkeys(profile.GROUPS, 0.0) | found["torch"]
    lines = profile.as_text(found).splitlines()
    assert lines[0] == "| group | ours, ms | torch, ms |"
    assert lines[2] == "| convolution | 1 | 2 |" and lines[-1] == "| sum | 7 | 2 |"
