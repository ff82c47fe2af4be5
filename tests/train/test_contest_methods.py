"""The contest's `refine: METHOD`, for every method that there is."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from jdreambooth.cli import main
from jstyle.methods import METHODS, find_method
from jstyle.sd import image
from tests.contests import STYLES, make_contest
from tests.tiny import make_ours

PROMPTS = STYLES["00"][1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """run(refine) -> the folder of the refined pictures of one style; nothing is trained."""
    place = tmp_path_factory.mktemp("contest")
    root, _ = make_contest(place)
    make_ours("sd2").save_pretrained(place / "model", "float32")

    def start(refine, name):
        sections = {"train": "none", "pick": "none", "generate": {"steps": 1, "guidance": 1}}
        config = {"model": str(place / "model"), "size_px": 64}
        config["defaults"] = {**sections, "refine": refine}
        (place / f"{name}.yaml").write_text(yaml.safe_dump(config))
        words = ["run", str(root), "--out", str(place / name), "--styles", "00"]
        words += ["--config", str(place / f"{name}.yaml"), "--device", "cpu", "-q"]
        assert main(["contest", *words]) == 0
        return place / name / "styles/00"

    return start


def pixels(path):
    return np.asarray(image.read_rgb(path), float)


@pytest.mark.parametrize("method", METHODS)
def test_pictures_are_refined_by_every_method_with_their_own_words(run, method):
    options = {"method": method, "steps": 2}
    plain = run(options, f"{method}-plain")
    pictures = [f"{prompt}.png" for prompt in PROMPTS]
    for name in pictures:
        before, after = (pixels(plain / stage / name) for stage in ("generate", "refine"))
        assert np.abs(before - after).mean() > 0.5
    if not hasattr(find_method(method).Config(), "prompt"):
        return
    options |= {"prompt": "{prompt} of {style}", "guidance": 3.0}
    worded = run(options, f"{method}-worded")
    for name in pictures:
        assert (pixels(plain / "refine" / name) != pixels(worded / "refine" / name)).any()
        with Image.open(worded / "refine" / name) as made:
            told = json.loads(made.text["jstyle"])["refine"]
        assert (told["method"], told["prompt"]) == (method, "{prompt} of 00")


def test_an_option_of_another_method_is_named_with_those_that_have_it(tmp_path, capsys):
    root, _ = make_contest(tmp_path)
    text = "defaults: {refine: {method: reference-only, gamma: 0.3}}"
    (tmp_path / "contest.yaml").write_text(text)
    words = ["run", str(root), "--out", str(tmp_path / "out")]
    assert main(["contest", *words, "--config", str(tmp_path / "contest.yaml")]) == 2
    told = capsys.readouterr().err
    assert "refine: gamma cannot be given here; method reference-only has no such option" in told
    assert "it is one of styleid" in told
