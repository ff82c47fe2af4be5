"""Pictures of prompts: from noise, as samples of a run, and what a model takes pictures for."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from jdreambooth import pick
from jdreambooth.generate import make_picture, mean_picture, paint
from jdreambooth.names import safe_name
from jdreambooth.recipe import Recipe
from jdreambooth.samples import Sampler, first_captions
from jstyle.sd import image
from jstyle.sd.noise import gaussian
from tests.pictures import picture
from tests.tiny import make_ours

RECIPE = Recipe(seed=3, steps=2, guidance=2.0, negative="dark")


@pytest.fixture(scope="module")
def sd():
    return make_ours("sd2")


def test_without_a_start_it_is_what_the_model_generates(sd):
    told = []
    ours = make_picture(sd, "a star", 3, RECIPE, 64, advance=lambda: told.append(1))
    same = sd.generate("a star", 3, 2, 2.0, "dark", 64, 64)
    np.testing.assert_array_equal(ours.numpy(), same.numpy())
    assert len(told) == RECIPE.evaluations == 2
    assert paint(sd, "a star", 3, RECIPE, 64).shape == (64, 64, 3)
    with pytest.raises(ValueError, match="multiple of 32, got 72"):
        make_picture(sd, "a star", 3, RECIPE, 72)


@pytest.mark.parametrize(
    ("strength", "steps", "left"), [(1.0, 10, 10), (0.9, 10, 9), (0.25, 10, 2), (0.01, 10, 1)]
)
def test_the_strength_says_how_many_steps_are_left(strength, steps, left):
    recipe = Recipe(steps=steps, strength=strength, init="average")
    assert recipe.evaluations == left
    assert replace(recipe, init=None).evaluations == steps


def test_the_average_is_the_pixel_mean(tmp_path):
    pixels = image.to_uint8(picture(1, 64, 64, batch=2))
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for path, each in zip(paths, pixels, strict=True):
        image.save_png(path, each)
    mean = pixels.astype(np.float64).mean(0).transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(mean_picture(paths, 64)[0], mean, atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"seed": -1}, "seed must be an integer from 0"),
        ({"steps": 0}, "steps must be an integer from 1 to 1000, got 0"),
        ({"guidance": float("nan")}, "guidance must be a finite number"),
        ({"sampler": "dmp++2m"}, r"sampler must be one of ddim, .*unipc.*, got 'dmp\+\+2m'"),
        ({"sampler": "ddim", "sigmas": "karras"}, r"admits no sigmas karras; these do: euler, "),
        ({"sigmas": "linear"}, "sigmas must be karras or exponential, got 'linear'"),
        ({"sampler": "heun", "eta": 0.5}, "heun has no eta, got 0.5; ddim has"),
        ({"eta": 1.5}, r"eta must be in \[0, 1\], got 1.5"),
        ({"rescale": -0.1}, r"rescale must be in \[0, 1\], got -0.1"),
        ({"strength": 0.0}, "strength must be above 0"),
        ({"strength": 1.1}, "at most 1, got 1.1"),
        ({"template": "in style_05"}, "must contain {prompt}"),
        ({"rng": "torch"}, "rng must be one of numpy, torch-cpu, torch-cuda"),
    ],
)
def test_recipes_that_cannot_be_are_refused(wrong, told):
    with pytest.raises(ValueError, match=told):
        Recipe(**wrong)


def test_samples_become_a_grid_over_the_steps(sd, tmp_path):
    prompts = ["a star", "a/b"]
    recipe = replace(RECIPE, steps=1, guidance=1.0)
    Sampler(tmp_path, prompts, recipe, 64)(10, sd)
    sampler = Sampler(tmp_path, prompts, recipe, 64)  # as after an interruption
    folder = sampler(20, sd)
    made = Image.open(folder / f"{safe_name('a/b')}.png")
    assert json.loads(made.text["jstyle"]) == {"prompt": "a/b", "seed": 4, "step": 20}
    first = Image.open(tmp_path / "samples" / "step-000010" / "a_b.png")
    np.testing.assert_array_equal(np.asarray(first), np.asarray(made))  # nothing was trained
    grid = Image.open(sampler.write_grid())
    assert grid.width > 2 * 64 and grid.height > 2 * 64
    assert Sampler(tmp_path / "none", prompts, recipe, 64).write_grid() is None
    assert first_captions({"1": "a", "2": "b", "3": "a", "4": "c"}, 2) == ["a", "b"]


def test_every_text_is_judged_on_the_same_noise(sd, monkeypatch):
    latents = gaussian((2, 4, 16, 16), 0)
    texts = ["a star", "a cat", "", "a star"]
    errors = pick.explain(sd, latents, texts, draws=2)
    assert errors.shape == (2, 4) and np.isfinite(errors).all() and (errors > 0).all()
    np.testing.assert_allclose(errors[:, 0], errors[:, 3], rtol=1e-6)
    assert (np.abs(errors[:, 0] - errors[:, 1]) > 1e-7).all()
    assert not np.allclose(errors, pick.explain(sd, latents, texts, draws=1), rtol=1e-3)
    monkeypatch.setattr(pick, "ROWS_AT_ONCE", 3)
    np.testing.assert_allclose(pick.explain(sd, latents, texts, draws=2), errors, rtol=1e-5)
