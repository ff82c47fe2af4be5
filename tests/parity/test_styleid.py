"""A whole stylisation against the independent PyTorch implementation in torch_styleid.py.

Both sides read the same weights and the same pictures and share nothing else.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest

from jstyle import JStyleID, StyleConfig
from jstyle.injection import resolve_sites
from jstyle.inversion import join, pool
from jstyle.sd.hooks import around
from jstyle.sd.startup import jt
from tests.pictures import picture
from tests.tiny import config, make_ours, make_theirs
from tests.tolerances import assert_close

SIZES = {"sd1": (64, 128), "sd2": (64, 96)}  # latents of 8 x 16 and 16 x 24


class Pair:
    """Both models of one kind, two pictures, and how to run a configuration through both."""

    def __init__(self, kind):
        self.kind, self.ours, self.theirs = kind, JStyleID(make_ours(kind)), make_theirs(kind)
        self.content, self.style = picture(1, *SIZES[kind]), picture(2, *SIZES[kind])

    def ids(self, prompt):
        found = self.theirs.tokenizer(prompt, padding="max_length", max_length=77)["input_ids"]
        return np.array([found])

    def reference(self, cfg, gamma=None):
        from tests.parity.torch_styleid import TorchStyleID

        pipe = self.theirs
        return TorchStyleID(
            unet=copy.deepcopy(pipe.unet),
            vae=pipe.vae,
            text=pipe.text_encoder,
            scheduler=config(self.kind, "scheduler"),
            empty_ids=self.ids(cfg.invert_prompt),
            words=(self.ids(cfg.prompt), self.ids(cfg.negative)),
            guidance=cfg.guidance,
            steps=cfg.steps,
            gamma=cfg.gamma if gamma is None else gamma,
            tau=cfg.tau,
            sites=resolve_sites(cfg.sites, self.ours.sd.unet.attention_sites()),
            window=cfg.window or (0, 999),
            use_adain=cfg.init_adain,
        )

    def sample(self, cfg):
        """(image, latents after every step) of our side."""
        trail = []

        def watched(call, *args, **kwargs):
            for t, z in call(*args, **kwargs):
                trail.append(z.numpy())
                yield t, z

        with around(self.ours.sd, "sample", watched):
            image = self.ours.stylize(self.content, self.style, cfg).numpy()
        return image, trail


@pytest.fixture(scope="module", params=sorted(SIZES))
def pair(request):
    return Pair(request.param)


def test_fifty_steps_of_inversion_and_injected_sampling_agree(pair):
    cfg = StyleConfig(steps=50)
    image, trail = pair.sample(cfg)
    image_ref, trail_ref = pair.reference(cfg).stylize(pair.content, pair.style)
    assert len(trail) == len(trail_ref) == 50
    assert_close("styleid.latent_first_step", trail[0], trail_ref[0])
    assert_close("styleid.latent_50_steps", trail[-1], trail_ref[-1])
    assert_close("styleid.image_50_steps", image, image_ref)


def test_the_inverted_latent_agrees_at_every_step(pair):
    import torch

    cfg, sd = StyleConfig(steps=50), pair.ours.sd
    with torch.no_grad():
        expected = pair.reference(cfg).invert(pair.content, None)
    z = sd.encode_image(jt.array(pair.content))
    trail = [z.numpy() for _, z in sd.invert(z, sd.encode_text([""]), 50)]
    for ours, theirs in zip(trail, expected, strict=True):
        assert_close("styleid.inverted_latent", ours, theirs.numpy())


def test_the_recorded_features_agree_at_every_site_and_timestep(pair):
    import torch

    cfg = StyleConfig(steps=10)
    reference = pair.reference(cfg)
    with torch.no_grad():
        reference.invert(pair.content, "content")
        reference.invert(pair.style, "style")
    recorded = {"q": (pair.content, [reference.queries])}
    recorded["kv"] = (pair.style, [reference.keys, reference.values])
    for parts, (image, expected) in recorded.items():
        bank = pair.ours.invert(image, cfg, parts).features
        assert len(bank) == 10 * 6 * len(parts)
        for part, features in zip(parts, expected, strict=True):
            for (site, t), value in features.items():
                ours = bank[part, site, t].numpy()
                assert_close("styleid.features", ours, value.transpose(1, 2).numpy())


def test_features_that_are_not_kept_in_memory_agree_too(pair):
    cfg = StyleConfig(steps=10)
    expected, _ = pair.reference(cfg).stylize(pair.content, pair.style)
    for features in ("disk", "recompute"):
        how = replace(cfg, features=features)
        image = pair.ours.stylize(pair.content, pair.style, how).numpy()
        assert_close("styleid.image_10_steps", image, expected)


@pytest.mark.parametrize(
    "options, gamma",
    [
        ({"gamma": "cosine:0.75:0.375"}, (0.75, 0.375)),
        ({"gamma": 0.3, "tau": 1.8}, None),
        ({"window": "0:200"}, None),
        ({"sites": "decoder:9-11,mid_block.attentions.0.transformer_blocks.0.attn1"}, None),
        ({"init_adain": False}, None),
        ({"prompt": "a star", "invert_prompt": "a hill"}, None),
        ({"prompt": "a star", "negative": "dull", "guidance": 3.0, "window": "0:500"}, None),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_options_mean_the_same_on_both_sides(pair, options, gamma):
    cfg = StyleConfig(steps=10, **options)
    image, trail = pair.sample(cfg)
    image_ref, trail_ref = pair.reference(cfg, gamma).stylize(pair.content, pair.style)
    assert_close("styleid.latent_10_steps", trail[-1], trail_ref[-1])
    assert_close("styleid.image_10_steps", image, image_ref)


@pytest.mark.parametrize("features", ["memory", "recompute"])
def test_several_styles_are_looked_at_together(pair, features):
    how = {"prompt": "a star", "negative": "dull", "guidance": 2.0, "features": features}
    cfg = StyleConfig(steps=5, **how)
    styles = [pair.style, picture(3, *SIZES[pair.kind])]
    content = pair.ours.invert(pair.content, cfg, "q")
    prepared = pool([pair.ours.invert(style, cfg, "kv") for style in styles])
    image = pair.ours.transfer(content, prepared, cfg).numpy()
    expected, _ = pair.reference(cfg).stylize(pair.content, styles)
    assert_close("styleid.image_10_steps", image, expected)
    both_styles = join([pool([pair.ours.invert(s, cfg, "kv") for s in styles]) for _ in range(2)])
    both = pair.ours.transfer(content, both_styles, cfg).numpy()
    assert_close("styleid.image_10_steps", both[1:], expected)
