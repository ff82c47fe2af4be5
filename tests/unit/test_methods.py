"""Methods with a reference: nothing is changed where nothing is asked, and every option counts."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from jstyle.methods import find_method, missing_options
from jstyle.methods.base import NOISE, Noise
from jstyle.methods.nearest import features, nearest
from jstyle.methods.painting import tell_window
from jstyle.methods.vocabulary import in_words_of
from jstyle.sd.hooks import hooks_around
from jstyle.sd.samplers.options import Sampling
from tests.pictures import picture
from tests.tiny import make_ours
from tests.tolerances import rel_l2

SIZE = (64, 64)  # latents of 16 x 16
METHODS = ("style-aligned", "reference-only")
CHANGED = {  # an option -> another value than the default; all that change a picture
    "style-aligned": {
        "adain": "none",
        "share_norms": False,
        "score_scale": 0.5,
        "score_shift": -1.0,
        "sites": "decoder:9-11",
        "window": "0:300",
        "weight": 0.5,
        "invert_prompt": "a drawing",
    },
    "reference-only": {
        "mode": "adain",
        "fidelity": 1.0,
        "noise_seed": 3,
        "sites": "decoder:9-11",
        "window": "0:300",
        "weight": 0.5,
    },
}
OF_THE_WALK = {"steps", "size_px", "prompt", "negative", "guidance"}


@pytest.fixture(scope="module")
def sd():
    return make_ours("sd2")


@pytest.fixture(scope="module")
def made(sd):
    """made(method, **options) -> the picture of a prompt after a reference, two steps."""

    def paint(name, prompts=("a star",), reference=True, guidance=3.0, **options):
        method = find_method(name)
        cfg, painter = method.Config(steps=2, **options), method(sd)
        seeds = tuple(5 + i for i in range(len(prompts)))
        how = Sampling(2, guidance, "ddim")
        sides = {NOISE: Noise(sd.noise(len(prompts), 5, *SIZE), tuple(prompts), seeds, how)}
        if reference:
            sides["style"] = painter.prepare("style", picture(2, *SIZE), cfg)
        return painter.apply(sides, cfg).numpy()

    return paint


@pytest.fixture(scope="module")
def default(made):
    return {name: made(name) for name in METHODS}


@pytest.fixture(scope="module")
def plain(sd):
    how = {"num_steps": 2, "guidance": 3.0, "sampler": "ddim"}
    return sd.generate("a star", 5, height=SIZE[0], width=SIZE[1], **how).numpy()


@pytest.mark.parametrize("name", METHODS)
def test_without_weight_or_window_it_is_the_plain_picture_and_hooks_are_gone(
    sd, made, plain, default, name
):
    assert rel_l2(default[name], plain) > 1e-2
    assert made(name, weight=0).tobytes() == plain.tobytes()
    assert made(name, window="997:998").tobytes() == plain.tobytes()
    assert made(name).tobytes() == default[name].tobytes()
    assert not any(hooks_around(module) for module in sd.unet.modules())
    sites = sd.unet.attention_sites()
    assert not any(hooks_around(sd.unet.attention(site), "attend") for site in sites)


@pytest.mark.parametrize("name", METHODS)
def test_every_option_changes_the_picture(made, default, name):
    options = {field.name for field in fields(find_method(name).Config)} - OF_THE_WALK
    untold = options - CHANGED[name].keys()
    assert untold == ({"invert_prompt"} if name == "reference-only" else set())  # of a content
    for option, value in CHANGED[name].items():
        assert rel_l2(made(name, **{option: value}), default[name]) > 1e-4, option


def test_the_first_of_a_batch_leads_and_stays_as_it_is(made, plain):
    both = made("style-aligned", ("a star", "a fox"), reference=False)
    assert rel_l2(both[:1], plain) < 1e-5
    alone = made("style-aligned", ("a star", "a fox"), reference=False, weight=0)
    assert rel_l2(both[1:], alone[1:]) > 1e-2


def test_a_content_is_where_the_result_starts(sd):
    method = find_method("reference-only")
    cfg, painter = method.Config(steps=2, prompt="a star", invert_prompt="a hill"), method(sd)
    other = method.Config(steps=2, prompt="a star")
    sides = {"style": painter.prepare("style", picture(2, *SIZE), cfg)}
    found = [
        painter.apply({**sides, "content": painter.prepare("content", picture(i, *SIZE), c)}, cfg)
        for i, c in ((1, cfg), (3, cfg), (1, other))
    ]
    images = [each.numpy() for each in found]
    assert rel_l2(images[1], images[0]) > 1e-2 and rel_l2(images[2], images[0]) > 1e-4


def test_options_of_other_methods_are_named_with_the_methods_that_have_them():
    told = missing_options("styleid")
    assert told["fidelity"] == ("method styleid has no such option; it is one of reference-only")
    assert "style-aligned, reference-only" in told["weight"]
    assert not told.keys() & {"steps", "sites", "window", "prompt", "guidance"}
    assert "gamma" in missing_options("reference-only")
    assert "gamma" not in missing_options("reference-only", known=["gamma"])


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("style-aligned", {"adain": "qx"}, 'adain must be letters of "qkv" or "none", got'),
        ("style-aligned", {"share_norms": 1}, "share_norms must be true or false, got 1"),
        ("style-aligned", {"score_shift": float("inf")}, "score_shift must be a finite number"),
        ("style-aligned", {"weight": 1.1}, "weight must be a number from 0 to 1, got 1.1"),
        ("reference-only", {"mode": "all"}, "mode must be attention, adain or both, got 'all'"),
        ("reference-only", {"fidelity": -1}, "fidelity must be a number from 0 to 1, got -1"),
        ("reference-only", {"noise_seed": -1}, "noise_seed must be"),
        ("reference-only", {"guidance": float("nan")}, "guidance must be a finite number"),
        ("reference-only", {"prompt": 3}, "prompt must be text, got 3"),
        ("reference-only", {"window": "9:1"}, "window must be"),
        ("reference-only", {"sites": ""}, "sites must name at least one"),
        ("reference-only", {"size_px": 4}, "size_px must be an integer from 8"),
    ],
)
def test_values_that_cannot_be_are_named(name, options, told):
    with pytest.raises(ValueError, match=told.replace("(", r"\(")):
        find_method(name).Config(**options)


def test_the_words_of_a_picture_stand_for_the_place_in_a_prompt():
    cfg = find_method("reference-only").Config(prompt="{prompt}, in ink", negative="no {prompt}")
    found = in_words_of(cfg, "a cat")
    assert (found.prompt, found.negative) == ("a cat, in ink", "no a cat")


def test_a_window_without_a_timestep_is_told():
    lines = []
    cfg = find_method("reference-only").Config(window="3:4")
    for times in ([901, 401, 1], [901, 3]):
        tell_window(cfg, times, lines.append)
    assert (
        len(lines) == 1 and "window 3:4 holds none of the sampling timesteps (1 to 901)" in lines[0]
    )


def test_the_nearest_style_is_the_one_of_its_own_kind(sd):
    seen = [features(sd, picture(i, *SIZE)) for i in (1, 2, 3)]
    changed = features(sd, np.clip(picture(1, *SIZE) + 0.05, -1, 1))
    assert nearest(changed, seen) == 0 and nearest(changed, seen[::-1]) == 2
