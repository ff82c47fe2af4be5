"""Methods that use a source picture's attention: what undoes them, what each option does, and what
is refused. What they compute is compared with PyTorch in tests/parity/test_sources.py."""

from __future__ import annotations

import logging
from dataclasses import fields, replace

import numpy as np
import pytest

from jstyle import cli
from jstyle.methods import find_method
from jstyle.methods.base import NOISE, Noise
from jstyle.sd import image
from jstyle.sd.facts import CONTENT, STYLE
from jstyle.sd.hooks import hooks_around
from jstyle.sd.samplers.options import Sampling
from jstyle.sd.startup import jt
from jstyle.subject import places
from tests import tiny
from tests.pictures import picture
from tests.tolerances import rel_l2

PICTURES = {CONTENT: picture(1, 64, 64), STYLE: picture(2, 64, 64)}
WORDS = {"prompt": "a dog and a cat", "invert_prompt": "a cat", "guidance": 2.0}
NAMES = ("masactrl", "cross-image", "appearance-encoder", "plug-and-play")
RECORDED = ("masactrl", "cross-image", "plug-and-play")
BASE = {  # of which the tests below change one option each
    "masactrl": {**WORDS, "subject": "cat"},
    "cross-image": {"gamma": 0.5, "weight": 0.9, "skip": 0.0},
    "appearance-encoder": {**WORDS, "window": "0:999"},
    "plug-and-play": WORDS,
}


@pytest.fixture(scope="module")
def sd():
    return tiny.make_ours("sd1")


def config(name, **given):
    return find_method(name).Config(**{"steps": 2, **BASE[name], **given})


def painted(sd, name, cfg, pictures=PICTURES):
    method = find_method(name)(sd)
    prepared = {role: method.prepare(role, pictures[role], cfg) for role in method.roles}
    return method.apply(prepared, cfg).numpy()


def plain(sd, cfg):
    """The content's noise sampled back, with the words of `cfg`."""
    z = sd.encode_image(jt.array(PICTURES[CONTENT]))
    for _, z in sd.invert(z, sd.encode_text([cfg.invert_prompt]), cfg.steps):  # noqa: B007, B020
        pass
    words = {"context": sd.encode_text([getattr(cfg, "prompt", cfg.invert_prompt)])}
    if hasattr(cfg, "guidance"):
        words |= {"guidance": cfg.guidance, "negative_context": sd.encode_text([cfg.negative])}
    for _, z in sd.sample(z, num_steps=cfg.steps, **words):  # noqa: B007, B020
        pass
    return sd.decode(z).numpy()


def hooks_in(unet):
    """Every hook that is around some part of the network."""
    sites = [unet.attention(site) for site in unet.attention_sites(self_only=False)]
    stages = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
    convs = [resnet.conv2 for stage in stages for resnet in stage.resnets]
    found = [hooks_around(site, "attend") for site in sites]
    return [h for h in (*found, *(hooks_around(c) for c in convs), hooks_around(unet)) if h]


@pytest.mark.parametrize("name", NAMES)
def test_without_weight_or_timesteps_the_picture_is_the_plain_one_to_the_byte(sd, name):
    nothing = [{"weight": 0.0}, {"window": "3:4"}]
    if name == "plug-and-play":
        nothing[1] |= {"blocks_window": "3:4"}
    for given in nothing:
        cfg = config(name, **given)
        np.testing.assert_array_equal(painted(sd, name, cfg), plain(sd, cfg))
    assert rel_l2(painted(sd, name, config(name)), plain(sd, cfg)) > 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_a_run_leaves_the_network_as_it_was_even_after_an_error(sd, name):
    cfg, method = config(name), find_method(name)(sd)
    before = plain(sd, cfg)
    painted(sd, name, cfg)
    prepared = {role: method.prepare(role, PICTURES[role], cfg) for role in method.roles}

    def stop(done, total):
        assert hooks_in(sd.unet)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        method.apply(prepared, cfg, stop)
    if name in RECORDED:
        with pytest.raises(KeyboardInterrupt):
            method.prepare(CONTENT, PICTURES[CONTENT], cfg, stop)
    assert not hooks_in(sd.unet) and sd.unet.facts is None
    np.testing.assert_array_equal(plain(sd, cfg), before)


OTHER = {  # option -> another value
    "steps": 3,
    "sites": "decoder:6-8",
    "window": "600:999",
    "weight": 0.3,
    "prompt": "a cat",
    "negative": "a blur",
    "guidance": 4.0,
    "invert_prompt": "a cat in oil",
    "feature_dtype": "float16",
    "features": "recompute",
    "size_px": 128,
    "subject": "",
    "mask_threshold": 0.7,
    "gamma": 0.0,
    "contrast": 1.0,
    "appearance_guidance": 1.0,
    "init_adain": False,
    "adain_window": None,
    "skip": 0.5,
    "encoder_at": "same",
    "both": True,
    "blocks": "",
    "blocks_window": "600:999",
}
SAME = {"features": 1e-4}  # moves no pixel beyond rounding


@pytest.mark.parametrize("name", NAMES)
def test_every_option_changes_the_picture(sd, name, tmp_path):
    cfg = config(name)
    files = {role: tmp_path / f"{role}.png" for role in PICTURES}
    for role, path in files.items():
        image.save_png(path, image.to_uint8(PICTURES[role])[0])
    before = painted(sd, name, cfg)
    for option in (field.name for field in fields(cfg)):
        value = OTHER[option]
        other = replace(cfg, **{option: value})
        if option == "size_px":
            load = find_method(name)(sd).load
            assert load(files[CONTENT], other).shape == (1, 3, value, value)
            continue
        found = rel_l2(painted(sd, name, other), before)
        if option in SAME:
            assert 0 < found < SAME[option], option
        else:
            assert found > (1e-6 if option == "feature_dtype" else 1e-4), option


def test_the_features_in_a_file_are_the_same_and_gone_afterwards(sd, tmp_path):
    for name in RECORDED:
        cfg = config(name, features="disk")
        method = find_method(name)(sd, tmp_path)
        prepared = {role: method.prepare(role, PICTURES[role], cfg) for role in method.roles}
        found = method.apply(prepared, cfg).numpy()
        np.testing.assert_array_equal(found, painted(sd, name, replace(cfg, features="memory")))
        assert list(tmp_path.iterdir()) == []


def test_the_bytes_that_are_planned_are_those_that_are_kept(sd):
    for name in RECORDED:
        method, cfg = find_method(name)(sd), config(name, features="memory", steps=3)
        cfg = replace(cfg, subject="") if name == "masactrl" else cfg
        for role in method.roles:
            kept = method.prepare(role, PICTURES[role], cfg).features.nbytes
            assert method.feature_bytes(role, cfg, (1, 3, 64, 64)) == kept > 0


@pytest.mark.parametrize("name", NAMES)
def test_pictures_in_a_batch_are_those_alone(sd, name):
    """Two contents (and styles) share one evaluation, and keep to their own sources."""
    cfg, method = config(name), find_method(name)(sd)
    made = {
        role: [method.prepare(role, picture(i, 64, 64), cfg) for i in numbers]
        for role, numbers in ((CONTENT, (1, 3)), (STYLE, (2, 4)))
        if role in method.roles
    }
    together = method.apply({role: method.join(both) for role, both in made.items()}, cfg).numpy()
    for i in (0, 1):
        alone = method.apply({role: both[i] for role, both in made.items()}, cfg).numpy()
        assert rel_l2(together[i : i + 1], alone) < 1e-4


def test_prompts_are_painted_after_a_source_of_another_size_where_that_makes_sense(sd):
    wide = picture(5, 64, 128)
    how = Sampling(2, 2.0, sampler="ddim")
    start = Noise(sd.noise(2, 0, 64, 64), ("a cat", "a dog and a cat"), (0, 1), how)
    pictures = {}
    for name in ("masactrl", "appearance-encoder"):
        method, cfg = find_method(name)(sd), config(name)
        reference = method.prepare(method.reference, wide, cfg)
        found = method.apply({NOISE: start, method.reference: reference}, cfg).numpy()
        assert found.shape == (2, 3, 64, 64)
        pictures[name] = found
        none = method.apply({NOISE: start, method.reference: reference}, replace(cfg, weight=0.0))
        assert rel_l2(found, none.numpy()) > 1e-2
    cfg, method = config("plug-and-play"), find_method("plug-and-play")(sd)
    reference = method.prepare(CONTENT, wide, cfg)
    with pytest.raises(ValueError, match="the content and the result must have one size"):
        method.apply({NOISE: start, CONTENT: reference}, cfg)
    cfg, method = config("masactrl", features="recompute"), find_method("masactrl")(sd)
    reference = method.prepare(CONTENT, wide, cfg)
    with pytest.raises(ValueError, match="features = recompute: the content and the result"):
        method.apply({NOISE: start, CONTENT: reference}, cfg)


def test_a_word_is_found_among_the_tokens_of_a_prompt(sd):
    assert places(sd.tokenizer, "a cat", "cat") == (2,)
    assert places(sd.tokenizer, "a cat and a cat", "cat") == (2, 5)
    ids = list(sd.tokenizer(["a dog of oil paint"])[0])
    found = places(sd.tokenizer, "a dog of oil paint", "oil paint")
    oil = list(sd.tokenizer(["oil paint"])[0][1 : 1 + len(found)])
    assert [ids[i] for i in found] == oil
    with pytest.raises(ValueError, match="subject 'cat' is no word of the prompt 'a dog'"):
        places(sd.tokenizer, "a dog", "cat")
    with pytest.raises(ValueError, match="subject 'cat' is no word of the prompt 'a dog'"):
        painted(sd, "masactrl", config("masactrl", invert_prompt="a dog"))


def test_what_leaves_nothing_to_change_is_told(sd):
    lines = []
    method = find_method("masactrl")(sd)
    method.settle(config("masactrl", weight=0.0), (1, 3, 64, 64), {CONTENT: 1}, lines.append)
    assert lines == ["masactrl: its weight or windows leave nothing to change"]
    cfg = method.settle(config("masactrl"), (1, 3, 64, 64), {CONTENT: 1}, lines.append)
    assert cfg.features == "memory" and "kept in memory" in lines[1]


@pytest.mark.parametrize(
    "name, given, told",
    [
        ("masactrl", {"subject": 3}, "subject must be text, got 3"),
        ("masactrl", {"mask_threshold": 1.5}, "mask_threshold must be a number from 0 to 1"),
        ("masactrl", {"features": "cloud"}, "features must be auto, memory, disk or recompute"),
        ("cross-image", {"contrast": -1}, "contrast must be a number from 0 to 100, got -1"),
        ("cross-image", {"gamma": float("nan")}, "gamma must be a number from 0 to 1, got nan"),
        ("cross-image", {"skip": 0.95}, "skip must be a number from 0 to 0.9, got 0.95"),
        ("cross-image", {"appearance_guidance": "x"}, "appearance_guidance must be a finite numb"),
        ("cross-image", {"init_adain": 1}, "init_adain must be true or false, got 1"),
        ("cross-image", {"adain_window": "9:1"}, 'adain_window must be "LO:HI" with 0 <= LO'),
        ("appearance-encoder", {"encoder_at": "0"}, "encoder_at must be clean or same, got '0'"),
        ("appearance-encoder", {"both": "yes"}, "both must be true or false, got 'yes'"),
        ("appearance-encoder", {"weight": 1.2}, "weight must be a number from 0 to 1, got 1.2"),
        ("plug-and-play", {"blocks": "up_blocks.1"}, 'blocks must be names such as "up_blocks.1'),
        ("plug-and-play", {"blocks_window": "a"}, 'blocks_window must be "LO:HI" with 0 <= LO'),
        ("plug-and-play", {"feature_dtype": "int8"}, "feature_dtype must be float32 or float16"),
    ],
)
def test_what_is_no_value_is_refused_in_one_line(name, given, told):
    with pytest.raises(ValueError) as error:
        config(name, **given)
    assert str(error.value).startswith(told) and "\n" not in str(error.value)


def test_a_block_that_the_model_does_not_have_is_named_with_those_it_has(sd):
    cfg = config("plug-and-play", blocks="up_blocks.7.resnets.0")
    with pytest.raises(ValueError, match="no residual block 'up_blocks.7.resnets.0'; valid are do"):
        painted(sd, "plug-and-play", cfg)


def test_the_commands_know_the_methods(sd, tmp_path, caplog):
    """A source alone, with words, from the content and from noise."""
    sd.save_pretrained(tmp_path / "model", "float32")
    image.save_png(tmp_path / "cat.png", image.to_uint8(PICTURES[CONTENT])[0])
    model = ["--model", str(tmp_path / "model"), "--steps", "2", "--prompt", "a dog", "-q"]
    words = ["stylize", "--method", "masactrl", "--content", str(tmp_path / "cat.png"), *model]
    assert cli.main([*words, "--out", str(tmp_path / "a.png")]) == 0
    words = ["generate", "--method", "plug-and-play", "--reference", str(tmp_path / "cat.png")]
    assert cli.main([*words, *model, "--out", str(tmp_path / "b.png")]) == 0
    a, b = (image.load(tmp_path / f"{name}.png", 64) for name in "ab")
    assert rel_l2(a, b) > 1e-2
    with caplog.at_level(logging.ERROR):
        assert cli.main([*words, *model, "--blocks", "x", "--out", str(tmp_path / "c.png")]) == 2
