"""Single files are converted as diffusers converts them, and paint as diffusers does."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch
import transformers
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)

from jstyle.sd import StableDiffusion
from jstyle.sd.noise import gaussian
from jstyle.sd.pipeline import PARTS
from tests import single, tiny
from tests.tolerances import assert_close

LATENT = (4, 8, 8)


@pytest.fixture(scope="module", params=["sd1", "sd2"])
def both(request, tmp_path_factory):
    """(our model of a file without metadata, diffusers' conversions of the same file)"""
    kind, folder = request.param, tmp_path_factory.mktemp("single")
    tensors = single.plain(kind, folder)
    said = "v" if kind == "sd2" else None
    source = single.write(tensors, folder / "model.safetensors", prediction=said)
    given = {name: torch.from_numpy(values) for name, values in tensors.items()}
    text = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(**single.config(kind, "text_encoder"))
    )
    converted = {
        "unet": convert_ldm_unet_checkpoint(dict(given), single.config(kind, "unet")),
        "vae": convert_ldm_vae_checkpoint(dict(given), single.config(kind, "vae")),
        "text_encoder": convert_ldm_clip_checkpoint(dict(given))
        if kind == "sd1"
        else convert_open_clip_checkpoint(text, dict(given)),
    }
    return kind, StableDiffusion.from_pretrained(source), converted


def test_every_tensor_is_that_of_diffusers_conversion(both):
    kind, ours, converted = both
    for part in PARTS:
        state = getattr(ours, part).state_dict()
        theirs = {name: value.numpy() for name, value in converted[part].items()}
        if (part, kind) == ("text_encoder", "sd2"):  # they leave out a layer of that number only
            theirs = {n: v for n, v in theirs.items() if not n.startswith(LAST)}
        assert state.keys() == theirs.keys()
        for name, var in state.items():
            np.testing.assert_array_equal(var.numpy(), theirs[name], err_msg=f"{part} {name}")
            np.testing.assert_array_equal(var.numpy(), tiny.values_of(name, var.shape))


LAST = "text_model.encoder.layers.3."  # of four in the file of SD 2.x


def test_configurations_are_those_that_the_file_was_made_with(both):
    kind, ours, _ = both
    for part, (config_class, _) in PARTS.items():
        found, wanted = getattr(ours, part).config, single.config(kind, part)
        made = config_class.from_json(wanted).to_json()
        apart = {name for name, value in found.to_json().items() if made.get(name) != value}
        # sizes pictures are made at, and ids and a width that nothing uses
        assert apart <= {"sample_size", "bos_token_id", "eos_token_id", "pad_token_id"} | {
            "projection_dim"
        }
    assert ours.schedule.config.prediction_type == tiny.config(kind, "scheduler")["prediction_type"]


def test_pictures_are_those_of_diffusers(both):
    kind, ours, converted = both
    text = transformers.CLIPTextConfig(**single.config(kind, "text_encoder"))
    theirs = {
        "unet": diffusers.UNet2DConditionModel(**single.config(kind, "unet")),
        "vae": diffusers.AutoencoderKL(**single.config(kind, "vae")),
        "text_encoder": transformers.CLIPTextModel(text),
    }
    for part, module in theirs.items():
        names = module.state_dict().keys()
        bare = "text_model." if part == "text_encoder" else ""
        found = {
            name: value
            for full, value in converted[part].items()
            for name in (full, full.removeprefix(bare))
            if name in names
        }
        module.eval().load_state_dict(found)
    pipeline = diffusers.StableDiffusionPipeline(
        **theirs,
        tokenizer=transformers.CLIPTokenizer.from_pretrained(
            str(tiny.TOKENIZER), pad_token=ours.tokenizer.pad_token
        ),
        scheduler=diffusers.DDIMScheduler.from_config(single.config(kind, "scheduler")),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    start, side = gaussian(LATENT, 3), LATENT[1] * ours.vae_scale
    want = pipeline(
        "a star",
        num_inference_steps=2,
        guidance_scale=3.0,
        latents=torch.from_numpy(start[None]),
        height=side,
        width=side,
        output_type="np",
    ).images
    found = ours.generate("a star", seed=3, num_steps=2, guidance=3.0, height=side, width=side)
    picture = (found.numpy().transpose(0, 2, 3, 1) + 1) / 2
    assert picture.std() > 0.05
    assert_close("single file picture", picture, want)
