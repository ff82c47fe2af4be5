"""A whole model in one file: read without a configuration, asked for what it does not say, written.

That the names are those of other programs, tests/parity/test_single_file.py shows.
"""

from __future__ import annotations

import pickle
import types
import zipfile
from functools import cache

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jstyle.sd import hub
from jstyle.sd.compvis import UNET, VAE
from jstyle.sd.config import ScheduleConfig
from jstyle.sd.pipeline import PARTS, StableDiffusion
from jstyle.sd.schedule import alphas_cumprod
from jstyle.sd.single_file import ABOUT, read_checkpoint, write_checkpoint
from jstyle.sd.weights import WeightsError, read_metadata, read_safetensors
from tests import single, tiny

OPEN_CLIP = "cond_stage_model.model."
FIRST = f"{UNET}input_blocks.0.0.weight"


@pytest.fixture(scope="module")
def tensors_of(tmp_path_factory):
    """tensors_of(kind) -> a fresh dictionary of the file's tensors, as another program has them."""
    made = cache(lambda kind: single.plain(kind, tmp_path_factory.mktemp("single")))
    return lambda kind: dict(made(kind))


def same_weights(sd, kind, dtype="float32"):
    for part in PARTS:
        for name, var in getattr(sd, part).state_dict().items():
            wanted = tiny.values_of(name, var.shape).astype(dtype).astype(np.float32)
            np.testing.assert_array_equal(var.numpy(), wanted, err_msg=f"{kind} {part} {name}")


def refusal(path, prediction=None, kind=ValueError) -> str:
    with pytest.raises(kind) as caught:
        read_checkpoint(path, prediction)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text and len(text) < 500
    return text.removeprefix(f"{path}: ")


def saved(tensors, tmp_path, name="model.safetensors", **metadata):
    save_file(tensors, tmp_path / name, metadata or None)
    return tmp_path / name


# ---- what the file does not say


def test_sd2_asks_what_it_predicts_unless_the_file_says_so(tensors_of, tmp_path):
    path = saved(tensors_of("sd2"), tmp_path)
    assert "give --prediction v (2.0 and 2.1 for 768 pixels) or --prediction epsilon" in refusal(
        path
    )
    for asked, kind, side in (("v", "v_prediction", 96), ("epsilon", "epsilon", 64)):
        read = read_checkpoint(path, asked)
        assert read.configs["scheduler"].prediction_type == kind
        assert read.configs["unet"].sample_size == side
        assert read.pad_token == "!"
    marked = saved({**tensors_of("sd2"), "v_pred": np.zeros(0, np.float32)}, tmp_path)
    assert read_checkpoint(marked).configs["scheduler"].prediction_type == "v_prediction"
    for word, kind in (("v", "v_prediction"), ("epsilon", "epsilon")):
        said = saved(tensors_of("sd2"), tmp_path, **{"modelspec.prediction_type": word})
        assert read_checkpoint(said).configs["scheduler"].prediction_type == kind


def test_sd1_predicts_noise_unless_it_is_told_otherwise(tensors_of, tmp_path):
    path = saved(tensors_of("sd1"), tmp_path)
    read = read_checkpoint(path)
    assert read.configs["scheduler"].prediction_type == "epsilon"
    assert read.pad_token == "<|endoftext|>" and not read.notes
    assert read_checkpoint(path, "v").configs["scheduler"].prediction_type == "v_prediction"
    marked = saved({**tensors_of("sd1"), "v_pred": np.zeros(0, np.float32)}, tmp_path)
    overruled = read_checkpoint(marked, "epsilon")
    assert overruled.configs["scheduler"].prediction_type == "epsilon"
    assert overruled.notes == ("the file says that it predicts v_prediction; read as epsilon",)


def test_the_tokenizer_is_asked_for_and_must_be_the_models_own(tensors_of, tmp_path):
    path = saved(tensors_of("sd1"), tmp_path)
    with pytest.raises(hub.HubError, match="holds no tokenizer; give --tokenizer with a folder"):
        StableDiffusion.from_pretrained(path)
    with pytest.raises(hub.HubError, match="--tokenizer nowhere: no such folder, and no hub id"):
        StableDiffusion.from_pretrained(hub.Source(str(path), tokenizer="nowhere"))
    with pytest.raises(hub.HubError, match=f"{tmp_path}: no tokenizer"):
        StableDiffusion.from_pretrained(hub.Source(str(path), tokenizer=str(tmp_path)))
    tensors, name = tensors_of("sd1"), "cond_stage_model.transformer.text_model.embeddings"
    tensors[f"{name}.token_embedding.weight"] = np.zeros((2160, 64), np.float32)
    larger = single.write(tensors, tmp_path / "larger.safetensors")
    with pytest.raises(hub.HubError, match="a tokenizer of 2159 tokens, and the model has 2160"):
        StableDiffusion.from_pretrained(larger)


def test_a_models_folder_is_taken_for_its_tokenizer(tmp_path):
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"")
    for given in (hub.TINY, hub.TINY / "tokenizer", "tiny"):
        assert hub.tokenizer_folder(hub.Source(str(path), tokenizer=str(given))) == tiny.TOKENIZER


@pytest.mark.parametrize("more", [{}, {"rescale_betas_zero_snr": True}])
def test_a_stored_schedule_tells_whether_it_ends_in_pure_noise(tensors_of, tmp_path, more):
    usual = {k: v for k, v in tiny.SCHEDULE.items() if k not in ("_class_name", "clip_sample")}
    table = alphas_cumprod(ScheduleConfig(**usual, **more))
    for dtype in (np.float32, np.float16):
        path = saved({**tensors_of("sd2"), "alphas_cumprod": table.astype(dtype)}, tmp_path)
        schedule = read_checkpoint(path, "v").configs["scheduler"]
        assert schedule.rescale_betas_zero_snr is bool(more)
        assert schedule.timestep_spacing == ("trailing" if more else "leading")
    if more:
        assert "without signal (zero terminal SNR), which needs --prediction v" in refusal(
            path, "epsilon"
        )
    other = saved({**tensors_of("sd2"), "alphas_cumprod": (table * 0.9).astype("f4")}, tmp_path)
    assert "trained with another noise schedule (alphas_cumprod)" in refusal(other, "v")


# ---- what the file holds


def test_the_averaged_weights_are_preferred_and_told(tensors_of, tmp_path):
    tensors, plain = tensors_of("sd1"), {}
    for name in [name for name in tensors if name.startswith(UNET)]:
        below = name.removeprefix("model.")
        plain[name] = tensors[name] + 1
        plain["model_ema." + below.replace(".", "")] = tensors[name]
    averaged = {**tensors, **plain, "model_ema.decay": np.ones(1, np.float32)}
    read = read_checkpoint(saved(averaged, tmp_path))
    assert read.notes == ("of two UNets in the file the averaged one (model_ema.*) is taken",)
    np.testing.assert_array_equal(read.tensors["unet"]["conv_in.weight"].array(), tensors[FIRST])
    del averaged["model_ema.diffusion_modelinput_blocks00weight"]
    read = read_checkpoint(saved(averaged, tmp_path))
    assert read.notes == (
        "the averaged weights (model_ema.*) are not complete, the plain ones are taken",
    )
    np.testing.assert_array_equal(read.tensors["unet"]["conv_in.weight"].array(), plain[FIRST])
    only = {name: t for name, t in averaged.items() if not name.startswith(UNET)}
    assert "has no UNet but an averaged one" in refusal(saved(only, tmp_path))


def test_a_half_precision_file_and_one_that_was_pickled_are_read(tensors_of, tmp_path):
    half = {n: v.astype(np.float16) for n, v in tensors_of("sd2").items()}
    source = single.write(half, tmp_path / "half.safetensors", prediction="v")
    same_weights(StableDiffusion.from_pretrained(source), "sd2", "float16")
    path = checkpoint(tensors_of("sd1"), tmp_path / "v1-5.ckpt")
    sd = StableDiffusion.from_pretrained(hub.Source(str(path), tokenizer="tiny"))
    same_weights(sd, "sd1")


class Global:
    """Pickles as the name of a class or function, which nobody imports."""

    def __init__(self, module, name):
        self.module, self.name = module, name


def checkpoint(tensors, path):
    """A .ckpt as a trainer leaves it: the tensors in state_dict, and a callback's state."""
    out = [b"\x80\x02}(X\x0a\x00\x00\x00state_dict}("]
    for i, (name, values) in enumerate(tensors.items()):
        out.append(_text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n((Vstorage\nctorch\n")
        out.append(b"FloatStorage\n" + _text(str(i)) + b"Vcpu\nI%d\ntQI0\n(" % values.size)
        steps = [s // values.itemsize for s in values.strides]
        out += [b"I%d\n" % n for n in values.shape] + [b"t("] + [b"I%d\n" % n for n in steps]
        out.append(b"tI00\nccollections\nOrderedDict\n)RtR")
    out.append(b"uX\x09\x00\x00\x00callbacks}")
    out.append(b"cpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\n")
    out.append(b"}X\x04\x00\x00\x00bestcnumpy.core.multiarray\nscalar\n(Vf8\ntRssX\x05\x00\x00\x00")
    out.append(b"epochI7\nu.")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", b"".join(out))
        for i, values in enumerate(tensors.values()):
            archive.writestr(f"archive/data/{i}", np.ascontiguousarray(values).tobytes())
    return path


def _text(words: str) -> bytes:
    data = words.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def test_the_last_layer_of_open_clip_and_what_pictures_do_not_need_are_left_out(
    tensors_of, tmp_path
):
    tensors = tensors_of("sd2")
    tensors[f"{OPEN_CLIP}text_projection"] = np.zeros((128, 128), np.float32)
    tensors[f"{OPEN_CLIP}logit_scale"] = np.zeros((), np.float32)
    tensors[f"{VAE}loss.logvar"] = np.zeros((), np.float32)
    tensors["cond_stage_model.somewhere"] = tensors["a.b"] = np.zeros(1, np.float32)
    read = read_checkpoint(saved(tensors, tmp_path), "v")
    assert read.configs["text_encoder"].num_hidden_layers == 3
    assert not any("layers.3." in name for name in read.tensors["text_encoder"])
    assert read.notes == ("not part of the model, left out: a.b, cond_stage_model.somewhere",)
    extra = {**tensors_of("sd2"), f"{UNET}input_blocks.1.2.weight": np.zeros(1, np.float32)}
    source = single.write(extra, tmp_path / "extra.safetensors", prediction="v")
    with pytest.raises(WeightsError, match="1 unexpected: model.diffusion_model.input_blocks.1.2"):
        StableDiffusion.from_pretrained(source)


# ---- what is no such file


def zeros(*shape):
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (
            {"conditioner.embedders.0.x": zeros(1), FIRST: zeros(4, 4, 3, 3)},
            "Stable Diffusion XL",
        ),
        ({f"{UNET}joint_blocks.0.x": zeros(1)}, "a Stable Diffusion 3 model"),
        ({"double_blocks.0.img_attn.proj.weight": zeros(1)}, "a Flux model"),
        ({FIRST: zeros(4, 9, 3, 3)}, "an inpainting model (9 channels go in)"),
        ({FIRST: zeros(4, 5, 3, 3)}, "takes depth as well (5 channels go in)"),
        ({FIRST: zeros(4, 7, 3, 3)}, "an upscaler (7 channels go in)"),
        ({FIRST: zeros(4, 8, 3, 3)}, "edits pictures, as InstructPix2Pix"),
        ({"control_model.input_hint_block.0.weight": zeros(1)}, "a ControlNet"),
        (
            {"lora_unet_x.lora_up.weight": zeros(1)},
            "a LoRA or another adapter; give it",
        ),
        ({"unet.x.lora_A.weight": zeros(1)}, "a LoRA or another adapter; give it"),
        ({"emb_params": zeros(1, 768)}, "a textual inversion"),
        ({"encoder.down_blocks.0.resnets.0.conv1.weight": zeros(1)}, "a VAE alone; a model needs"),
        ({"decoder.up.0.block.0.conv1.weight": zeros(1)}, "a VAE alone, in CompVis' names"),
        ({"conv_in.weight": zeros(8, 4, 3, 3)}, "a UNet alone; a model needs all its parts"),
        ({"text_model.embeddings.token_embedding.weight": zeros(1)}, "a text encoder alone"),
        (
            {f"{VAE}encoder.conv_in.weight": zeros(1)},
            "no part that is a UNet or a text encoder",
        ),
        ({"weight": zeros(1)}, "is no Stable Diffusion checkpoint; it holds weight"),
    ],
)
def test_other_files_are_called_what_they_are(tmp_path, tensors, words):
    assert words in refusal(saved(tensors, tmp_path))


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (FIRST, lambda v: v[0, 0], "input_blocks.0.0.weight has the shape [3, 3]"),
        (f"{UNET}out.2.weight", None, "there is no out.2.weight"),
        (f"{OPEN_CLIP}positional_embedding", lambda v: v[0], "has the shape [128]"),
        (f"{OPEN_CLIP}transformer.resblocks.0.attn.in_proj_weight", lambda v: v[:-1], "packed"),
        (f"{OPEN_CLIP}token_embedding.weight", lambda v: v[:, :100], "a width of 100, no multiple"),
        (
            f"{UNET}input_blocks.2.0.in_layers.2.weight",
            None,
            "input_blocks.2 of the UNet is not whole",
        ),
        (
            f"{VAE}encoder.down.0.block.0.conv2.weight",
            None,
            "layers_per_block = 0 is not supported",
        ),
    ],
)
def test_a_file_that_is_not_whole_is_told_in_one_line(tensors_of, tmp_path, name, change, words):
    tensors = tensors_of("sd2")
    values = tensors.pop(name)
    if change is not None:
        tensors[name] = np.ascontiguousarray(change(values))
    assert words in refusal(saved(tensors, tmp_path), "v")


def test_damaged_files_and_metadata_are_one_line(tensors_of, tmp_path):
    whole = saved(tensors_of("sd2"), tmp_path).read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "cut short" in refusal(tmp_path / "cut.safetensors")
    (tmp_path / "no.ckpt").write_bytes(pickle.dumps(types.SimpleNamespace(a=1)))
    assert "only tensors are read" in refusal(tmp_path / "no.ckpt")
    for text in ("{", "[]", "{}", '{"unet": 1}'):
        path = saved(tensors_of("sd2"), tmp_path, **{ABOUT: text})
        assert ABOUT in refusal(path, "v")


# ---- writing


@pytest.mark.parametrize("kind", ["sd1", "sd2"])
def test_what_is_written_is_read_back_to_the_bit(tmp_path, kind):
    """Models of other head and group counts too, as their configurations go with them."""
    sd, path = tiny.make_ours(kind), tmp_path / "model.safetensors"
    write_checkpoint(sd, path, "float32")
    back = StableDiffusion.from_pretrained(hub.Source(str(path), tokenizer="tiny"))
    same_weights(back, kind)
    for part in PARTS:
        assert getattr(back, part).config == getattr(sd, part).config
    assert back.schedule.config == sd.schedule.config
    assert back.tokenizer.pad_token == sd.tokenizer.pad_token
    said = read_metadata(path)["modelspec.prediction_type"]
    assert said == ("v" if kind == "sd2" else "epsilon")
    assert ("v_pred" in read_safetensors(path)) is (kind == "sd2")
    again = tmp_path / "again.safetensors"
    write_checkpoint(back, again, "float32")
    assert again.read_bytes() == path.read_bytes()


def test_a_file_of_sd2_has_one_more_layer_and_1x1_convolutions(tensors_of):
    tensors = tensors_of("sd2")
    for name in ("ln_1.weight", "attn.in_proj_weight", "mlp.c_proj.bias"):
        third, fourth = (tensors[f"{OPEN_CLIP}transformer.resblocks.{i}.{name}"] for i in (2, 3))
        np.testing.assert_array_equal(third, fourth)
    assert tensors[f"{VAE}encoder.mid.attn_1.q.weight"].shape == (96, 96, 1, 1)


def test_a_folder_saved_from_a_file_pads_as_the_model_did(tensors_of, tmp_path):
    source = single.write(tensors_of("sd1"), tmp_path / "m.safetensors")
    sd = StableDiffusion.from_pretrained(source)
    sd.save_pretrained(tmp_path / "folder", "float32")
    back = StableDiffusion.from_pretrained(tmp_path / "folder")
    prompts = ["a star", ""]
    assert back.tokenizer.pad_token == "<|endoftext|>" != tiny.make_ours("sd1").tokenizer.pad_token
    np.testing.assert_array_equal(back.tokenizer(prompts), sd.tokenizer(prompts))
    same_weights(back, "sd1")
    assert load_file(tmp_path / "folder" / "unet" / "diffusion_pytorch_model.safetensors")
