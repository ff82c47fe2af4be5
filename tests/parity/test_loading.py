"""Folders written by diffusers are read exactly, and what we write is read by diffusers."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jstyle.sd import StableDiffusion, hub
from jstyle.sd.startup import jt
from jstyle.sd.weights import WeightsError
from tests import tiny
from tests.tolerances import assert_close

PARTS = ("unet", "vae", "text_encoder")
UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"


def assert_weights_are(sd, dtype):
    """Every parameter holds its own value, as it is after a round trip through `dtype`."""
    for part in PARTS:
        state = getattr(sd, part).state_dict()
        assert len(state) > 20
        for name, var in state.items():
            expected = tiny.values_of(name, var.shape).astype(dtype).astype(np.float32)
            np.testing.assert_array_equal(var.numpy(), expected, err_msg=f"{part} {name}")


def copy_of(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "model")


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_parameter_is_filled_exactly(tiny_folder, kind, dtype):
    sd = StableDiffusion.from_pretrained(tiny_folder(kind, dtype=dtype))
    # the values are chosen to fit into bfloat16
    assert_weights_are(sd, "float16" if dtype == "float16" else "float32")


def test_a_pipeline_saved_after_use_reads_as_before(tmp_path):
    """A call leaves padding and truncation behind in tokenizer.json."""
    pipeline = tiny.make_theirs("sd2")
    pipeline.encode_prompt("a star", "cpu", 1, False)
    pipeline.save_pretrained(tmp_path)
    state = json.loads((tmp_path / "tokenizer" / "tokenizer.json").read_text("utf-8"))
    assert state["padding"]
    prompts = ["a star in mosaic style", "", "a cat " * 60]
    want = pipeline.tokenizer(prompts, padding="max_length", max_length=77, truncation=True)
    ids = StableDiffusion.from_pretrained(tmp_path).tokenizer(prompts)
    np.testing.assert_array_equal(ids, want.input_ids)


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_and_variants_are_found(tiny_folder, variant):
    folder = tiny_folder("sd2", dtype="float16", variant=variant, max_shard_size="200KB")
    assert hub.weight_file(folder, "unet", variant).suffix == ".json"  # several shards
    assert_weights_are(StableDiffusion.from_pretrained(folder, variant=variant), "float16")


def test_a_variant_that_was_not_asked_for_is_not_taken(tiny_folder):
    folder = tiny_folder("sd2", dtype="float16", variant="fp16")
    assert_weights_are(StableDiffusion.from_pretrained(folder, variant="fp16"), "float16")
    with pytest.raises(hub.HubError, match=r"no such file; there is diffusion_.*fp16\.safetensors"):
        StableDiffusion.from_pretrained(folder)


@pytest.mark.parametrize("prefix", ["text_model.", ""])
def test_text_encoders_of_old_and_new_transformers_are_read(tiny_folder, tmp_path, prefix):
    folder = copy_of(tiny_folder("sd1"), tmp_path)
    tensors = {n.removeprefix("text_model."): v for n, v in load_file(folder / TEXT).items()}
    tensors["embeddings.position_ids"] = np.arange(77)[None]  # older files hold this buffer
    save_file({prefix + n: v for n, v in tensors.items()}, folder / TEXT)
    assert_weights_are(StableDiffusion.from_pretrained(folder), "float32")


def test_old_names_and_shapes_of_the_vae_attention_are_read(tiny_folder, tmp_path):
    folder = copy_of(tiny_folder("sd1"), tmp_path)
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, value in load_file(folder / VAE).items():
        for new, old in names.items():
            if f".attentions.0.{new}." in name:
                name = name.replace(new, old)
                value = value[:, :, None, None] if value.ndim == 2 else value
        tensors[name] = value
    assert sum(v.ndim == 4 and v.shape[2:] == (1, 1) for v in tensors.values()) >= 8
    save_file(tensors, folder / VAE)
    assert_weights_are(StableDiffusion.from_pretrained(folder), "float32")


def test_one_renamed_one_missing_and_one_reshaped_tensor_are_all_listed(tiny_folder, tmp_path):
    folder = copy_of(tiny_folder("sd2"), tmp_path)
    tensors = load_file(folder / UNET)
    tensors["conv_inn.bias"] = tensors.pop("conv_in.bias")
    del tensors["up_blocks.3.resnets.2.conv2.weight"]
    tensors["conv_out.bias"] = tensors["conv_out.bias"][:3]
    save_file(tensors, folder / UNET)
    with pytest.raises(WeightsError) as error:
        StableDiffusion.from_pretrained(folder)
    text = str(error.value)
    assert text.startswith(f"{folder / UNET} does not fit the model; 2 missing: ")
    assert "up_blocks.3.resnets.2.conv2.weight" in text and "conv_in.bias" in text
    assert "1 unexpected: conv_inn.bias" in text
    assert "1 wrong shape: conv_out.bias [3] instead of [4]" in text


def test_a_file_cut_short_is_named(tiny_folder, tmp_path):
    folder = copy_of(tiny_folder("sd2"), tmp_path)
    content = (folder / UNET).read_bytes()
    (folder / UNET).write_bytes(content[:-100])
    with pytest.raises(WeightsError, match="cut short"):
        StableDiffusion.from_pretrained(folder)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_folders_of_2022_with_bin_files_are_read(tiny_folder, tmp_path, dtype):
    import torch

    folder = copy_of(tiny_folder("sd1"), tmp_path)
    for name in (UNET, VAE, TEXT):
        tensors = {
            n: torch.from_numpy(v).to(getattr(torch, dtype))
            for n, v in load_file(folder / name).items()
        }
        if name == TEXT:  # of a text encoder with its projection
            tensors["text_projection.weight"] = torch.zeros(28, 20)
        (folder / name).unlink()
        stem = "pytorch_model" if name == TEXT else "diffusion_pytorch_model"
        torch.save(tensors, (folder / name).with_name(f"{stem}.bin"))
    sd = StableDiffusion.from_pretrained(folder)
    assert_weights_are(sd, "float16" if dtype == "float16" else "float32")


def test_what_is_left_out_of_a_file_is_told(tiny_folder, tmp_path, caplog):
    folder = copy_of(tiny_folder("sd1"), tmp_path)
    tensors = load_file(folder / TEXT)
    save_file({**tensors, "text_projection.weight": np.zeros((28, 20))}, folder / TEXT)
    with caplog.at_level("INFO", "jstyle"):
        StableDiffusion.from_pretrained(folder)
    assert "float32; left out: text_projection.weight" in caplog.text


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_we_save_is_a_pipeline_of_diffusers(tmp_path, kind, dtype):
    import diffusers
    import torch

    sd = tiny.make_ours(kind)
    sd.save_pretrained(tmp_path, dtype)
    assert json.loads((tmp_path / "model_index.json").read_text())["safety_checker"][0] is None
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path, dtype=torch.float32)
    ours = StableDiffusion.from_pretrained(tmp_path)
    assert type(theirs.scheduler).__name__ == "DDIMScheduler"
    assert theirs.scheduler.config.prediction_type == sd.schedule.kind.value
    for part in PARTS:
        state = getattr(ours, part).state_dict()
        for name, tensor in getattr(theirs, part).named_parameters():
            prefix = "" if name in state else "text_model."
            np.testing.assert_array_equal(tensor.detach().numpy(), state[prefix + name].numpy())
    ids = ours.tokenizer(["a star, in mosaic style!"])
    np.testing.assert_array_equal(
        theirs.tokenizer("a star, in mosaic style!", padding="max_length")["input_ids"], ids[0]
    )
    z, context = ours.noise(2, 1, 64, 128), ours.encode_text(["a star", ""])
    with torch.no_grad():
        want = theirs.unet(torch.from_numpy(z.numpy()), 321, torch.from_numpy(context.numpy()))
    with jt.no_grad():
        assert_close("saved unet", ours.unet(z, 321, context).numpy(), want.sample.numpy())
