"""The classifiers of the score and what is made of their features, without a reference."""

from __future__ import annotations

import numpy as np
import pytest

from jstyle.score.layout import ContestError
from jstyle.score.metrics import artfid, clip_iqa, fid, lpips
from jstyle.score.networks.backbones import alexnet, squeezenet
from jstyle.score.networks.clip_resnet import load_clip_resnet
from jstyle.score.networks.frozen import avg_pool, max_pool, num_windows
from jstyle.score.networks.inception import Inception
from jstyle.sd.startup import jt
from jstyle.sd.weights import WeightsError

WINDOWS = [  # size, kernel, stride, padding, ceil_mode, how many
    (7, 3, 2, 0, False, 3),
    (8, 3, 2, 0, False, 3),
    (8, 3, 2, 0, True, 4),  # the last one sticks out
    (5, 2, 2, 1, False, 3),
    (6, 2, 2, 1, True, 4),
    (5, 2, 3, 1, True, 2),  # a third would begin in the padding
    (2, 3, 2, 0, False, 0),
    (3, 3, 2, 0, False, 1),
]


@pytest.mark.parametrize("size, kernel, stride, padding, ceil_mode, count", WINDOWS)
def test_windows_are_counted_as_pytorch_does(size, kernel, stride, padding, ceil_mode, count):
    assert num_windows(size, kernel, stride, padding, ceil_mode) == count


def test_pools_of_a_picture_worked_by_hand():
    x = jt.array(np.arange(1, 13, dtype=np.float32).reshape(1, 1, 3, 4) - 20)
    with jt.no_grad():
        assert max_pool(x, 3, 2, ceil_mode=True).numpy().tolist() == [[[[-9, -8]]]]
        corner = max_pool(x, 3, 1, padding=1).numpy()[0, 0]
        inside = avg_pool(x, 3, 1, padding=1, count_padding=False).numpy()[0, 0]
        counted = avg_pool(x, 3, 1, padding=1).numpy()[0, 0]
    assert corner[0, 0] == 6 - 20  # the padding is not the largest value
    assert inside[0, 0] == pytest.approx((1 + 2 + 5 + 6) / 4 - 20)
    assert counted[0, 0] == pytest.approx((1 + 2 + 5 + 6 - 80) / 9)
    assert inside[1, 1] == pytest.approx(6 - 20) and counted[1, 1] == pytest.approx(6 - 20)


def test_a_picture_smaller_than_the_window_is_refused():
    with pytest.raises(ValueError, match="2 x 5 values are too few for a window of 3"):
        max_pool(jt.zeros((1, 1, 2, 5)), 3, 2)
    with pytest.raises(ValueError, match="Inception needs 75 x 75 pixels"):
        Inception("fid")(jt.zeros((1, 3, 74, 90)))


def test_the_file_of_another_network_is_refused_by_name():
    tensors = {name: np.zeros(v.shape) for name, v in squeezenet().state_dict().items()}
    with pytest.raises(WeightsError, match=r"squeeze\.pth .*missing: features\.0\.weight|wrong"):
        alexnet().load(tensors, "squeeze.pth")
    with pytest.raises(WeightsError, match=r"x\.pth does not fit the model.*Conv2d_1a_3x3"):
        Inception("fid").load(tensors, "x.pth")
    with pytest.raises(WeightsError, match=r"x\.pth: is not OpenAI's CLIP with a ResNet"):
        load_clip_resnet(tensors, "x.pth")


def test_weights_of_channels_are_checked():
    channels = (2, 3)
    good = {
        "lin0.model.1.weight": np.ones((1, 2, 1, 1)),
        "lin1.model.1.weight": np.ones((1, 3, 1, 1)),
    }
    assert [len(w) for w in lpips.read_linear(good, channels, "x")] == [2, 3]
    for name, bad, message in (
        ("lin1.model.1.weight", np.ones((1, 2, 1, 1)), r"\[1, 2, 1, 1\] instead of \[1, 3, 1, 1\]"),
        ("lin0.model.1.weight", -np.ones((1, 2, 1, 1)), "negative or not finite"),
        ("lin2.model.1.weight", np.ones((1, 2, 1, 1)), r"differs in \['lin2"),
    ):
        with pytest.raises(WeightsError, match=f"x: .*{message}"):
            lpips.read_linear({**good, name: bad}, channels, "x")


def test_lpips_of_a_style_is_the_mean_over_all_pairs():
    generated = np.array([[0, 0], [2, 0]], np.float32)
    references = np.array([[0, 1], [2, 1], [0, 0]], np.float32)
    expected = [[1, 5, 0], [5, 1, 4]]
    assert lpips.distances(generated, references).tolist() == expected
    assert lpips.style_score(generated, references) == pytest.approx(16 / 6)


def test_frechet_distance_of_an_example_worked_by_hand():
    a = np.array([[0, 0], [2, 0], [0, 3], [2, 3]])  # variances 4/3 and 3
    b = a * 2 + [1, -1]  # deviations doubled: (2 s - s)^2 = s^2 each; means 2 and 0.5 away
    assert fid.frechet_distance(a, b) == pytest.approx(4 + 0.25 + 4 / 3 + 3)
    assert fid.frechet_distance(a, a[::-1]) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="two pictures on each side, got 4 and 1"):
        fid.frechet_distance(a, b[:1])


def test_quality_is_a_softmax_over_a_hundred_cosines():
    anchors = np.array([[1, 0], [0, 1]])
    features = np.array([[1, 1], [3.02, 2.98], [1, 0]])
    found = clip_iqa.quality(features, anchors)
    cosines = features[1] / np.linalg.norm(features[1])
    assert found[0] == pytest.approx(0.5)
    assert found[1] == pytest.approx(1 / (1 + np.exp(-100 * (cosines[0] - cosines[1]))))
    assert found[2] == pytest.approx(1)


def test_stylisations_are_found_by_name_and_the_missing_ones_listed(tmp_path):
    for name in ("c/cat.png", "c/dog.jpg", "s/ink.png", "out/cat_stylized_ink.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ContestError, match=r"out/dog_stylized_ink\.png: missing"):
        artfid.find_pairs(tmp_path / "out", tmp_path / "c", tmp_path / "s")
    (pair,) = artfid.find_pairs(tmp_path / "out", tmp_path / "c/cat.png", tmp_path / "s/ink.png")
    assert pair == (tmp_path / "out/cat_stylized_ink.png", *pair[1:])
    assert pair.content.name == "cat.png" and pair.style.name == "ink.png"


def test_structural_distance_is_zero_for_the_same_places_only():
    places = jt.array(np.random.default_rng(0).random((40, 8), dtype=np.float32) * 9)
    assert artfid.structural_distance(places, places) == 0
    assert artfid.structural_distance(places, places * 1.1) > 0
