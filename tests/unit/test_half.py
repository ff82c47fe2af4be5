"""Weights in half precision: what is kept, what is computed, and that nothing else moves."""

from __future__ import annotations

import numpy as np
import pytest

from jstyle.config import StyleConfig
from jstyle.pipeline import JStyleID
from jstyle.sd import half, kernels, number_types, weights
from jstyle.sd.hooks import hooks_around
from jstyle.sd.lora import add_lora, merge_lora
from jstyle.sd.pipeline import PARTS, StableDiffusion
from jstyle.sd.startup import jt
from tests import tiny
from tests.pictures import picture
from tests.tolerances import assert_close, rel_l2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model whose files hold float32 that no half precision can hold."""
    sd = tiny.make_ours("sd2")
    for part in PARTS:
        for name, parameter in getattr(sd, part).state_dict().items():
            values = tiny.values_of(name, parameter.shape) * np.float32(1.1)
            parameter.assign(jt.array(values))
    where = tmp_path_factory.mktemp("half") / "model"
    sd.save_pretrained(where, "float32")
    return where


def load(folder, dtype):
    return StableDiffusion.from_pretrained(folder, dtype=dtype)


def weight_bytes(sd) -> int:
    sizes = {"float32": 4, "float16": 2, "bfloat16": 2}
    modules = [getattr(sd, part) for part in PARTS]
    return sum(v.numel() * sizes[str(v.dtype)] for m in modules for v in m.parameters())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_number_is_widened_to_itself(dtype):
    bits = np.arange(1 << 16, dtype=np.uint16)
    var = jt.empty(bits.shape, dtype)
    var.sync()
    var.data.view(np.uint16)[:] = bits
    if dtype == "float16":
        wanted = bits.view(np.float16).astype(np.float32)
    else:
        wanted = (bits.astype(np.uint32) << 16).view(np.float32)
    usual = np.isfinite(wanted)
    if dtype == "bfloat16":  # numbers that Jittor's process takes for zero wherever it meets them
        usual &= (np.abs(wanted) >= np.finfo(np.float32).tiny) | (bits & 0x7FFF == 0)
    widened = kernels.widened(var).numpy()
    np.testing.assert_array_equal(widened[usual], wanted[usual])
    assert not np.isfinite(widened[(bits & 0x7F80 == 0x7F80) & (bits & 0x7FFF >= 0x7C00)]).any()


def test_rounding_to_bfloat16_is_to_the_nearest_and_ties_are_even():
    step = 2.0**-7  # of bfloat16 between 1 and 2
    values = np.array([1, 1 + step / 2, 1 + 1.5 * step, 1 + 0.51 * step, -1 - 0.6 * step, 3e38])
    found = half.rounded(values, "bfloat16").astype(np.uint32) << 16
    wanted = [1, 1, 1 + 2 * step, 1 + step, -1 - step]
    np.testing.assert_array_equal(found.view(np.float32)[:5], np.float32(wanted))
    assert found.view(np.float32)[5] == pytest.approx(3e38, rel=2.0**-8)


def test_the_memory_of_the_weights_is_halved(folder):
    full, small = weight_bytes(load(folder, "float32")), weight_bytes(load(folder, "float16"))
    assert 0.5 * full <= small < 0.56 * full  # vectors, many in a tiny model, stay


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_what_is_computed_is_float32s_arithmetic_on_rounded_weights(folder, dtype, tmp_path):
    """The same model, with weights rounded in its files, gives the same bytes in float32."""
    small = load(folder, dtype)
    small.save_pretrained(tmp_path / "rounded", "float32")
    rounded = load(tmp_path / "rounded", "float32")
    first, second = (sd.generate("a fox", num_steps=2).numpy() for sd in (small, rounded))
    np.testing.assert_array_equal(first, second)
    cfg = StyleConfig(steps=2, size_px=32)
    styled = [
        JStyleID(sd).stylize(picture(1, 32, 32), picture(2, 32, 32), cfg).numpy()
        for sd in (small, rounded)
    ]
    np.testing.assert_array_equal(*styled)
    exact = load(folder, "float32").generate("a fox", num_steps=2).numpy()
    assert_close(f"half.{dtype}", first, exact)
    assert rel_l2(first, exact) > 1e-5  # weights were rounded at all


def test_a_model_whose_files_hold_float16_paints_the_same_bytes():
    pictures = [
        StableDiffusion.from_pretrained("tiny", dtype=dtype)
        .generate("a star", num_steps=2, height=64, width=64)
        .numpy()
        for dtype in ("float32", "float16")
    ]
    np.testing.assert_array_equal(*pictures)


def test_a_merged_lora_is_rounded_once(folder):
    full, small = load(folder, "float32"), load(folder, "float16")
    for sd in (full, small):
        adapters = add_lora(sd.unet, rank=2).adapters
        for name, adapter in adapters.items():
            adapter.lora_B.update(jt.array(tiny.values_of(name, adapter.lora_B.shape)))
        merge_lora(sd.unet)
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    ours, exact = (sd.unet.state_dict()[name] for sd in (small, full))
    assert ours.dtype == "float16"
    assert rel_l2(ours.numpy(), exact.numpy()) < 4e-4
    assert_close("half.lora", *(sd.generate("a fox", num_steps=1).numpy() for sd in (small, full)))


def test_a_weight_beyond_float16_is_refused_with_the_way_out(folder):
    unet = tiny.make_ours("sd2").unet
    tensors = {name: value.numpy() for name, value in unet.state_dict().items()}
    tensors["conv_in.weight"] = tensors["conv_in.weight"] * 1e6
    with half.kept_in("float16"), pytest.raises(weights.WeightsError) as refused:
        weights.load_strict(unet, tensors, where="some.file")
    told = str(refused.value)
    assert told.startswith("some.file: conv_in.weight holds ") and "too large for float16" in told
    assert "bfloat16" in told
    with half.kept_in("bfloat16"):
        weights.load_strict(unet, tensors)


def test_without_the_option_nothing_is_hooked_and_all_is_float32(folder):
    sd = load(folder, "float32")
    for part in PARTS:
        for module in getattr(sd, part).modules():
            assert not hooks_around(module)
    sd = load(folder, "float16")
    assert hooks_around(sd.unet.conv_in) and not hooks_around(sd.unet)


def test_the_scores_networks_keep_rounded_weights_and_compute_in_float32():
    from jstyle.score.networks.backbones import squeezenet
    from jstyle.score.networks.frozen import load_frozen

    pixels, found = jt.array(picture(5, 64, 64)), {}
    for dtype in ("float32", "float16"):
        network = squeezenet()
        shapes = {name: value.shape for name, value in network.state_dict().items()}
        tensors = {n: tiny.values_of(n, shape) * np.float32(1.1) for n, shape in shapes.items()}
        if dtype == "float32":
            tensors = {
                n: v.astype("f2").astype("f4") if v.ndim > 1 else v for n, v in tensors.items()
            }
        with half.kept_in(dtype):
            load_frozen(network, tensors, "here")
        kinds = {str(v.dtype) for v in network.parameters() if v.ndim > 1}
        assert kinds == {dtype}
        with jt.no_grad():
            found[dtype] = [value.numpy() for value in network(pixels)]
    for ours, wanted in zip(*found.values(), strict=True):
        np.testing.assert_array_equal(ours, wanted)


class TestNumberTypes:
    def test_auto_on_each_device(self):
        assert number_types.resolved_dtype("auto", "cpu") == "float32"
        assert number_types.resolved_dtype("auto", "cuda") == "float16"

    @pytest.mark.parametrize("usable, wanted", [(True, "float16"), (False, "float32")])
    def test_auto_asks_for_cuda_where_the_device_is_auto(self, monkeypatch, usable, wanted):
        monkeypatch.setattr(number_types.toolchain, "uses_cuda", lambda: usable)
        assert number_types.resolved_dtype("auto", "auto") == wanted
        assert number_types.resolved_dtype("float32", "auto") == "float32"

    def test_bfloat16_is_for_the_cpu(self):
        assert number_types.resolved_dtype("bfloat16", "cpu") == "bfloat16"
        with pytest.raises(ValueError, match="use float16"):
            number_types.resolved_dtype("bfloat16", "cuda")

    def test_another_name_is_refused(self):
        with pytest.raises(ValueError, match="dtype must be auto, .* got 'half'"):
            number_types.resolved_dtype("half", "cpu")


class TestNoOverflow:
    """In half precision, as CUDA computes; the plain twins do it on the CPU, slowly."""

    def draw(self, *shape, scale=1.0):
        values = np.random.default_rng(0).standard_normal(shape).astype(np.float32) * scale
        return jt.array(values)

    def test_attentions_logits(self):
        q, k, v = (self.draw(1, 6, 2, 8, scale=s) for s in (1e4, 1e4, 1.0))
        found = kernels.attend(q.float16(), k.float16(), v.float16(), 8**-0.5)
        wanted = kernels.attend(q, k, v, 8**-0.5)
        assert found.dtype == "float16"
        assert rel_l2(found.float32().numpy(), wanted.numpy()) < 1e-3

    @pytest.mark.parametrize("silu", [False, True])
    def test_a_group_norms_sums(self, silu):
        x, w, b = self.draw(1, 8, 16, 16, scale=1e4) + 2e4, jt.ones(8), jt.zeros(8)
        found = kernels.group_norm(x.float16(), 2, w.float16(), b.float16(), silu=silu)
        wanted = kernels.group_norm(x, 2, w, b, silu=silu)
        assert rel_l2(found.float32().numpy(), wanted.numpy()) < 2e-3

    def test_a_layer_norms_sums_and_a_gate(self):
        x, w, b = self.draw(4, 32, scale=1e4), jt.ones(32), jt.zeros(32)
        found = kernels.layer_norm(x.float16(), w.float16(), b.float16()).float32().numpy()
        assert rel_l2(found, kernels.layer_norm(x, w, b).numpy()) < 2e-3
        h = self.draw(4, 32, scale=100.0)
        found = kernels.geglu(h.float16()).float32().numpy()
        assert np.abs(found).max() > 1e4
        assert rel_l2(found, kernels.geglu(h).numpy()) < 2e-3
