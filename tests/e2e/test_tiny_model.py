"""The shipped model does what it is for, on the shipped pictures.

The limits leave room below what was measured; they catch a broken file, not a slow drift.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.tiny.evaluate import colour
from jstyle import JStyleID, StableDiffusion, StyleConfig
from jstyle.commands.reconstruct import psnr_db
from jstyle.sd import hub
from jstyle.sd.startup import jt

DEMO = hub.TINY / "demo"


@pytest.fixture(scope="module")
def styler():
    return JStyleID(StableDiffusion.from_pretrained("tiny"))


@pytest.fixture(scope="module")
def cat(styler):
    return styler.load(DEMO / "content_cat.png", StyleConfig())


def test_all_files_together_are_at_most_16_mb():
    assert sum(p.stat().st_size for p in hub.TINY.rglob("*") if p.is_file()) <= 16_000_000


def test_every_attention_of_the_real_model_has_its_namesake(styler):
    sites = styler.sd.unet.attention_sites()
    blocks = {site.split(".attentions")[0] for site in sites}
    assert blocks == {"mid_block"} | {f"down_blocks.{i}" for i in range(3)} | {
        f"up_blocks.{i}" for i in range(1, 4)
    }
    assert len(sites) == 16 and styler.sd.schedule.kind.value == "v_prediction"


def test_inversion_and_back_keeps_a_photograph(styler, cat):
    with jt.no_grad():
        plain = styler.sd.decode(styler.sd.encode_image(jt.array(cat))).numpy()
    assert psnr_db(plain, cat) > 26
    assert psnr_db(styler.reconstruct(cat, StyleConfig()).numpy(), plain) > 28


@pytest.mark.parametrize(
    ("name", "most"), [("neon", 0.6), ("poster", 0.9), ("stained_glass", 0.6), ("woodcut", 1.0)]
)
def test_a_photograph_comes_nearer_to_the_colours_of_a_style(styler, cat, name, most):
    cfg = StyleConfig()
    style = styler.load(DEMO / f"style_{name}.png", cfg)
    result = styler.stylize(cat, style, cfg).numpy()
    before = np.linalg.norm(colour(cat) - colour(style))
    assert np.linalg.norm(colour(result) - colour(style)) < most * before


def test_the_prompt_decides_the_picture(styler):
    dark, light = (
        styler.sd.generate(f"a star in {style} style", seed=3, num_steps=20, guidance=4.0).numpy()
        for style in ("neon", "engraving")
    )
    assert dark.mean() < light.mean() - 0.25
    again = styler.sd.generate("a star in neon style", seed=3, num_steps=20, guidance=4.0)
    assert np.array_equal(dark, again.numpy())
