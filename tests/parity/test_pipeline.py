"""Text to image against diffusers.StableDiffusionPipeline with DDIM, fed the same noise."""

from __future__ import annotations

import numpy as np
import pytest

from jstyle.sd import StableDiffusion
from jstyle.sd.startup import jt
from tests import tiny
from tests.tolerances import assert_close

PROMPTS = ["a star", "a cat in mosaic style, 3 boats"]
STEPS, SEED = 4, 5


@pytest.fixture(scope="module", params=list(tiny.KINDS))
def pair(request, tiny_folder):
    """(ours, theirs), both with the weights of one folder."""
    ours = StableDiffusion.from_pretrained(tiny_folder(request.param))
    return ours, tiny.make_theirs(request.param)


def size_of(sd):
    return 64, 128 if sd.vae_scale == 8 else 96


def run_theirs(pair, guidance, output):
    import torch

    ours, theirs = pair
    height, width = size_of(ours)
    noise = torch.from_numpy(ours.noise(len(PROMPTS), SEED, height, width).numpy())
    return theirs(
        prompt=PROMPTS,
        negative_prompt=["dark sea"] * len(PROMPTS),
        num_inference_steps=STEPS,
        guidance_scale=guidance,
        latents=noise,
        height=height,
        width=width,
        output_type=output,
    ).images


def test_text_becomes_the_same_context(pair):
    ours, theirs = pair
    want = theirs.encode_prompt(PROMPTS, "cpu", 1, False)[0].detach().numpy()
    assert_close("pipeline context", ours.encode_text(PROMPTS).numpy(), want)


def test_an_image_becomes_the_same_latents_and_back(pair):
    import torch

    ours, theirs = pair
    height, width = size_of(ours)
    image = np.random.default_rng(2).uniform(-1, 1, (2, 3, height, width)).astype(np.float32)
    z = ours.encode_image(jt.array(image))
    scale = theirs.vae.config.scaling_factor
    with torch.no_grad():
        want = theirs.vae.encode(torch.from_numpy(image)).latent_dist.mean * scale
        back = theirs.vae.decode(want / scale).sample.clamp(-1, 1)
    assert_close("pipeline latents of an image", z.numpy(), want.numpy())
    assert_close("pipeline image of latents", ours.decode(z).numpy(), back.numpy())


@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_the_loop_gives_the_same_latents(pair, guidance):
    ours, _ = pair
    context, negative = ours.encode_text(PROMPTS), ours.encode_text(["dark sea"])
    z = ours.noise(len(PROMPTS), SEED, *size_of(ours))
    for _, step in ours.sample(z, context, STEPS, guidance=guidance, negative_context=negative):
        z = step
    want = run_theirs(pair, guidance, "latent").numpy()
    assert_close("pipeline latents after 4 steps", z.numpy(), want)


def test_a_prompt_gives_the_same_image(pair):
    ours, _ = pair
    height, width = size_of(ours)
    got = ours.generate(
        PROMPTS, SEED, STEPS, guidance=7.5, negative="dark sea", height=height, width=width
    ).numpy()
    want = run_theirs(pair, 7.5, "pt").numpy() * 2 - 1
    assert np.mean(np.abs(want) == 1) < 0.5  # most of it is not clipped
    assert_close("pipeline image after 4 steps", got, want)
