"""Jittor's CUDA backend, emulated, against the CPU: values, gradients, trajectories, traffic."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jdreambooth.trainables import TRAINABLES
from jstyle.config import FEATURES
from jstyle.sd.samplers import SAMPLERS
from tests.tolerances import assert_close, rel_l2


@pytest.mark.parametrize("part", ["text", "unet", "gradient", "encode", "decode", "half"])
def test_networks(results, part):
    for cuda, cpu in results("networks").pairs(part):
        assert_close(f"cuda.{part}", cuda, cpu)


@pytest.mark.parametrize("features", [name for name in FEATURES if name != "auto"])
def test_a_stylisation_with_each_place_for_the_features(results, features):
    for cuda, cpu in results("style").pairs(features):
        assert_close("cuda.style", cuda, cpu)


@pytest.mark.parametrize("words", ["two", "half features"])
def test_two_pictures_at_once_and_features_in_half_precision(results, words):
    for cuda, cpu in results("style").pairs(*words.split()):
        assert_close("cuda.style", cuda, cpu)


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("part", TRAINABLES)
def test_a_training_with_prior_preservation(results, part, precision):
    found = results("training")
    for key in ("loss", "grad_norm", "tensors"):
        for cuda, cpu in found.pairs(part, precision, key):
            assert_close(f"cuda.{precision}.{key}", cuda, cpu)


@pytest.mark.parametrize("name", ["text", "checkpointing", "others"])
def test_the_options_of_a_training(results, name):
    found = results("options")
    for key in ("loss", "grad_norm", "tensors"):
        for cuda, cpu in found.pairs(name, key):
            assert_close(f"cuda.float32.{key}", cuda, cpu)


def test_an_overflow_skips_the_step_and_the_next_one_counts(results):
    found = results("overflow").cuda
    np.testing.assert_array_equal(found["after"], found["before"])
    assert found["skipped lr"] == 0 and found["scale"] == 2.0**59 and found["lr"] > 0


@pytest.mark.parametrize("name", ["alexnet", "squeezenet", "vgg", "inception"])
def test_the_networks_of_the_score(results, name):
    for cuda, cpu in results("score").pairs(name):
        assert_close("cuda.score", cuda, cpu)


@pytest.mark.parametrize("name", ["vit", "dinov2", "clip", "resnet"])
def test_the_transformers_of_the_score(results, name):
    for cuda, cpu in results("judges").pairs(name):
        assert_close("cuda.judges", cuda, cpu)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_picture_by_each_sampler(results, name):
    for cuda, cpu in results("samplers").pairs("sampler", name):
        assert_close("cuda.sampler", cuda, cpu)


@pytest.mark.parametrize("name", SAMPLERS)
def test_each_step_of_a_sampler_copies_its_numbers_and_no_picture(results, name):
    """Twice a timestep per evaluation at most, and the noise that a step adds."""
    told = json.loads((results("samplers").folder / "samplers.json").read_text())
    few, more = told[f"{name} 2"], told[f"{name} 4"]
    evaluations = more["evaluations"] - few["evaluations"]
    assert evaluations >= 2
    for way in ("to device", "to host"):
        assert more.get(way, 0) - few.get(way, 0) <= 2 * evaluations + 2, (few, more)


@pytest.mark.parametrize("name", ["time", "feed forward 2", "feed forward 3", "resnet"])
def test_no_block_in_half_precision_lacks_jittor_s_header(results, name):
    for cuda, cpu in results("header").pairs("block", *name.split()):
        assert_close("cuda.block", cuda, cpu)


def test_jittor_alone_does_lack_it(results):
    """A product of two matrices in half precision, with gradients and nothing around it; where this
    fails, Jittor has been mended."""
    error = (results("header").folder / "header.txt").read_text()
    assert "float16" in error and "no matching function for call" in error


@pytest.mark.parametrize(
    "name",
    [
        *("networks", "style", "training", "options", "overflow", "traffic", "score"),
        *("samplers", "judges", "header"),
    ],
)
def test_the_device_was_asked_for_nothing_that_it_refuses_or_lacks(results, name):
    counts = results(name).counts
    wrong = [what for what in counts if what.startswith(("ERROR", "lacks")) or "half" in what]
    assert not wrong and counts


def traffic(results) -> dict[str, dict[str, int]]:
    return json.loads((results("traffic").folder / "traffic.json").read_text())


def test_an_evaluation_copies_its_timestep_and_nothing_else(results):
    """Jittor writes an array of values on the host, between two copies; an operation that has no
    CUDA version would copy its operands in the same way."""
    for number in (1, 2):
        counts = traffic(results)[f"evaluation {number}"]
        assert (counts["to device"], counts["to host"]) == (1, 1) and counts["launch"] > 100


def test_each_step_of_a_style_copies_one_timestep_per_evaluation(results):
    few, more = (traffic(results)[f"style of {n} steps"] for n in (2, 3))
    assert [more[way] - few[way] for way in ("to device", "to host")] == [3, 3]


@pytest.mark.parametrize("part", ["lora", "full"])
@pytest.mark.parametrize("precision, limit", [("float32", 7), ("float16", 8)])
def test_a_training_step_copies_its_inputs_and_numbers_only(results, part, precision, limit):
    counts = traffic(results)[f"{part} {precision}"]
    assert counts["tensors"] > 200
    assert counts["to device"] <= 4 and counts["to host"] <= limit


def test_jittors_convolutions_in_half_precision_are_not_what_is_used(results):
    """Jittor alone sums in half precision, and keeps float32's algorithm for it; neither happens
    to the convolutions of this package."""
    found = results("traps")
    (ours, right), (alone, _) = found.pairs("ours")[0], found.pairs("alone")[0]
    assert rel_l2(ours, right) < 5e-4 < 1.5e-3 < rel_l2(alone, right)
    assert "refused" in found.cuda and "jittor" not in found.cuda
    assert found.counts["ERROR float32's algorithm asked for half precision"] == 1
    assert_close("cuda.half", *found.pairs("gradient")[0])
