"""The measures on sets made so that the answer is known, and the rule that chooses a count."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jdreambooth import drawings, measures
from jdreambooth.config import TrainConfig
from jdreambooth.pick import PickError, held_out_texts
from jdreambooth.runs import Run
from jdreambooth.verdict import Measured, PickConfig, judge, table

OBJECTS = ("tree", "house", "cup", "star", "book", "chair")
SEEDS = (3, 4)


def painted(objects, style, seeds=SEEDS, size=64):
    """(objects, seeds, 3, S, S) in [-1, 1]: what a model would paint that does as it is told."""
    made = [[np.asarray(drawings.draw(o, style, s, size)) for s in seeds] for o in objects]
    return np.array(made, np.float32).transpose(0, 1, 4, 2, 3) / 127.5 - 1


def flat(pictures):
    return pictures.reshape(-1, *pictures.shape[2:])


def latents_of(pictures):
    """Stands in for a VAE: a grid of 16 x 16 means of the colours, shifted and scaled."""
    *many, _, height, width = pictures.shape
    cells = pictures.reshape(*many, 3, 16, height // 16, 16, width // 16).mean((-3, -1))
    return (cells * np.array([1.5, 0.7, 1.1])[:, None, None] + 0.3).astype(np.float32)


@pytest.fixture(scope="module")
def references():
    """Six foxes in stone relief: all references show one kind of object."""
    return flat(painted(("fox",), "stone relief", range(100, 106)))


@pytest.fixture(scope="module")
def untrained():
    return painted(OBJECTS, None)


@pytest.fixture(scope="module")
def healthy():
    return painted(OBJECTS, "stone relief")


@pytest.fixture(scope="module")
def collapsed():
    """Every prompt gives the fox that belongs to the seed."""
    return np.repeat(painted(("fox",), "stone relief"), len(OBJECTS), 0)


def test_style_distance_sees_the_style_and_not_the_objects(references, untrained, healthy):
    style = measures.style(references)
    far = measures.style_distance(measures.style(flat(untrained)), style)
    near = measures.style_distance(measures.style(flat(healthy)), style)
    assert near.colour < 0.3 * far.colour and near.texture < 0.3 * far.texture
    assert measures.style_distance(style, style) == (0.0, 0.0)
    other = measures.style(flat(painted(OBJECTS, "op art")))
    assert measures.style_distance(other, style).texture > 3 * near.texture


def test_colour_and_texture_are_measured_apart(references):
    style = measures.style(references)
    tinted = references.copy()
    tinted[:, 0] = np.clip(tinted[:, 0] + 0.3, -1, 1)
    mean = references.mean((2, 3), keepdims=True)
    softer = mean + 0.5 * (references - mean)
    shuffled = references.reshape(len(references), 3, -1)
    shuffled = shuffled[..., np.random.default_rng(0).permutation(64 * 64)]
    shuffled = shuffled.reshape(references.shape)
    assert measures.style_distance(measures.style(tinted), style).colour > 0.1
    assert measures.style_distance(measures.style(softer), style).texture > 0.1
    moved = measures.style_distance(measures.style(shuffled), style)
    assert moved.colour == 0.0 and moved.texture > 0.3


def test_style_statistics_are_finite_for_flat_pictures():
    for value in (-1.0, 0.0, 1.0):
        colour, texture = measures.style(np.full((2, 3, 48, 40), value))
        assert np.isfinite(colour).all() and np.isfinite(texture).all()
        assert colour.shape == (2, 15) and texture.shape == (2, 20)


def test_diversity_is_lost_where_prompts_are_ignored(untrained, healthy, collapsed):
    before = measures.diversity(latents_of(untrained))
    assert measures.diversity(latents_of(healthy)) > 0.8 * before
    assert measures.diversity(latents_of(collapsed)) == pytest.approx(0, abs=1e-6)
    half = np.concatenate([healthy[::2], collapsed[::2]])
    kept = measures.diversity(latents_of(half))
    assert 0.2 * before < kept < 0.95 * before
    same = np.repeat(latents_of(collapsed)[:, :1], 2, 1)  # seeds are ignored as well
    assert measures.diversity(same) == 0.0
    for too_few in (same[:1], same[:, :1]):
        with pytest.raises(ValueError, match="two prompts and two seeds"):
            measures.diversity(too_few)


def test_copies_are_found_also_mirrored_and_recoloured(references, healthy, collapsed):
    training = latents_of(references)

    def copies(pictures):
        return measures.copied(measures.to_training(latents_of(pictures), training))

    assert copies(flat(healthy)) == 0.0
    assert copies(references) == 1.0
    assert copies(references[..., ::-1]) == 1.0
    assert copies(0.5 * references + 0.2) == 1.0
    assert copies(np.concatenate([flat(healthy), references])) == pytest.approx(6 / 18)
    gaps = measures.to_training(latents_of(flat(collapsed)), training)
    assert measures.nearest(gaps) < measures.nearest(
        measures.to_training(latents_of(flat(healthy)), training)
    )
    assert math.isnan(measures.copied(gaps[:, :1]))


def test_structure_forgets_colour_contrast_and_texture():
    rng = np.random.default_rng(1)
    z = rng.standard_normal((2, 4, 8, 8)).repeat(4, 2).repeat(4, 3)
    u = measures.structure(z)
    np.testing.assert_allclose(np.linalg.norm(u, axis=1), 1)
    np.testing.assert_allclose(measures.structure(3 * z + rng.random((1, 4, 1, 1))), u)
    chequers = (-1.0) ** np.add.outer(range(32), range(32))  # mean 0 in every 4 x 4 cell
    np.testing.assert_allclose(measures.structure(z + chequers), u, atol=1e-12)
    assert measures.structure(np.ones((1, 4, 5, 7))).shape == (1, 4 * 5 * 7)
    np.testing.assert_allclose(np.diag(measures.distances(u, u)), 0, atol=1e-12)


def test_recognition_tells_own_prompts_from_training_captions():
    own = np.array([0, 0, 1, 1])
    errors = np.ones((4, 4))  # two prompts, two training captions
    for row, taken_for in enumerate((0, 1, 3, 2)):
        errors[row, taken_for] = 0.5
    assert measures.recognition(errors, own) == (0.25, 0.5)


BEFORE = Measured(0, 0.5, 1.0, 0.9, 0.0, 1.0, 0.8, 0.0, 0.1)
EARLY = Measured(100, 0.3, 0.6, 0.9, 0.0, 1.0, 0.7, 0.0, 0.4)
GOOD = Measured(250, 0.1, 0.2, 0.8, 0.1, 0.9, 0.6, 0.0, 0.4)
ALIKE = Measured(1000, 0.05, 0.1, 0.8, 0.1, 0.3, 0.5, 0.0, 0.6)


def test_the_healthy_count_nearest_to_the_style_is_recommended():
    found = judge([BEFORE, EARLY, GOOD, ALIKE], PickConfig())
    assert found.step == 250 and found.note == ""
    assert found.style == pytest.approx({0: 1.0, 100: 0.6, 250: 0.2, 1000: 0.1})
    assert found.collapsed == {1000: ["prompts give the same picture"]}
    text = table([BEFORE, EARLY, GOOD, ALIKE], found)
    assert "<- recommended" in text.splitlines()[3] and "untrained" in text.splitlines()[1]
    assert "collapsed: prompts give" in text and text.endswith("recommended: 250")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"own": 0.2, "training": 0.7}, "only 20% show what was asked for, 70% look like"),
        ({"diversity": 0.5}, "prompts give the same picture"),
        ({"copied": 0.4}, "40% are copies"),
    ],
)
def test_each_measure_can_rule_a_count_out(change, why):
    found = judge([BEFORE, EARLY, replace(GOOD, **change)], PickConfig())
    assert found.step == 100 and why in found.collapsed[250][0]


def test_thresholds_are_options():
    counts = [BEFORE, EARLY, GOOD, replace(ALIKE, own=0.5, copied=0.15)]
    cfg = PickConfig(least_diversity=0.2, least_recognised=0.5)
    assert judge(counts, cfg).step == 1000
    assert judge(counts, replace(cfg, most_copies=0.1)).step == 250
    assert judge(counts, replace(cfg, least_recognised=0.6)).step == 250
    assert judge(counts, replace(cfg, style_margin=0.15)).step == 250
    assert judge(counts, replace(cfg, least_diversity=0.4)).step == 250


def test_by_score_the_colours_and_what_is_recognised_decide():
    cfg = PickConfig(by="score")
    wide = replace(ALIKE, diversity=0.9)  # healthy: 0.6 x 0.8 = 0.48 against 0.36 and 0.32
    assert judge([BEFORE, EARLY, GOOD, wide], cfg).step == 1000
    assert judge([BEFORE, EARLY, GOOD, ALIKE], cfg).step == 100  # the same, collapsed
    assert judge([BEFORE, EARLY, GOOD, ALIKE], PickConfig()).step == 250
    assert judge([BEFORE, EARLY, GOOD, wide], replace(cfg, style_margin=0.3)).step == 100
    blind = replace(BEFORE, own=0.3)  # recognition is left out: 0.4 against 0.5
    assert (
        judge([blind, replace(EARLY, own=0.9), replace(GOOD, own=0.1, hist=0.5)], cfg).step == 250
    )
    grey = replace(EARLY, hist=0.05)
    assert judge([BEFORE, grey], cfg).note.startswith("the style is hardly learned")


def test_the_notes_say_what_to_do_next():
    cfg = PickConfig()
    assert "more steps may be better" in judge([BEFORE, EARLY, GOOD], cfg).note
    hardly = replace(EARLY, colour=0.49, texture=0.97)
    assert judge([BEFORE, hardly], cfg).note.startswith("the style is hardly learned")
    none = judge([BEFORE, ALIKE], cfg)
    assert none.step is None and "save below 1000" in none.note
    assert "no count is recommended (all counts" in table([BEFORE, ALIKE], none)


def test_a_model_that_does_not_recognise_its_own_pictures_is_not_asked():
    blind = replace(BEFORE, own=0.3)
    assert judge([blind, replace(GOOD, own=0.0)], PickConfig()).step == 250
    assert "recognition is left out: 30%" in judge([blind, GOOD], PickConfig()).note
    deaf = replace(BEFORE, diversity=0.01)
    assert "give some the model knows" in judge([deaf, GOOD], PickConfig()).note
    one_reference = replace(GOOD, copied=float("nan"))
    found = judge([BEFORE, one_reference], PickConfig())
    assert found.step == 250
    assert "nan" not in table([BEFORE, one_reference], found)


def make_run(prompt="{stem} in knitted style", **captions):
    captions = captions or {"fox.png": "fox in knitted style", "a_cup_.png": "a cup in knitted"}
    config = TrainConfig(instance_dir="d", out="o", instance_prompt=prompt, caption_case="lower")
    return Run(Path("o"), config, captions, {10: Path("o/step-000010")})


def test_held_out_prompts_avoid_the_trained_words():
    texts = held_out_texts(make_run(), None)
    assert len(texts) == 8 and "house in knitted style" in texts
    assert not [text for text in texts if "cup" in text]
    assert held_out_texts(make_run(), ["a", "b"], "{prompt}!") == ["a!", "b!"]


@pytest.mark.parametrize(
    ("prompt", "given", "told"),
    [
        ("sks", None, "give --prompts"),
        ("{stem} in knitted style", ["Fox in knitted style", "b"], "is a training caption"),
        ("sks", ["one"], "at least two"),
        ("sks", ["b", "b"], "at least two different"),
    ],
)
def test_prompts_that_show_nothing_are_refused(prompt, given, told):
    with pytest.raises(PickError, match=told):
        held_out_texts(make_run(prompt), given)


@pytest.mark.parametrize(
    "wrong",
    [
        {"seeds": 1},
        {"draws": 0},
        {"most_copies": 1.5},
        {"steps": 0},
        {"template": "x"},
        {"by": "x"},
    ],
)
def test_options_that_cannot_be_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PickConfig(**wrong)
