"""Where features are kept changes what a run costs, not the picture."""

from __future__ import annotations

import numpy as np
import pytest

from jstyle import JStyleID, StyleConfig, pipeline
from jstyle.inversion import join
from tests.pictures import picture
from tests.tiny import make_ours
from tests.tolerances import rel_l2

STEPS = 4
CONTENT, STYLE = picture(1), picture(2)
MIDDLE = "mid_block.attentions.0.transformer_blocks.0.attn1"
RECOMPUTED = 1e-4  # relative L2; measured 2026-11-20: 3.6e-6 (float32), 1.1e-5 (float16)


@pytest.fixture(scope="module")
def styler(tmp_path_factory):
    return JStyleID(make_ours("sd2"), scratch=tmp_path_factory.mktemp("scratch"))


def stylize(styler, **options):
    options = {"steps": STEPS, "features": "memory", **options}
    return styler.stylize(CONTENT, STYLE, StyleConfig(**options)).numpy()


def batches(styler, monkeypatch):
    """Batch sizes of all UNet evaluations from here on."""
    seen, execute = [], styler.sd.unet.execute
    monkeypatch.setattr(
        styler.sd.unet, "execute", lambda z, *rest: seen.append(z.shape[0]) or execute(z, *rest)
    )
    return seen


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_features_on_disk_give_the_same_bytes(styler, dtype):
    plain = stylize(styler, feature_dtype=dtype)
    np.testing.assert_array_equal(stylize(styler, feature_dtype=dtype, features="disk"), plain)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"feature_dtype": "float16"},
        {"window": "0:300", "gamma": "cosine:0.75:0.25"},
        {"sites": f"decoder:9-11,{MIDDLE}", "init_adain": False},
    ],
    ids=str,
)
def test_recomputed_features_give_the_same_picture(styler, options):
    error = rel_l2(stylize(styler, features="recompute", **options), stylize(styler, **options))
    print(f"recomputed: {error:.1e}")
    assert error < RECOMPUTED


def test_recomputing_keeps_latents_and_evaluates_three_images_at_once(styler, monkeypatch):
    seen = batches(styler, monkeypatch)
    cfg = StyleConfig(steps=STEPS, features="recompute", window="0:600")
    content, style = (styler.invert(x, cfg, p) for x, p in ((CONTENT, "q"), (STYLE, "kv")))
    assert len(content.features) == len(style.features) == 0
    assert list(content.trail) == [1, 251, 501, 751]
    np.testing.assert_array_equal(
        content.trail[1].numpy(), styler.sd.encode_image(styler._checked(CONTENT, cfg)).numpy()
    )
    assert seen == [1] * 2 * STEPS
    styler.transfer(content, style, cfg)
    assert seen[2 * STEPS :] == [1, 3, 3, 3]  # at 751 nothing is injected


def test_recomputing_serves_a_batch_of_styles(styler, monkeypatch):
    cfg = StyleConfig(steps=2, features="recompute")
    content = styler.invert(CONTENT, cfg, "q")
    styles = [styler.invert(picture(i), cfg, "kv") for i in (2, 3)]
    seen = batches(styler, monkeypatch)
    both = styler.transfer(content, join(styles), cfg).numpy()
    assert seen == [5, 5]  # a content, two styles, two results
    for i, style in enumerate(styles):
        assert rel_l2(both[i : i + 1], styler.transfer(content, style, cfg).numpy()) < RECOMPUTED


def test_no_injection_needs_no_features(styler):
    plain = stylize(styler, inject=False)
    for features in ("disk", "recompute"):
        np.testing.assert_array_equal(stylize(styler, inject=False, features=features), plain)


@pytest.mark.parametrize("parts", ["q", "kv", "qkv"])
@pytest.mark.parametrize("options", [{}, {"window": "0:300"}, {"feature_dtype": "float16"}])
def test_the_bytes_that_features_take_are_known_before(styler, parts, options):
    cfg = StyleConfig(steps=STEPS, features="memory", **options)
    pair = np.concatenate([CONTENT, STYLE])
    needed = styler.feature_bytes(cfg, pair.shape, parts)
    assert needed == styler.invert(pair, cfg, parts).features.nbytes > 0


def test_auto_asks_for_a_whole_pair_and_says_what_it_chose(styler, monkeypatch, caplog):
    asked = []

    def choose(nbytes, folder, working):
        assert working > 0
        asked.append((nbytes, folder))
        return "recompute", "computed again"

    monkeypatch.setattr(pipeline, "choose", choose)
    seen = batches(styler, monkeypatch)
    with caplog.at_level("INFO", "jstyle"):
        stylize(styler, features="auto")
    cfg = StyleConfig(steps=STEPS)
    assert asked == [(styler.feature_bytes(cfg, CONTENT.shape, "qkv"), styler.scratch)]
    assert caplog.messages == ["computed again"] and seen[-STEPS:] == [3] * STEPS


def test_sides_that_do_not_go_together_are_refused(styler):
    memory, again = (StyleConfig(steps=2, features=f) for f in ("memory", "recompute"))
    content, style = styler.invert(CONTENT, memory, "q"), styler.invert(STYLE, again, "kv")
    with pytest.raises(ValueError, match="the style was inverted with features = recompute"):
        styler.transfer(content, style, memory)
    small = styler.invert(picture(2, 32, 64), again, "kv")
    with pytest.raises(ValueError, match=r"one size, got \(16, 24\) and \(8, 16\)"):
        styler.transfer(styler.invert(CONTENT, again, "q"), small, again)
    with pytest.raises(ValueError, match="auto, memory, disk or recompute, got 'ram'"):
        StyleConfig(features="ram")
