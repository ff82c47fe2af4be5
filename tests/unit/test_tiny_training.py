"""How the shipped model is trained to borrow a style: the wanted pictures, and who reads whom."""

from __future__ import annotations

import numpy as np

from benchmarks.tiny.classifier import Judge, grey, sees
from benchmarks.tiny.pairs import match_colours
from benchmarks.tiny.train_unet import Batches, borrow_style
from jstyle.config import PRESETS
from jstyle.sd.startup import jt


def colours(picture):
    pixels = picture.reshape(-1, 3) / 255
    return pixels.mean(0), np.cov(pixels.T)


def test_a_matched_picture_has_the_colours_of_the_style_and_its_own_structure():
    rng = np.random.default_rng(0)
    mixing = rng.normal(0, 1, (2, 3, 3))
    noise = rng.standard_normal((2, 64, 64, 3))
    picture, style = (np.clip(128 + 12 * noise[i] @ mixing[i] + 9 * i, 0, 255) for i in range(2))
    picture, style = picture.astype(np.uint8), style.astype(np.uint8)
    matched = match_colours(picture, style)
    for found, wanted in zip(colours(matched), colours(style), strict=True):
        assert np.abs(found - wanted).max() < 0.01
    assert np.abs(colours(picture)[1] - colours(style)[1]).max() > 0.01
    grey = [x.mean(2).ravel() for x in (matched, picture)]
    assert np.corrcoef(*grey)[0, 1] > 0.5
    assert np.abs(match_colours(style, style).astype(int) - style).max() <= 1


def test_contents_read_their_own_style_and_all_others_read_themselves():
    rng = np.random.default_rng(1)
    q, k, v = (jt.array(rng.standard_normal((5, 4, 2, 3)).astype(np.float32)) for _ in range(3))
    got_q, got_k, got_v = borrow_style(2)(
        lambda *qkv: qkv, q, k, v
    )  # rows: plain, two styles, two contents
    assert np.array_equal(got_q.numpy()[:3], q.numpy()[:3])
    assert np.allclose(got_q.numpy()[3:], q.numpy()[3:] * PRESETS["paper"]["tau"])
    for got, given in ((got_k, k), (got_v, v)):
        assert np.array_equal(got.numpy(), given.numpy()[[0, 1, 2, 1, 2]])


def test_the_judge_sees_an_object_where_it_is_among_the_first_that_it_would_name():
    images = np.random.default_rng(2).integers(0, 256, (6, 128, 128, 3), np.uint8)
    judge = Judge()
    order = np.argsort(-judge(jt.array(grey(images))).numpy(), 1)
    assert sees(judge, images, order[:, 0]).all() and not sees(judge, images, order[:, 1]).any()
    assert sees(judge, images, order[:, 4], among=5).all()
    assert not sees(judge, images, order[:, 5], among=5).any()
    one = int(order[2, 0])
    assert np.array_equal(sees(judge, images, one), order[:, 0] == one)


class Options:
    photo_share, plain_share, seed = 0.5, 0.0, 3


def no_tokens(texts):
    return np.zeros((len(texts), 77))


def test_a_content_is_noised_with_its_own_colours_and_wanted_in_those_of_the_style():
    latents = {k: np.zeros((4, 4, 8, 8), np.float16) for k in ("photo", "drawing", "scene")}
    pairs = {role: np.full((6, 4, 8, 8), i, np.float16) for i, role in enumerate("abc")}
    pairs = dict(zip(("content", "style", "result"), pairs.values(), strict=True))
    captions = {kind: [""] * 4 for kind in latents}
    batch = Batches(latents, pairs, 1.0, captions, no_tokens, Options).draw(60, 20)
    styles, contents = slice(20, 40), slice(40, 60)
    assert (batch.z[styles] == 1).all() and (batch.z[contents] == 2).all()
    assert (batch.told[styles] == batch.told[contents]).all()
    assert (batch.t[contents] == batch.told[contents]).all()
    assert (batch.t[styles] <= batch.told[styles]).all() and (batch.t < batch.told).any()
    pull = batch.noise[contents].mean((1, 2, 3))  # towards content - result = -2
    early = batch.told[contents] < 500
    assert pull[early].mean() < -0.5 and (pull > -2.3).all()


def test_drawings_can_be_taken_from_the_plain_ones():
    class Plain(Options):
        photo_share, plain_share = 0.0, 1.0

    latents = {k: np.zeros((8, 4, 8, 8), np.float16) for k in ("photo", "scene")}
    latents["drawing"] = np.ones((8, 4, 8, 8), np.float16) * np.arange(1, 9).reshape(-1, 1, 1, 1)
    captions = {k: [""] * 8 for k in latents} | {"drawing": ["a cup", "a cup in neon style"] * 4}
    drawn = {}
    for options in (Options, Plain):
        z = Batches(latents, None, 1.0, captions, no_tokens, options).draw(200, 0).z
        drawn[options] = set(z[:, 0, 0, 0]) - {0.0}
    assert drawn[Options] == set(range(1, 9)) and drawn[Plain] == {1, 3, 5, 7}
