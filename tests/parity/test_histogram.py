"""HIST against OpenCV's own functions: as the organiser's checker drives them, and as meant."""

from __future__ import annotations

import os

import numpy as np
import pytest

from jstyle.score.histogram import Histogram, correlation, hist_scores, style_score, to_hsv
from jstyle.score.layout import Contest, Style, read_contest, result_path
from jstyle.score.pictures import read_rgb
from jstyle.sd import image
from tests.pictures import picture

SAMPLES = os.environ.get("JSTYLE_CONTEST")  # a contest's own root, where there is one
KINDS = ("any", "pale", "limits")


def random_pixels(kind: str, size=(40, 56)) -> np.ndarray:
    """uint8 (H, W, 3): of any colour, nearly grey, or of levels around the limits of the classes"""
    rng = np.random.default_rng(KINDS.index(kind))
    if kind == "pale":
        return np.uint8(rng.integers(9, 247, (*size, 1)) + rng.integers(-9, 10, (*size, 3)))
    levels = np.arange(256) if kind == "any" else (0, 1, 15, 16, 51, 52, 127, 178, 179, 254, 255)
    return rng.choice(np.uint8(levels), (*size, 3))


def quirky(bgr: np.ndarray) -> list[np.ndarray]:
    """The two histograms by OpenCV, every step in the 8 bits of its images."""
    import cv2

    level = bgr // np.uint8(16)
    blue, green, red = (level[..., c].astype(np.int64) for c in range(3))
    index = ((blue * 256 + green * 16 + red) % 256).astype(np.uint8)
    hsv = cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV).astype(np.int64)
    classes = hsv_classes(hsv[..., 0] * 2 % 256, hsv[..., 1], hsv[..., 2]).astype(np.uint8)
    return [
        cv2.calcHist([index], [0], None, [4096], [0, 4096]),
        cv2.calcHist([classes], [0], None, [72], [0, 71]),
    ]


def proper(bgr: np.ndarray) -> list[np.ndarray]:
    """The same two as they were meant: a joint histogram of the channels, and all 72 classes."""
    import cv2

    hsv = cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV).astype(np.int64)
    classes = hsv_classes(hsv[..., 0] * 2, hsv[..., 1], hsv[..., 2]).astype(np.uint8)
    joint = cv2.calcHist([bgr], [0, 1, 2], None, [16, 16, 16], [0, 256] * 3)
    return [joint.reshape(-1, 1), cv2.calcHist([classes], [0], None, [72], [0, 72])]


def hsv_classes(degrees, saturation, value):
    """Loops over the limits, as a text would put it."""
    hue = np.zeros_like(degrees)
    limits = (20, 40, 75, 155, 190, 270, 295, 315)
    for number, (low, high) in enumerate(zip(limits, limits[1:], strict=False), start=1):
        hue[(degrees > low) & (degrees <= high)] = number
    thirds = [(x > 51).astype(np.int64) + (x > 178) for x in (saturation, value)]
    return 9 * hue + 3 * thirds[0] + thirds[1]


def reference_scores(contest, result, histograms):
    import cv2

    scores = {}
    for style in contest.styles:
        references = [histograms(cv2.imread(str(path))) for path in style.references]
        paths = [result_path(result, style.name, prompt) for prompt in style.prompts]
        images = [histograms(cv2.imread(str(path))) for path in paths]
        parts = []
        for kind in (0, 1):
            mean = sum(r[kind] for r in references) / np.float32(len(references))
            found = [cv2.compareHist(mean, i[kind], cv2.HISTCMP_CORREL) for i in images]
            parts.append(np.mean(found))
        scores[style.name] = np.mean(parts)
    return scores


@pytest.mark.parametrize(("corrected", "reference"), [(False, quirky), (True, proper)])
@pytest.mark.parametrize("kind", KINDS)
def test_counts_are_opencvs(kind, corrected, reference):
    pixels = random_pixels(kind)
    counts = Histogram(corrected).features(pixels[None])[0]
    wanted = np.concatenate(reference(pixels[..., ::-1].copy()))[:, 0]
    if corrected:  # the joint histogram counts blue first, too
        assert counts[:4096].sum() == pixels[..., 0].size == counts[4096:].sum()
    np.testing.assert_array_equal(counts, wanted)


def test_hue_saturation_and_value_are_opencvs_for_a_fifth_of_all_colours():
    import cv2

    rng = np.random.default_rng(0)
    red, green, blue = (rng.permutation(256)[:150].astype(np.uint8) for _ in range(3))
    cube = np.stack(np.meshgrid(red, green, blue, indexing="ij"), -1).reshape(1500, -1, 3)
    wanted = cv2.cvtColor(cube, cv2.COLOR_RGB2HSV)
    np.testing.assert_array_equal(np.stack(to_hsv(cube), -1), wanted)


def test_correlation_is_opencvs():
    import cv2

    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 500, (2, 72)).astype(np.float32)
    for x, y in ((a, b), (a, a), (a, 3 * a), (a, a.max() - a), (a, np.ones_like(a))):
        wanted = cv2.compareHist(x, y, cv2.HISTCMP_CORREL)
        assert abs(correlation(x, y) - wanted) < 1e-9


@pytest.fixture
def contest(tmp_path):
    """Two styles, references larger than the results, smooth and random pictures."""
    styles = []
    for name, prompts in (("00", ("Ice cream", "wallet_")), ("01", ("Cat", "Dog", "Sea"))):
        folder = tmp_path / "root" / name / "images"
        folder.mkdir(parents=True)
        for i in range(3):
            pixels = image.to_uint8(picture(i + 10 * int(name), 96, 96))[0]
            image.save_png(folder / f"{i}.png", pixels)
        styles.append(Style(name, tuple(sorted(folder.iterdir())), prompts))
        (tmp_path / "result" / name).mkdir(parents=True)
        for i, prompt in enumerate(prompts):
            mixed = image.to_uint8(picture(50 + i, 48, 48))[0]
            mixed[::2] = random_pixels(KINDS[i], (24, 48))
            image.save_png(result_path(tmp_path / "result", name, prompt), mixed)
    return Contest(tmp_path / "root", tuple(styles))


@pytest.mark.parametrize(("corrected", "reference"), [(False, quirky), (True, proper)])
def test_scores_are_opencvs(contest, tmp_path, corrected, reference):
    scores = hist_scores(contest, tmp_path / "result", corrected)
    wanted = reference_scores(contest, tmp_path / "result", reference)
    assert scores.keys() == wanted.keys()
    for name, score in scores.items():
        assert abs(score - wanted[name]) < 1e-6


@pytest.mark.parametrize(("corrected", "reference"), [(False, quirky), (True, proper)])
def test_scores_of_a_contests_own_pictures_are_opencvs(contest, corrected, reference):
    """The references of one style taken for the results of the others; of a real contest, if the
    variable JSTYLE_CONTEST names its root."""
    import cv2

    styles = (read_contest(SAMPLES) if SAMPLES else contest).styles
    metric, (first, *others) = Histogram(corrected), styles
    assert others
    references = [metric.of(read_rgb(path)) for path in first.references]
    theirs = [reference(cv2.imread(str(path))) for path in first.references]
    means = [sum(counts) / np.float32(len(theirs)) for counts in zip(*theirs, strict=True)]
    for other in others:
        ours = style_score([metric.of(read_rgb(path)) for path in other.references], references)
        found = [
            cv2.compareHist(mean, counts, cv2.HISTCMP_CORREL)
            for path in other.references
            for mean, counts in zip(means, reference(cv2.imread(str(path))), strict=True)
        ]
        assert abs(ours - np.mean(found)) < 1e-6
