"""The procedural drawings: reproducible, told apart by shape and by style, captioned correctly."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from jdreambooth.drawings import (
    FAMILIES,
    HELD_OUT_STYLES,
    OBJECTS,
    STYLES,
    caption,
    draw,
    recolour,
    scene,
)
from jdreambooth.drawings.animals import ANIMALS
from jdreambooth.drawings.canvas import Canvas
from jdreambooth.drawings.things import THINGS

ALL_STYLES = (*STYLES, *HELD_OUT_STYLES)


def pixels(image):
    return np.asarray(image, np.float32) / 255


def silhouette(name):
    """(64, 64) bool: the subject upright, centred, filling the frame."""
    parts = {**THINGS, **ANIMALS}[name]
    low = np.min([p.points.min(0) for p in parts], 0)
    high = np.max([p.points.max(0) for p in parts], 0)
    scale = 60 / (high - low).max()
    canvas = Canvas(64, np.random.default_rng(0))
    canvas.add(parts, np.eye(2) * scale, 32 - scale * (low + high) / 2)
    return canvas.mask > 0


def signature(picture):
    """Colour and texture of a picture, positions left out: (13,)."""
    grey = picture.mean(-1)
    across, down = np.abs(np.diff(grey, axis=1)), np.abs(np.diff(grey, axis=0))
    border = np.concatenate([picture[:6].reshape(-1, 3), picture[-6:].reshape(-1, 3)])
    texture = [across.mean(), down.mean(), across.std(), down.std()]
    return np.array([*picture.mean((0, 1)), *picture.std((0, 1)), *border.mean(0), *texture])


@pytest.mark.parametrize("style", (None, *ALL_STYLES))
def test_same_arguments_give_the_same_picture_and_another_seed_another(style):
    first = draw("apple", style, 3, 64)
    assert first.mode == "RGB" and first.size == (64, 64)
    assert first.tobytes() == draw("apple", style, 3, 64).tobytes()
    assert first.tobytes() != draw("apple", style, 4, 64).tobytes()


def test_there_are_enough_subjects_and_styles_and_none_is_both_kept_and_trained():
    assert len(OBJECTS) == len(set(OBJECTS)) >= 40
    assert len(STYLES) >= 16 and len(HELD_OUT_STYLES) >= 5
    assert not set(STYLES) & set(HELD_OUT_STYLES)
    assert set(FAMILIES["animals"]) < set(OBJECTS)


def test_no_two_silhouettes_nearly_coincide():
    shapes = {name: silhouette(name) for name in OBJECTS}
    for a, b in itertools.combinations(OBJECTS, 2):
        overlap = (shapes[a] & shapes[b]).sum() / (shapes[a] | shapes[b]).sum()
        assert overlap < 0.86, f"{a} and {b}: {overlap:.3f}"


@pytest.mark.parametrize("name", OBJECTS)
def test_subject_stays_inside_the_frame_and_stands_out(name):
    for seed in range(3):
        picture = pixels(draw(name, None, seed, 64))
        border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert np.abs(np.diff(border[:64], axis=0)).max() < 0.1  # nothing crosses the top
        contrast = np.abs(picture - np.median(border, 0)).max(-1)
        assert (contrast > 0.2).mean() > 0.02


def test_each_picture_is_nearest_to_its_own_style():
    names = OBJECTS[::7]
    table = np.array(
        [[signature(pixels(draw(o, s, i, 64))) for i, o in enumerate(names)] for s in ALL_STYLES]
    )
    known, asked = table[:, ::2], table[:, 1::2]
    spread = known.std((0, 1))
    distance = np.linalg.norm((asked[:, :, None, None] - known[None, None]) / spread, axis=-1)
    nearest = distance.min(-1).argmin(-1)  # (style, picture) -> style
    right = (nearest == np.arange(len(ALL_STYLES))[:, None]).mean()
    assert right > 0.8, f"{right:.2f} of the pictures"


@pytest.mark.parametrize("style", ALL_STYLES)
def test_a_style_changes_the_background_too(style):
    plain, styled = (pixels(draw("star", s, 1, 64)) for s in (None, style))
    edge = np.r_[0:4, 60:64]
    assert np.abs(plain[edge] - styled[edge]).mean() > 0.05
    assert styled[edge].std((0, 1)).max() > 0.01  # a texture, not one flat colour


def test_captions_take_the_right_article():
    assert caption("star") == "a star"
    assert caption("apple") == "an apple"
    assert caption("umbrella", "mosaic") == "an umbrella in mosaic style"
    assert caption("ice cream", "oil painting") == "an ice cream in oil painting style"
    assert caption("glasses", "neon") == "glasses in neon style"
    assert len({caption(o) for o in OBJECTS}) == len(OBJECTS)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="spaceship"):
        draw("spaceship", None, 0)
    with pytest.raises(ValueError, match="cubism"):
        draw("star", "cubism", 0)
    with pytest.raises(ValueError, match="spaceship"):
        caption("spaceship")


def test_scenes_repeat_by_seed_and_differ_between_seeds():
    assert scene(5, 64).tobytes() == scene(5, 64).tobytes()
    assert len({scene(seed, 64).tobytes() for seed in range(12)}) == 12


def test_recolour_keeps_size_and_changes_colours():
    image = draw("heart", None, 0, 64)
    first, again, other = (recolour(image, np.random.default_rng(s)) for s in (1, 1, 2))
    assert first.size == image.size and first.mode == "RGB"
    assert first.tobytes() == again.tobytes() != other.tobytes()
