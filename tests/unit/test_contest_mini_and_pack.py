"""The small contest that can be drawn, and submissions as zip files."""

from __future__ import annotations

import json
import os
import re
import zipfile

import numpy as np
import pytest
from PIL import Image

from jdreambooth import drawings
from jdreambooth.captions import subject
from jdreambooth.contest.config import read_config
from jdreambooth.contest.mini import make_mini
from jdreambooth.contest.pack import pack
from jstyle.score.layout import ContestError, read_contest, result_path
from jstyle.sd import image


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A contest as large as it gets, with small pictures."""
    folder = tmp_path_factory.mktemp("contest") / "mini"
    drawn = make_mini(folder, prompts=12, size_px=16)
    return folder, drawn


def test_every_style_is_one_that_the_shipped_model_was_not_trained_on(whole):
    folder, drawn = whole
    contest = read_contest(folder)
    assert tuple(drawn) == drawings.HELD_OUT_STYLES and not set(drawn) & set(drawings.STYLES)
    assert [style.name for style in contest.styles] == [f"{i:02d}" for i in range(len(drawn))]
    assert contest.num_prompts == 12 * len(drawn)
    for style in contest.styles:
        assert len(style.references) == 3
        with Image.open(style.references[0]) as picture:
            assert picture.size == (16, 16) and picture.mode == "RGB"


def test_names_and_prompts_have_the_edge_cases_of_the_real_contest(whole):
    contest = read_contest(whole[0])
    stems = [path.stem for style in contest.styles for path in style.references]
    told = [name.replace(" ", "_") for name in whole[1]]
    assert any(stem.endswith("_") for stem in stems)
    assert any(re.match(r"[A-Z]", stem) for stem in stems)
    assert any(stem.startswith(tuple(told)) for stem in stems)
    assert all(any(" " in prompt for prompt in style.prompts) for style in contest.styles)
    assert all(prompt[0].isupper() for style in contest.styles for prompt in style.prompts)


def test_prompts_are_things_that_the_references_do_not_show(whole):
    for style in read_contest(whole[0]).styles:
        shown = " ".join(subject(path).lower() for path in style.references)
        for prompt in style.prompts:
            assert prompt.lower() in drawings.OBJECTS
            assert not re.search(rf"\b{re.escape(prompt.lower())}\b", shown)


def test_the_references_of_one_style_are_all_animals_and_its_prompts_are_not(whole):
    kinds = []
    for style in read_contest(whole[0]).styles:
        shown = [subject(path).lower() for path in style.references]
        kinds.append(all(name.split()[-1] in drawings.FAMILIES["animals"] for name in shown))
        common = [prompt.lower() in drawings.COMMON_OBJECTS for prompt in style.prompts]
        assert sum(common) == len(common) - 1  # and one with a space
    assert kinds[1] and not all(kinds)


def test_its_configuration_can_be_read(whole):
    options = read_config(whole[0] / "contest.yaml").style("03")
    assert options.train.instance_prompt == "a {stem} in style03 style"
    assert options.generate.text("Ice cream") == "a Ice cream in style03 style"
    assert options.pick is not None and options.refine is None


def test_the_same_seed_draws_the_same_and_another_one_does_not(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_mini(tmp_path / name, 1, 2, 4, 16, seed)
    read = {name: sorted((tmp_path / name / "00").rglob("*.*")) for name in "abc"}
    first, same, other = ([path.read_bytes() for path in read[name]] for name in "abc")
    assert first == same and first != other


@pytest.mark.parametrize(
    "numbers, told",
    [
        ({"styles": 99}, "styles must be an integer from 1 to 6, got 99"),
        ({"references": 0}, "references must be an integer from 1 to "),
        ({"prompts": 1000}, "prompts must be an integer from 1 to "),
        ({"size_px": 8}, "size_px must be an integer from 16 to 1024"),
        ({"seed": -1}, "seed must be an integer from 0"),
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_written(tmp_path, numbers, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        make_mini(tmp_path / "mini", **numbers)
    assert not (tmp_path / "mini").exists()


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty"):
        make_mini(tmp_path)


@pytest.fixture
def submission(tmp_path):
    """(contest, RESULT) of two styles with two prompts."""
    for name, prompts in (("00", ["Ice cream", "Über"]), ("01", ["b", "A"])):
        (tmp_path / "root" / name / "images").mkdir(parents=True)
        image.save_png(tmp_path / "root" / name / "images/a.png", np.zeros((8, 8, 3), np.uint8))
        (tmp_path / "root" / name / "prompt.json").write_text(json.dumps(dict(enumerate(prompts))))
    contest = read_contest(tmp_path / "root")
    for i, style in enumerate(contest.styles):
        for j, prompt in enumerate(style.prompts):
            path = result_path(tmp_path / "result", style.name, prompt)
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save_png(path, np.full((8, 8, 3), 10 * i + j, np.uint8))
    return contest, tmp_path / "result"


def test_the_bytes_of_a_zip_depend_on_the_pictures_alone(submission, tmp_path):
    contest, result = submission
    names = pack(result, contest, tmp_path / "a.zip")
    for path in result.rglob("*.png"):
        os.utime(path, (1, 1))
        path.chmod(0o600)
    pack(result, contest, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert names == ["00/Ice cream.png", "00/Über.png", "01/A.png", "01/b.png"]
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == names and archive.testzip() is None
        assert archive.read("00/Über.png") == (result / "00/Über.png").read_bytes()
        archive.extractall(tmp_path / "again")
    pack(tmp_path / "again", contest, tmp_path / "c.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "c.zip").read_bytes()


def test_a_zip_can_hold_the_styles_in_a_folder(submission, tmp_path):
    names = pack(submission[1], submission[0], tmp_path / "a.zip", "result")
    assert names[0] == "result/00/Ice cream.png"
    for inside in ("../up", "/top", "a\\b"):
        with pytest.raises(ValueError, match="inside must be a folder's name"):
            pack(submission[1], submission[0], tmp_path / "b.zip", inside)
    assert not (tmp_path / "b.zip").exists()


def test_what_check_refuses_is_not_packed(submission, tmp_path):
    contest, result = submission
    (result / "00/Über.png").unlink()
    Image.new("RGBA", (8, 8)).save(result / "01/A.png")
    with pytest.raises(ContestError) as error:
        pack(result, contest, tmp_path / "a.zip")
    assert "00/Über.png" in str(error.value) and "01/A.png" in str(error.value)
    assert not (tmp_path / "a.zip").exists()


def test_a_zip_is_not_written_into_the_submission_or_under_another_name(submission, tmp_path):
    contest, result = submission
    with pytest.raises(ValueError, match="inside the submission"):
        pack(result, contest, result / "a.zip")
    with pytest.raises(ValueError, match="must end in .zip"):
        pack(result, contest, tmp_path / "a.tar")
