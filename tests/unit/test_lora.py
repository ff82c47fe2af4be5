"""LoRA layers and files of the two formats, without any other framework."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jstyle.sd import lora, weights
from jstyle.sd.lora import add_lora, load_lora, merge_lora, remove_lora, save_lora
from jstyle.sd.lora_files import Factors, read_lora, write_lora
from jstyle.sd.startup import jt
from jstyle.sd.weights import WeightsError
from tests import tiny
from tests.tolerances import assert_close, rel_l2

IDS = [[0, 5, 70, 31, 2, 2, 2, 2]]


@pytest.fixture(scope="module")
def made():
    return {kind: tiny.make_ours(kind) for kind in tiny.KINDS}


@pytest.fixture(params=list(tiny.KINDS))
def sd(made, request):
    yield made[request.param]
    for model in made.values():
        for part in lora.PARTS:
            remove_lora(getattr(model, part))


def run(sd, part="unet"):
    with jt.no_grad():
        if part == "text_encoder":
            return sd.text_encoder(IDS).numpy()
        rng = np.random.default_rng(6)
        z, context = (rng.standard_normal(s, np.float32) for s in ((2, 4, 16, 8), (2, 5, 20)))
        return sd.unet(jt.array(z), [3, 700], jt.array(context)).numpy()


def train(added, scale=0.3):
    """As if trained: values that depend on the name only."""
    for name, var in added.parameters().items():
        var.assign(jt.array(np.float32(scale) * tiny.values_of(name, var.shape)))
    return added


def add_both(sd, targets="convolutions", **options):
    return {p: train(add_lora(getattr(sd, p), targets=targets, **options)) for p in lora.PARTS}


def remove_both(sd):
    for part in lora.PARTS:
        remove_lora(getattr(sd, part))


def modules(module):
    return [id(m) for m in module.modules()]


@pytest.mark.parametrize("part", lora.PARTS)
@pytest.mark.parametrize("targets", list(lora.TARGETS))
def test_a_new_lora_changes_no_bit_and_no_name(sd, part, targets):
    module = getattr(sd, part)
    before, names = run(sd, part), list(module.state_dict())
    added = add_lora(module, rank=3, alpha=5, targets=targets)
    assert added.adapters
    assert run(sd, part).tobytes() == before.tobytes()
    assert list(module.state_dict()) == names


def test_each_preset_holds_more_layers_than_the_one_before(sd):
    counts = [len(lora.select_layers(sd.unet, targets)[0]) for targets in lora.TARGETS]
    attention = len(sd.unet.attention_sites(self_only=False))
    assert counts[0] == 4 * attention
    assert counts[1] == 4 * attention + 4 * len(sd.unet.attention_sites())
    convolutions = [n for n, m in sd.unet.named_modules() if isinstance(m, jt.nn.Conv)]
    assert not {"conv_in", "conv_out"} & set(lora.select_layers(sd.unet, "convolutions")[0])
    proj = 0 if sd.unet.config.use_linear_projection else 2 * len(sd.unet.attention_sites())
    assert counts[2] == counts[1] + len(convolutions) - proj - 2


def test_removing_brings_the_very_same_layers_and_bits_back(sd):
    for part in lora.PARTS:
        module = getattr(sd, part)
        before, objects = run(sd, part), modules(module)
        train(add_lora(module, targets="convolutions"))
        assert rel_l2(run(sd, part), before) > 0.01
        remove_lora(module)
        assert modules(module) == objects
        assert run(sd, part).tobytes() == before.tobytes()


def test_loras_on_top_of_each_other_come_off_in_any_order(sd):
    plain, objects = run(sd), modules(sd.unet)
    first = train(add_lora(sd.unet, 2, targets="feed-forward"))
    with_first = run(sd)
    second = train(add_lora(sd.unet, 3, targets=("to_q", "conv1"), seed=1), scale=0.5)
    both = run(sd)
    assert len({out.tobytes() for out in (plain, with_first, both)}) == 3
    with pytest.raises(ValueError, match="several LoRAs on .*to_q"):
        lora.lora_parameters(sd.unet)
    remove_lora(sd.unet, second)
    assert run(sd).tobytes() == with_first.tobytes()
    assert lora.lora_parameters(sd.unet).keys() == first.parameters().keys()
    third = train(add_lora(sd.unet, 3, targets=("to_q", "conv1"), seed=1), scale=0.5)
    assert run(sd).tobytes() == both.tobytes()
    remove_lora(sd.unet, first)
    remove_lora(sd.unet, third)
    assert modules(sd.unet) == objects and run(sd).tobytes() == plain.tobytes()
    with pytest.raises(ValueError, match="not on the module"):
        remove_lora(sd.unet, third)


def test_merging_equals_not_merging(sd):
    weights_before = {n: v.numpy().copy() for n, v in sd.unet.state_dict().items()}
    objects = modules(sd.unet)
    train(add_lora(sd.unet, 3, 5, "convolutions"))
    train(add_lora(sd.unet, 2, 1, "attention"), scale=0.5)
    before = run(sd)
    sd.unet.conv_in.weight.start_grad()
    trained = [var.requires_grad for var in sd.unet.parameters()]
    try:
        merge_lora(sd.unet)
        assert_close("lora.merged", run(sd), before)
        assert modules(sd.unet) == objects
        assert [var.requires_grad for var in sd.unet.parameters()] == trained
    finally:
        weights.load_strict(sd.unet, weights_before)


def test_only_the_factors_take_gradients_in_a_model_at_rest(sd):
    sd.unet.eval()
    added = train(add_lora(sd.unet, targets="convolutions"))
    parameters = list(added.parameters().values())
    assert all(var.requires_grad for var in parameters)
    assert not any(var.requires_grad for var in sd.unet.parameters())
    rng = np.random.default_rng(8)
    z, context = (rng.standard_normal(s, np.float32) for s in ((1, 4, 16, 16), (1, 5, 20)))
    out = sd.unet(jt.array(z), 3, jt.array(context))
    grads = jt.grad((out * out).sum(), parameters)
    assert all(g.numpy().any() for g in grads)


def test_a_new_lora_depends_on_its_seed_and_on_nothing_else(sd):
    def drawn(**options):
        remove_lora(sd.unet)
        added = add_lora(sd.unet, 3, **options).parameters()
        return {name: var.numpy() for name, var in added.items()}

    first, again, other = drawn(seed=4), drawn(seed=4, targets="feed-forward"), drawn(seed=5)
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
        if name.endswith("lora_A"):
            assert (value != other[name]).any()
            bound = value[0].size ** -0.5
            assert np.abs(value).max() <= bound and np.abs(value).max() > 0.5 * bound
        else:
            assert not value.any()


@pytest.mark.parametrize("format", ["diffusers", "kohya"])
def test_a_file_gives_the_same_bits_back(sd, format, tmp_path):
    path = tmp_path / "lora.safetensors"
    loras = add_both(sd, rank=3, alpha=1.5)
    wanted = [run(sd, part) for part in lora.PARTS]
    save_lora(path, sd, loras, format, metadata={"step": "250"})
    remove_both(sd)
    report = load_lora(sd, path)
    assert report.applied == report.total == len(load_file(path))
    assert [run(sd, p).tobytes() for p in lora.PARTS] == [w.tobytes() for w in wanted]
    header = weights.read_metadata(path)
    told = json.loads(header["jstyle_lora"])
    assert header["step"] == "250" and told["base"]["name"] == sd.name
    assert (told["unet"]["r"], told["unet"]["lora_alpha"]) == (3, 1.5)
    assert told["text_encoder"]["target_modules"][0] == "q_proj"
    if format == "kohya":
        assert header["ss_network_dim"] == "3" and header["ss_network_alpha"] == "1.5"


def test_one_format_becomes_the_other(sd, tmp_path):
    paths = [tmp_path / f"{name}.safetensors" for name in ("first", "kohya", "back")]
    save_lora(paths[0], sd, add_both(sd, rank=2, alpha=3))
    for source, target, format in ((0, 1, "kohya"), (1, 2, "diffusers")):
        remove_both(sd)
        save_lora(paths[target], sd, load_lora(sd, paths[source]).loras, format)
    first, back = load_file(paths[0]), load_file(paths[2])
    assert first.keys() == back.keys() and not first.keys() & load_file(paths[1]).keys()
    assert all((first[name] == back[name]).all() for name in first)
    alphas = [f.alpha for f in read_lora(paths[2]).parts["unet"].values()]
    assert set(alphas) == {3.0}


def test_half_precision_files_are_half_as_big_and_close(sd, tmp_path):
    loras = add_both(sd, "attention", alpha=2)
    before = run(sd)
    for dtype in ("float32", "float16"):
        save_lora(tmp_path / dtype, sd, loras, dtype=dtype)
    assert (tmp_path / "float16").stat().st_size < 0.7 * (tmp_path / "float32").stat().st_size
    remove_both(sd)
    load_lora(sd, tmp_path / "float16")
    assert 0 < rel_l2(run(sd), before) < 1e-2


def test_a_kohya_file_with_an_alpha_that_is_not_the_rank(sd, tmp_path):
    """Names and alpha as other tools write them: 0-dimensional, in the file's own number type."""
    rng = np.random.default_rng(0)
    layer = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    weight = dict(sd.unet.state_dict())[f"{layer}.weight"]
    down, up = (rng.standard_normal(s).astype(np.float16) for s in ((4, 20), (weight.shape[0], 4)))
    stem = "lora_unet_" + layer.replace(".", "_")
    tensors = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
    save_file({**tensors, f"{stem}.alpha": np.array(1.0, np.float16)}, tmp_path / "k")
    report = load_lora(sd, tmp_path / "k", weight=0.5)
    assert (report.applied, report.total) == (3, 3)
    wanted = 0.5 * (1 / 4) * up.astype(np.float32) @ down.astype(np.float32)
    np.testing.assert_allclose(report.loras["unet"].adapters[layer].delta().numpy(), wanted, 1e-5)
    save_file(tensors, tmp_path / "without")
    assert read_lora(tmp_path / "without").parts["unet"].popitem()[1].alpha == 4


def test_names_of_older_and_newer_files_mean_the_same_layers(sd, tmp_path):
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
    text = "encoder.layers.0.self_attn.q_proj"
    down, up = np.ones((2, 8), np.float32), np.ones((8, 2), np.float32)
    text_down, text_up = np.ones((2, 20), np.float32), np.ones((20, 2), np.float32)
    spellings = [
        (f"unet.{layer}.processor.to_out_lora.down.weight", "to_out.0"),
        (f"{layer}.processor.to_q_lora.down.weight", "to_q"),
        (f"{layer}.to_k.lora_A.weight", "to_k"),
    ]
    other = {"down": "up", "lora_A": "lora_B"}
    for key, name in spellings:
        role = "lora_A" if "lora_A" in key else "down"
        for prefix in ("", "text_model."):
            stem = f"text_encoder.{prefix}{text}.lora_A.weight"
            file = {key: down, key.replace(f".{role}.", f".{other[role]}."): up}
            file |= {stem: text_down, stem.replace("lora_A", "lora_B"): text_up}
            save_file(file, tmp_path / "lora")
            loras = load_lora(sd, tmp_path / "lora").loras
            assert [*loras["unet"].adapters] == [f"{layer}.{name}"]
            assert [*loras["text_encoder"].adapters] == [f"text_model.{text}"]


def test_weights_of_several_files_scale_each_its_own(sd, tmp_path):
    loras = add_both(sd, "attention")
    save_lora(tmp_path / "a", sd, loras)
    full = run(sd)
    remove_both(sd)
    plain = run(sd)
    for weight in (0.75, 0.25):
        load_lora(sd, tmp_path / "a", weight)
    assert_close("lora.merged", run(sd), full)
    load_lora(sd, tmp_path / "a", -1.0)
    assert_close("lora.merged", run(sd), plain)
    remove_both(sd)
    load_lora(sd, tmp_path / "a", 0.0)
    assert run(sd).tobytes() == plain.tobytes()


def factors(rank, inner, out, alpha=1.0):
    return Factors(np.ones((rank, inner), np.float32), np.ones((out, rank), np.float32), alpha)


def refused(sd, path, *expected):
    """Loading fails with one line that holds the texts, and leaves the model as it was."""
    objects = modules(sd.unet), modules(sd.text_encoder)
    with pytest.raises(WeightsError) as error:
        load_lora(sd, path)
    message = str(error.value)
    assert "\n" not in message and str(path) in message
    for text in expected:
        assert text in message, message
    assert (modules(sd.unet), modules(sd.text_encoder)) == objects


def test_a_lora_of_another_base_is_refused_by_what_differs(made, tmp_path):
    save_lora(tmp_path / "sd1", made["sd1"], add_both(made["sd1"], "attention"))
    remove_both(made["sd1"])
    refused(made["sd2"], tmp_path / "sd1", "made for another model, tiny sd1", "num_heads")


def test_a_lora_of_another_width_is_refused_with_both_widths(sd, tmp_path):
    layer = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    wide = {"unet": {layer: factors(4, 768, 32)}}
    write_lora(tmp_path / "wide", wide, {"unet": ("to_k",)}, {})
    texts = "made for another model", f"unet {layer} [32, 768] instead of [32, 20]"
    refused(sd, tmp_path / "wide", *texts)
    refused(sd, tmp_path / "wide", "(by its text features, Stable Diffusion 1.x)")
    kernel = np.ones((4, 32, 3, 3), np.float32)
    kernels = {"unet": {"mid_block.attentions.0.proj_in": Factors(kernel, one(32, 4), 4.0)}}
    write_lora(tmp_path / "kernel", kernels, {"unet": ("proj_in",)}, {}, "kohya")
    refused(sd, tmp_path / "kernel", "another shape", "proj_in [32, 32, 3, 3] instead of [32, 32")


def one(*shape):
    return np.ones((*shape, 1, 1), np.float32)


def test_keys_that_are_left_over_are_an_error_that_names_them(sd, tmp_path):
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    down, up = np.ones((2, 32), np.float32), np.ones((32, 2), np.float32)
    good = {f"{layer}.lora.down.weight": down, f"{layer}.lora.up.weight": up}
    path = tmp_path / "file"

    save_file({**good, f"{layer}.magnitude": up}, path)
    refused(sd, path, "1 of 3 keys are left over", "to_q.magnitude", "diffusers, kohya and peft")
    save_file({**good, f"{layer}.lora_A.weight": down}, path)
    refused(sd, path, "1 of 3 keys are left over")
    save_file({name.replace("ns.0.", "ns.7."): value for name, value in good.items()}, path)
    refused(sd, path, "1 layers that this model does not have", "mid_block.attentions.7")
    save_file({"conv_in.weight": down}, path)
    refused(sd, path, "is a whole UNet, not a plain LoRA; a model is given with --model")
    save_file({"a.b": down}, path)
    refused(sd, path, "1 of 1 keys are left over: a.b")
    save_file({f"{layer}.lora.down.weight": down}, path)
    refused(sd, path, "lack a factor", "to_q")
    save_file({**good, f"{layer}.lora.up.weight": np.ones((32, 3), np.float32)}, path)
    refused(sd, path, "lack a factor or the two disagree", "to_q")
    save_file({**good, f"{layer}.lora.up.weight": up * np.nan}, path)
    refused(sd, path, "not finite", "to_q.lora.up")
    save_file({}, path)
    refused(sd, path, "no tensors")
    save_file(good, path, {"lora_adapter_metadata": '{"unet.use_dora": true}'})
    refused(sd, path, "is a DoRA adapter (use_dora)")
    save_file(good, path, {"lora_adapter_metadata": '{"unet.lora_alpha": "much"}'})
    refused(sd, path, "lora_adapter_metadata in the header", "much")
    save_file(good, path, {"lora_adapter_metadata": "r=2"})
    refused(sd, path, "not JSON")


def test_a_file_that_is_missing_or_cut_short_is_refused(sd, tmp_path):
    refused(sd, tmp_path / "nothing.safetensors", "no such file")
    refused(sd, tmp_path, "no LoRA in this folder; looked for pytorch_lora_weights.safetensors")
    save_lora(tmp_path / "whole.safetensors", sd, add_both(sd, "attention"))
    remove_both(sd)
    whole = (tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "cut").write_bytes(whole[:-100])
    (tmp_path / "x.bin").write_bytes(b"")
    refused(sd, tmp_path / "cut", "cut short")
    refused(sd, tmp_path, "which one? name one of whole.safetensors, x.bin")


def test_bad_options_name_what_is_allowed(sd, tmp_path):
    with pytest.raises(ValueError, match="rank must be an integer, at least 1, got 0"):
        add_lora(sd.unet, 0)
    with pytest.raises(ValueError, match="alpha must be a number above 0, got -1"):
        add_lora(sd.unet, 4, -1)
    with pytest.raises(ValueError, match="attention, feed-forward, convolutions, got 'all'"):
        add_lora(sd.unet, targets="all")
    with pytest.raises(ValueError, match="no layer's name ends in to_x; there is conv_in"):
        add_lora(sd.unet, targets=("to_q", "to_x"))
    with pytest.raises(ValueError, match="no layer's name ends in to_q, .*; there is 0"):
        add_lora(jt.nn.Sequential(jt.nn.Linear(2, 2)))
    with pytest.raises(ValueError, match="weight of a LoRA must be a number, got nan"):
        load_lora(sd, tmp_path, float("nan"))
    with pytest.raises(ValueError, match="unet or text_encoder"):
        save_lora(tmp_path / "file", sd, {})
    added = add_lora(sd.unet)
    with pytest.raises(ValueError, match="diffusers or kohya, got 'ckpt'"):
        save_lora(tmp_path / "file", sd, {"unet": added}, "ckpt")
    with pytest.raises(ValueError, match="float32.*'bfloat16'"):
        save_lora(tmp_path / "file", sd, {"unet": added}, dtype="bfloat16")
    assert not (tmp_path / "file").exists()
