"""Starting from a picture, against diffusers.StableDiffusionImg2ImgPipeline with the same noise."""

from __future__ import annotations

import numpy as np
import pytest

from jdreambooth.generate import make_picture
from jdreambooth.recipe import Recipe
from jstyle.sd import StableDiffusion
from jstyle.sd.noise import gaussian
from jstyle.sd.startup import jt
from tests import tiny
from tests.pictures import picture
from tests.tolerances import assert_close

MODULE = "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img"


@pytest.mark.parametrize("strength", [0.9, 0.4, 1.0])
@pytest.mark.parametrize("kind", list(tiny.KINDS))
def test_image_to_image_is_that_of_diffusers(tiny_folder, monkeypatch, kind, strength):
    import torch
    from diffusers import StableDiffusionImg2ImgPipeline

    ours = StableDiffusion.from_pretrained(tiny_folder(kind))
    theirs = StableDiffusionImg2ImgPipeline(
        **tiny.make_theirs(kind).components, requires_safety_checker=False
    )
    theirs.set_progress_bar_config(disable=True)
    start = picture(3, 64, 64)
    recipe = Recipe(
        seed=5, steps=5, guidance=3.0, negative="dark sea", strength=strength, init="given"
    )
    made = make_picture(ours, "a star", recipe.seed, recipe, 64, start)

    side = 64 // ours.vae_scale
    noise = torch.from_numpy(gaussian((4, side, side), recipe.seed)[None])
    monkeypatch.setattr(f"{MODULE}.randn_tensor", lambda *args, **options: noise)
    latents = torch.from_numpy(ours.encode_image(jt.array(start)).numpy())  # theirs would sample
    want = theirs(
        prompt="a star",
        negative_prompt="dark sea",
        image=latents,
        strength=strength,
        num_inference_steps=recipe.steps,
        guidance_scale=recipe.guidance,
        output_type="np",
    ).images
    want = np.asarray(want).transpose(0, 3, 1, 2) * 2 - 1
    assert_close("image to image", made.numpy(), want)
