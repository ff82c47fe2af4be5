"""Every spelling of a LoRA gives the factors of the plain file; other kinds are named."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jstyle.sd import lora
from jstyle.sd.lora import add_lora, load_lora, remove_lora, save_lora
from jstyle.sd.lora_files import read_lora
from jstyle.sd.lora_names import dotted, from_ldm, place
from jstyle.sd.startup import jt
from jstyle.sd.weights import WeightsError
from tests import tiny
from tests.loras import (
    diffusers_name,
    kohya,
    kohya_on_ldm,
    old_diffusers,
    only_qkv,
    peft_both,
    peft_default,
    respelled,
    torch_zip,
)
from tests.loras import write_peft as write_config

ALPHA, RANK = 1.5, 3
ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
TEXT = "text_model.encoder.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module", params=list(tiny.KINDS))
def plain(request, tmp_path_factory):
    """A model without LoRA, and the diffusers file of one on every layer that can have it."""
    sd = tiny.make_ours(request.param)
    added = {p: add_lora(getattr(sd, p), RANK, ALPHA, "convolutions") for p in lora.PARTS}
    for one in added.values():
        for name, var in one.parameters().items():
            var.assign(jt.array(tiny.values_of(name, var.shape)))
    path = tmp_path_factory.mktemp("plain") / "plain.safetensors"
    save_lora(path, sd, added)
    for part in lora.PARTS:
        remove_lora(getattr(sd, part))
    return sd, path


@pytest.fixture
def sd(plain):
    yield plain[0]
    for part in lora.PARTS:
        remove_lora(getattr(plain[0], part))


def factors_of(sd, path):
    """(part, layer) -> down, up, alpha as they are on the model, which is plain again after."""
    loras = load_lora(sd, path).loras
    found = {
        (part, name): (a.lora_A.numpy(), a.lora_B.numpy(), a.alpha)
        for part, one in loras.items()
        for name, a in one.adapters.items()
    }
    for part in lora.PARTS:
        remove_lora(getattr(sd, part))
    return found


def same(ours, wanted):
    assert ours.keys() == wanted.keys() and wanted
    for name, (down, up, alpha) in wanted.items():
        np.testing.assert_array_equal(ours[name][0], down)
        np.testing.assert_array_equal(ours[name][1], up)
        assert ours[name][2] == alpha


SPELLINGS = (old_diffusers, peft_both, peft_default, kohya, kohya_on_ldm)


@pytest.mark.parametrize("spell", SPELLINGS, ids=lambda spell: spell.__name__)
def test_every_spelling_gives_the_factors_of_the_plain_file(plain, sd, spell, tmp_path):
    wanted = factors_of(sd, plain[1])
    tensors = respelled(plain[1], spell)
    assert len(tensors) == 2 * len(wanted)
    alphas = {name.replace("lora_down.weight", "alpha") for name in tensors if "_down" in name}
    header = {"lora_adapter_metadata": json.dumps({"lora_alpha": ALPHA})}
    if spell in (kohya, kohya_on_ldm):
        tensors |= {name: np.array(ALPHA, np.float16) for name in alphas if "alpha" in name}
        header = None
    save_file(tensors, tmp_path / "other.safetensors", header)
    same(factors_of(sd, tmp_path / "other.safetensors"), wanted)
    import_lora(tmp_path / "other.safetensors", tmp_path / "back.safetensors")
    first, back = load_file(plain[1]), load_file(tmp_path / "back.safetensors")
    assert first.keys() == back.keys()
    assert all((first[name] == back[name]).all() for name in first)


def import_lora(source, out, *more):
    from jdreambooth.merge import import_lora

    return import_lora(source, out, *more).lines


def test_names_of_the_original_unet_are_those_of_the_table():
    """Pairs from the conversion tables that LDM and diffusers publish."""
    pairs = {
        "input_blocks_1_1_transformer_blocks_0_attn1_to_out_0": "down_blocks.0.attentions.0."
        "transformer_blocks.0.attn1.to_out.0",
        "input_blocks_8_1_proj_in": "down_blocks.2.attentions.1.proj_in",
        "input_blocks_3_0_op": "down_blocks.0.downsamplers.0.conv",
        "input_blocks_10_0_emb_layers_1": "down_blocks.3.resnets.0.time_emb_proj",
        "middle_block_1_transformer_blocks_0_ff_net_0_proj": "mid_block.attentions.0."
        "transformer_blocks.0.ff.net.0.proj",
        "middle_block_2_in_layers_2": "mid_block.resnets.1.conv1",
        "output_blocks_2_1_conv": "up_blocks.0.upsamplers.0.conv",
        "output_blocks_5_2_conv": "up_blocks.1.upsamplers.0.conv",
        "output_blocks_11_0_skip_connection": "up_blocks.3.resnets.2.conv_shortcut",
        "output_blocks_3_1_transformer_blocks_0_attn2_to_k": "up_blocks.1.attentions.0."
        "transformer_blocks.0.attn2.to_k",
        "time_embed_2": "time_embedding.linear_2",
    }
    assert {name: from_ldm(dotted(name)) for name in pairs} == pairs
    assert place("lora_te_text_model_encoder_layers_3_mlp_fc1.lora_up.weight") == (
        "text_encoder",
        "text_model.encoder.layers.3.mlp.fc1",
        "up",
    )


# ---- folders of peft


def write_peft(folder, tensors, **config):
    return write_config(folder, tensors, **{"r": RANK, "lora_alpha": ALPHA, **config})


def split(path, part):
    """The plain file's tensors of one part, as peft saves that model."""
    return {
        name.removeprefix(f"{part}."): values
        for name, values in respelled(path, peft_both).items()
        if name.startswith(f"{part}.")
    }


@pytest.mark.parametrize("part", lora.PARTS)
def test_a_folder_of_peft_is_one_parts_lora_with_alpha_from_its_config(plain, sd, part, tmp_path):
    wanted = {k: v for k, v in factors_of(sd, plain[1]).items() if k[0] == part}
    folder = write_peft(tmp_path / "adapter", split(plain[1], part))
    same(factors_of(sd, folder), wanted)
    same(factors_of(sd, folder / "adapter_model.safetensors"), wanted)
    assert read_lora(folder).files == (
        folder / "adapter_model.safetensors",
        folder / "adapter_config.json",
    )
    (folder / "adapter_config.json").unlink()
    report = load_lora(sd, folder)
    assert {a.alpha for a in report.loras[part].adapters.values()} == {RANK}
    assert "no adapter_config.json" in report.notes[0] and len(report.notes) == 1


def test_a_folder_with_a_folder_of_peft_for_each_part(plain, sd, tmp_path):
    wanted = factors_of(sd, plain[1])
    for part in lora.PARTS:
        write_peft(tmp_path / part, split(plain[1], part), lora_alpha={"unet": 6}.get(part, ALPHA))
    found = factors_of(sd, tmp_path)
    assert {alpha for (part, _), (*_, alpha) in found.items() if part == "unet"} == {6.0}
    text = {name: value for name, value in found.items() if name[0] != "unet"}
    same(text, {name: value for name, value in wanted.items() if name[0] != "unet"})


def test_options_of_peft_scale_as_peft_does(plain, sd, tmp_path):
    tensors = split(plain[1], "unet")

    def alphas(**config):
        found = factors_of(sd, write_peft(tmp_path, tensors, **config))
        return {name: alpha for (_, name), (*_, alpha) in found.items()}

    rooted = alphas(use_rslora=True, alpha_pattern={r"^down_blocks.*to_q": 6, "conv1": 9})
    assert rooted.pop(f"{ATTENTION}.to_q") == 6 * RANK**0.5
    assert {v for n, v in rooted.items() if n.endswith("conv1")} == {9 * RANK**0.5}
    assert rooted["mid_block.attentions.0.proj_in"] == ALPHA * RANK**0.5
    assert set(alphas(init_lora_weights="gaussian", bias="none").values()) == {ALPHA}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"peft_type": "LOHA"}, "is an adapter of the kind LOHA, not a plain LoRA; merge"),
        ({"use_dora": True}, "is a DoRA adapter (use_dora), not a plain LoRA; merge"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is not supported"),
        ({"lora_bias": True}, "lora_bias is not supported"),
        ({"bias": "all"}, "biases that were trained too"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights pissa_niter_4 changes the"),
        ({"lora_alpha": "much"}, "could not convert string to float: 'much'"),
        ({"lora_alpha": float("inf")}, "Infinity is not a number"),
        ({"alpha_pattern": {"(a+)+": 1}}, "the pattern (a+)+ can take for ever"),
        ({"alpha_pattern": [1]}, "has no attribute"),
    ],
    ids=str,
)
def test_options_of_peft_that_are_not_supported_are_named(plain, config, words, tmp_path):
    refused(write_peft(tmp_path, split(plain[1], "unet"), **config), words)


def test_a_config_of_peft_that_cannot_be_read(plain, tmp_path):
    write_peft(tmp_path, split(plain[1], "unet"))
    for text, words in (("[1]", "must hold an object"), ("{", "not JSON")):
        (tmp_path / "adapter_config.json").write_text(text)
        refused(tmp_path, f"adapter_config.json: {words}")
    (tmp_path / "adapter_config.json").write_text("[" * 200_000)
    refused(tmp_path, "adapter_config.json: nested deeper than 64 levels")


# ---- .bin


@pytest.mark.parametrize("checksum", [None, 0], ids=["checksums", "checksums of 0"])
def test_a_bin_of_the_contests_baseline_is_read_and_its_gap_told(plain, sd, checksum, tmp_path):
    tensors = only_qkv(respelled(plain[1], diffusers_name))
    torch_zip(tmp_path / "pytorch_lora_weights.bin", tensors, checksum)
    report = load_lora(sd, tmp_path)
    assert (report.applied, report.total) == (len(tensors), len(tensors))
    assert len(report.notes) == 1 and "to_out.0 is not: JDiffusion's example" in report.notes[0]
    remove_lora(sd.unet)
    wanted = tmp_path / "same.safetensors"
    save_file(tensors, wanted)
    same(factors_of(sd, tmp_path / "pytorch_lora_weights.bin"), factors_of(sd, wanted))
    assert read_lora(wanted).notes == ()


def test_a_checksum_that_is_wrong_is_refused(plain, tmp_path):
    tensors = only_qkv(respelled(plain[1], diffusers_name))
    refused(torch_zip(tmp_path / "x.bin", tensors, 1234), "Bad CRC-32")


def test_a_pickle_of_arrays_as_jittor_saves_them(plain, sd, tmp_path):
    import hashlib

    tensors = respelled(plain[1], diffusers_name)
    data = pickle.dumps({n: np.array(v) for n, v in tensors.items()}, 4)
    path = tmp_path / "pytorch_lora_weights.bin"
    for end in (b"", hashlib.sha1(data).digest() + b"HCAJSLHD"):
        path.write_bytes(data + end)
        found = read_lora(tmp_path)
        assert found.keys == len(tensors) and found.notes == ()
        for name, values in respelled(path, diffusers_name).items():
            np.testing.assert_array_equal(values, tensors[name])
    path.write_bytes(data + bytes(20) + b"HCAJSLHD")
    refused(path, "its checksum is another")


# ---- shapes


def test_a_1x1_convolution_and_a_linear_layer_are_the_same(plain, sd, tmp_path):
    wanted = factors_of(sd, plain[1])
    turned = {}
    for name, values in respelled(plain[1], kohya).items():
        if "proj_in" in name or "proj_out" in name:
            values = values[:, :, None, None] if values.ndim == 2 else values[:, :, 0, 0]
        turned[name] = np.ascontiguousarray(values)
        turned[f"{name.split('.')[0]}.alpha"] = np.array(ALPHA, np.float32)
    save_file(turned, tmp_path / "turned")
    same(factors_of(sd, tmp_path / "turned"), wanted)


def test_a_kernel_between_the_factors_is_folded_into_the_first(sd, tmp_path):
    layer = "lora_unet_down_blocks_0_resnets_0_conv1"
    rng = np.random.default_rng(0)
    shapes = {"down": (RANK, 8, 1, 1), "mid": (RANK, RANK, 3, 3), "up": (8, RANK, 1, 1)}
    parts = {role: rng.standard_normal(s).astype(np.float32) for role, s in shapes.items()}
    save_file({f"{layer}.lora_{r}.weight": v for r, v in parts.items()}, tmp_path / "mid")
    report = load_lora(sd, tmp_path / "mid")
    delta = report.loras["unet"].adapters["down_blocks.0.resnets.0.conv1"].delta().numpy()
    # the three convolutions, one after the other, as sums over their channels
    wanted = np.zeros((8, 8, 3, 3))
    for a in range(RANK):
        for b in range(RANK):
            one = np.outer(parts["up"][:, a, 0, 0], parts["down"][b, :, 0, 0])
            wanted += one[:, :, None, None] * parts["mid"][a, b]
    np.testing.assert_allclose(delta, wanted, rtol=1e-5, atol=1e-5)
    assert "lora_mid" in report.notes[0]


# ---- what is named and left out


def refused(path, *expected):
    with pytest.raises(WeightsError) as caught:
        read_lora(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message and len(message) < 600
    for text in expected:
        assert text in message, message


ONE = np.ones((4, 4), np.float32)
STEM = "lora_unet_mid_block_attentions_0_proj_in"
GOOD = {f"{STEM}.lora_down.weight": ONE, f"{STEM}.lora_up.weight": ONE}


def test_a_bundled_embedding_is_left_out_and_told(sd, tmp_path):
    layer = f"unet.{ATTENTION}.to_q"
    down, up = np.ones((2, 12), np.float32), np.ones((12, 2), np.float32)
    tensors = {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}
    bundled = {"bundle_emb.tok.string_to_param.*": ONE, "bundle_emb.tok2.clip_l": ONE}
    save_file({**tensors, **bundled}, tmp_path / "b.safetensors")
    report = load_lora(sd, tmp_path / "b.safetensors")
    assert (report.applied, report.total) == (2, 4)
    assert report.notes == (
        "its bundled embedding tok, tok2 is left out, as embeddings are not taken; the LoRA is "
        "taken",
    )


@pytest.mark.parametrize(
    ("tensors", "what", "way_out"),
    [
        ({**GOOD, f"{STEM}.dora_scale": ONE}, "a DoRA adapter", "diffusers (load_lora_weights"),
        ({"unet.a.lora_magnitude_vector": ONE[0]}, "a DoRA adapter", "fuse_lora"),
        ({f"{STEM}.hada_w1_a": ONE, f"{STEM}.alpha": ONE[0, :1]}, "a LoHa adapter", "LyCORIS"),
        ({f"{STEM}.lokr_w1": ONE, f"{STEM}.lokr_w2_a": ONE}, "a LoKr adapter", "merge it into"),
        ({f"{STEM}.oft_blocks": ONE}, "an OFT adapter", "LyCORIS"),
        ({"base_model.model.mid.to_k.ia3_l": ONE}, "an IA3 adapter", "peft (merge_and_unload"),
        ({f"{STEM}.diff": ONE}, "whole differences", "LyCORIS"),
        ({"emb_params": ONE}, "a textual inversion", "embeddings are not taken"),
        ({"<cat-toy>": ONE}, "a textual inversion (<cat-toy>)", "embeddings are not taken"),
        ({"fox": np.ones(768, np.float32)}, "a textual inversion (fox)", "are not taken"),
        ({"string_to_param.*": ONE}, "a textual inversion", "jdreambooth train"),
        ({"lora_te1_text_model_x.lora_up.weight": ONE}, "a LoRA for SDXL", "1.x and 2.x"),
        (
            {"unet.down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q.lora_A.weight": ONE},
            "a LoRA for SDXL",
            "1.x and 2.x",
        ),
        (
            {f"unet.{ATTENTION[:-5]}attn2.to_k.lora_A.weight": np.ones((1, 2048), np.float32)},
            "a LoRA for SDXL",
            "1.x and 2.x",
        ),
        ({"transformer.x.attn.to_q.lora_A.weight": ONE}, "a LoRA for a transformer", "1.x and"),
        ({"lora_unet_double_blocks_0_x.lora_up.weight": ONE}, "for a transformer", "1.x and"),
        ({"controlnet_cond_embedding.conv_in.weight": ONE}, "a ControlNet", "conditions"),
        ({"control_model.input_hint_block.0.weight": ONE}, "a ControlNet", "conditions"),
        ({"image_proj.proj.weight": ONE}, "an IP-Adapter", "conditions"),
        ({"model.diffusion_model.a": ONE, "first_stage_model.b": ONE}, "a whole model", "--model"),
        ({"conv_in.weight": ONE, "a.b": ONE}, "a whole UNet", "--model"),
        ({"conv_in.weight": np.ones((4, 9, 3, 3), np.float32)}, "a whole UNet for inpainting", "9"),
        ({"encoder.conv_in.weight": ONE}, "a VAE", "--model"),
        ({"text_model.embeddings.token_embedding.weight": ONE}, "a whole text encoder", "--model"),
        ({"unet:0:up": ONE, "unet:0:down": ONE}, "a LoRA of 2022", "peft"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_of_other_kinds_are_named_with_a_way_out(tmp_path, tensors, what, way_out):
    save_file(tensors, tmp_path / "f.safetensors")
    refused(tmp_path / "f.safetensors", f"is {what}" if what[:2] == "a " else what, way_out)
    torch_zip(tmp_path / "f.bin", tensors)
    refused(tmp_path / "f.bin", what, way_out)


def test_folders_that_hold_none_or_several(plain, tmp_path):
    refused(tmp_path, "no LoRA in this folder; looked for")
    (tmp_path / "model_index.json").write_text("{}")
    refused(tmp_path, "is a whole model, not a plain LoRA; a model is given with --model")
    (tmp_path / "model_index.json").unlink()
    for step in ("step-000250", "step-000500"):
        (tmp_path / step).mkdir()
        (tmp_path / step / "pytorch_lora_weights.safetensors").write_bytes(plain[1].read_bytes())
    refused(tmp_path, "which one? name one of step-000250, step-000500")
    (tmp_path / "mine.safetensors").write_bytes(plain[1].read_bytes())
    assert read_lora(tmp_path).path == tmp_path / "mine.safetensors"
    refused(tmp_path / "none.bin", "no such file")
    save_file({"a\x1b[2J\nb" + "c" * 900: ONE}, tmp_path / "n.safetensors")
    refused(tmp_path / "n.safetensors", r"1 of 1 keys are left over: a\x1b[2J\nbccc")
    (tmp_path / "text.bin").write_bytes(b"hello, this is text")
    refused(tmp_path / "text.bin", "not a safetensors file")


# ---- import


def test_import_tells_each_part_and_what_is_left_out(plain, tmp_path):
    tensors = {**respelled(plain[1], kohya), "bundle_emb.tok.clip_l": ONE}
    save_file(tensors, tmp_path / "in.safetensors")
    lines = import_lora(tmp_path / "in.safetensors", tmp_path / "out.safetensors", "kohya")
    counts = {part: len(read_lora(plain[1]).parts[part]) for part in ("unet", "text_encoder")}
    assert lines[:2] == tuple(f"{p}: {n} layers, rank 3, alpha 3" for p, n in counts.items())
    assert lines[2].startswith("its bundled embedding tok is left out") and len(lines) == 3
    written = load_file(tmp_path / "out.safetensors")
    assert written.keys() - {f"{n.split('.')[0]}.alpha" for n in tensors} == tensors.keys() - {
        "bundle_emb.tok.clip_l"
    }
    half = import_lora(plain[1], tmp_path / "half.safetensors", "diffusers", "float16")
    assert half == tuple(f"{p}: {n} layers, rank 3, alpha 1.5" for p, n in counts.items())
    assert load_file(tmp_path / "half.safetensors").popitem()[1].dtype == np.float16
    with pytest.raises(ValueError, match="is also an input"):
        import_lora(tmp_path / "in.safetensors", tmp_path / "x" / ".." / "in.safetensors")
    with pytest.raises(ValueError, match="must end in .safetensors"):
        import_lora(tmp_path / "in.safetensors", tmp_path / "out.bin")
    with pytest.raises(ValueError, match="format must be one of diffusers, kohya, got 'ckpt'"):
        import_lora(tmp_path / "in.safetensors", tmp_path / "o.safetensors", "ckpt")
