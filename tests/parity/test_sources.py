"""Methods with a source picture against the independent PyTorch implementation in
torch_sources.py: whole runs of 10 steps, on both kinds of model.

Both sides read the same weights and pictures and share nothing else.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from jstyle.injection import resolve_sites
from jstyle.methods import find_method
from jstyle.methods.base import NOISE, Noise
from jstyle.sd.facts import CONTENT, STYLE
from jstyle.sd.samplers.options import Sampling
from jstyle.sd.startup import jt
from tests.pictures import picture
from tests.tiny import config, make_ours, make_theirs
from tests.tolerances import assert_close, rel_l2

SIZES = {"sd1": (64, 128), "sd2": (64, 96)}  # latents of 8 x 16 and 16 x 24
STEPS = 10
PROMPT, SOURCE_PROMPT, NEGATIVE = "a dog and a cat in oil", "a cat", "a blur"
WORDS = {"prompt": PROMPT, "negative": NEGATIVE, "guidance": 3.0, "invert_prompt": SOURCE_PROMPT}


class Pair:
    """Both models of one kind, two pictures, and how to run a method through both."""

    def __init__(self, kind):
        self.kind, self.sd, self.theirs = kind, make_ours(kind), make_theirs(kind)
        self.content, self.style = picture(1, *SIZES[kind]), picture(2, *SIZES[kind])
        self.noise = np.random.default_rng(0).standard_normal(
            self.sd.encode_image(jt.array(self.content)).shape, dtype=np.float32
        )

    def ours(self, cfg):
        """The picture of a configuration, from the content."""
        method = self.method(cfg)
        pictures = {CONTENT: self.content, STYLE: self.style}
        prepared = {role: method.prepare(role, pictures[role], cfg) for role in method.roles}
        return method.apply(prepared, cfg).numpy()

    def ours_from_noise(self, cfg):
        method = self.method(cfg)
        pictures = {CONTENT: self.content, STYLE: self.style}
        role = method.reference
        how = Sampling(cfg.steps, cfg.guidance, sampler="ddim")
        start = Noise(jt.array(self.noise), (cfg.prompt,), (0,), how)
        prepared = {role: method.prepare(role, pictures[role], cfg), NOISE: start}
        return method.apply(prepared, cfg).numpy()

    def method(self, cfg):
        return find_method(NAMES[type(cfg).__name__])(self.sd)

    def reference(self, cls, cfg, **options):
        unet = copy.deepcopy(self.theirs.unet)
        pipe = type("Parts", (), {**self.theirs.components, "unet": unet})
        own = {name: getattr(cfg, name) for name in ("weight",)}
        sites = resolve_sites(cfg.sites, self.sd.unet.attention_sites())
        own |= {"sites": sites, "window": cfg.window or (0, 999), **options}
        return cls(pipe, config(self.kind, "scheduler"), cfg.steps, **own)


NAMES = {
    "MasaCtrlConfig": "masactrl",
    "CrossImageConfig": "cross-image",
    "AppearanceEncoderConfig": "appearance-encoder",
    "PlugAndPlayConfig": "plug-and-play",
}


def options_of(name, **given):
    return find_method(name).Config(**{"steps": STEPS, **given})


@pytest.fixture(scope="module")
def pairs():
    """kind -> Pair, each made when it is asked for."""
    return cache(Pair)


def cases(*rows):
    """The defaults on both kinds of model, and every other case on one of them."""
    both = [(kind, {}) for kind in sorted(SIZES)]
    return pytest.mark.parametrize("kind, given", [*both, *rows], ids=str)


def tokens(pair, prompt, word):
    """Places of a word of one token among those of a prompt."""
    ids = pair.theirs.tokenizer(prompt)["input_ids"]
    (piece,) = pair.theirs.tokenizer(word)["input_ids"][1:-1]
    return [i for i, other in enumerate(ids) if other == piece]


@cases(
    ("sd2", {"weight": 0.6, "window": "100:700", "sites": "decoder:4-11"}),
    ("sd1", {"subject": "cat", "mask_threshold": 0.4, "sites": "decoder:3-11", "window": None}),
)
def test_masactrl(pairs, kind, given):
    from tests.parity.torch_sources import TorchMasaCtrl

    pair = pairs(kind)
    cfg = options_of("masactrl", **WORDS, **given)
    places = None
    if cfg.subject:
        places = [tokens(pair, prompt, "cat") for prompt in (SOURCE_PROMPT, PROMPT)]
        assert places == [[2], [5]]
    theirs = pair.reference(TorchMasaCtrl, cfg, tokens=places, threshold=cfg.mask_threshold)
    expected = theirs.stylize(pair.content, SOURCE_PROMPT, PROMPT, NEGATIVE, cfg.guidance)
    found = pair.ours(cfg)
    assert_close("sources.masactrl", found, expected)
    if given:
        again = pair.ours(replace(cfg, features="recompute"))
        assert_close("sources.masactrl", again, expected)
    if cfg.subject:
        assert rel_l2(pair.ours(replace(cfg, subject="")), expected) > 1e-3


@cases(
    ("sd2", {"gamma": 0.0, "contrast": 1.0, "appearance_guidance": 1.0, "init_adain": False}),
    ("sd1", {"gamma": 0.7, "weight": 0.8, "window": "100:900", "adain_window": None, "skip": 0.0}),
)
def test_cross_image(pairs, kind, given):
    from tests.parity.torch_sources import TorchCrossImage

    pair = pairs(kind)
    cfg = options_of("cross-image", **given)
    expected = pair.reference(
        TorchCrossImage,
        cfg,
        gamma=cfg.gamma,
        contrast=cfg.contrast,
        guidance=cfg.appearance_guidance,
        adain_window=(cfg.adain_window or (0, 999)) if cfg.init_adain else None,
        skip=cfg.skipped,
    ).stylize(pair.content, pair.style)
    assert_close("sources.cross_image", pair.ours(cfg), expected)
    if given:
        again = pair.ours(replace(cfg, features="recompute"))
        assert_close("sources.cross_image", again, expected)


@cases(
    ("sd1", {"encoder_at": "same", "weight": 0.3, "window": "0:700", "sites": "decoder:9-11"}),
    ("sd2", {"both": True, "weight": 0.5}),
)
def test_appearance_encoder(pairs, kind, given):
    from tests.parity.torch_sources import TorchAppearanceEncoder

    pair = pairs(kind)
    words = {name: WORDS[name] for name in ("prompt", "negative", "guidance")}
    cfg = options_of("appearance-encoder", **words, **given)
    theirs = pair.reference(TorchAppearanceEncoder, cfg, at=cfg.encoder_at, both=cfg.both)
    expected = theirs.stylize(pair.noise, pair.style, PROMPT, NEGATIVE, cfg.guidance)
    assert_close("sources.appearance_encoder", pair.ours_from_noise(cfg), expected)


@cases(
    ("sd1", {"weight": 0.7, "window": None, "blocks_window": "400:999", "sites": "decoder:6-11"}),
    ("sd2", {"blocks": "up_blocks.0.resnets.2,mid_block.resnets.0", "blocks_window": None}),
)
def test_plug_and_play(pairs, kind, given):
    from tests.parity.torch_sources import TorchPlugAndPlay

    pair = pairs(kind)
    cfg = options_of("plug-and-play", **WORDS, **given)
    expected = pair.reference(
        TorchPlugAndPlay, cfg, blocks=cfg.block_names, feature_window=cfg.blocks_window or (0, 999)
    ).stylize(pair.content, SOURCE_PROMPT, PROMPT, NEGATIVE, cfg.guidance)
    assert_close("sources.plug_and_play", pair.ours(cfg), expected)
    if given:
        again = pair.ours(replace(cfg, features="recompute"))
        assert_close("sources.plug_and_play", again, expected)
