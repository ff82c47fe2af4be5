"""Grids: what the words of an axis mean, which cells there are, and what shows them."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from jstyle.commands.inputs import LoRA, Model
from jstyle.grids.axes import KINDS, parse_axes, parse_axis
from jstyle.grids.cells import Settings, make_cells
from jstyle.grids.loras import LoRAs, saved_counts
from jstyle.grids.page import as_html
from jstyle.grids.request import Request, require_apart
from jstyle.grids.run import open_run
from jstyle.grids.sheet import Labels, Sheet, scaled
from jstyle.sd import hub, image
from jstyle.sd.samplers.options import Sampling
from jstyle.sd.schedule import Schedule, ScheduleConfig
from tests import tiny

MODEL = Model("tiny", hub.Source("somewhere"), "f" * 64)
SETTINGS = Settings("a star", "", 0, 64, 96, Sampling(steps=4))
FILE = LoRA(object(), "a" * 64, 1.0)


@pytest.mark.parametrize(
    ("words", "values", "labels"),
    [
        (["steps=8, 15,25"], (8, 15, 25), ("steps 8", "steps 15", "steps 25")),
        (["steps=10..50:20"], (10, 30, 50), ("steps 10", "steps 30", "steps 50")),
        (["seed=3..1:-1,9"], (3, 2, 1, 9), ("seed 3", "seed 2", "seed 1", "seed 9")),
        (["guidance=1,5.50"], (1.0, 5.5), ("guidance 1", "guidance 5.50")),
        (["rescale=0..0.3:0.1"], (0.0, 0.1, 0.2, 0.3), None),
        (["weight=-1..1"], (-1.0, 0.0, 1.0), None),
        (["sampler=euler,own"], ("euler", None), ("euler", "own")),
        (["sigmas=own,karras"], (None, "karras"), ("sigmas own", "sigmas karras")),
        (["prompt=a cat, black|a dog"], ("a cat, black", "a dog"), ("a cat, black", "a dog")),
        (["prompt=a cat", "prompt=a=b"], ("a cat", "a=b"), None),
        ([r"prompt=this \| that|a..b"], ("this | that", "a..b"), None),
        (["negative=|dark, grey"], ("", "dark, grey"), ("negative ", "negative dark, grey")),
        (["lora=none|a,b.safetensors:0.5"], ("none", "a,b.safetensors:0.5"), None),
        (["size=64,96x64"], ((64, 64), (96, 64)), ("size 64", "size 96x64")),
        (["at=0,all"], (0, "all"), None),
    ],
)
def test_the_words_of_an_axis(words, values, labels):
    axis = parse_axis("x", words)
    assert axis.values == pytest.approx(values) if axis.name == "rescale" else values
    assert [type(v) for v in axis.values] == [type(v) for v in values]
    assert labels is None or axis.labels == labels


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["stepz=1"], "--x must be NAME=VALUES with a name of sampler, .*, got stepz=1"),
        (["steps"], "--x must be NAME=VALUES"),
        (["steps= "], "--x steps= : no values after the ="),
        (["steps=1,,2"], "--x steps=1,,2: one of the values is empty"),
        (["prompt=a||b"], "one of the values is empty"),
        (["steps=4,2..5"], "'4' is there twice"),
        (["guidance=5,5.0"], "'5.0' is there twice"),
        (["steps=8", "seed=1"], "--x is steps already, got seed as well"),
        (["steps=0"], "steps must be an integer from 1 to 1000, got 0"),
        (["steps=4.5"], "steps must be an integer, got '4.5'"),
        (["steps=1..4:0.5"], "the range 1..4:0.5 must be of whole numbers"),
        (["seed=5..1"], "the range 5..1 holds nothing"),
        (["seed=1..5:0"], "the range 1..5:0 holds nothing"),
        (["seed=0..1000000000000"], "holds more than 100 values"),
        (["seed=0..60,100..160"], "122 values, at most 100 are possible"),
        (["seed=-1"], "seed must be an integer from 0 to .*, got -1"),
        (["guidance=nan"], "guidance must be a finite number, got 'nan'"),
        (["eta=1.5"], r"eta must be in \[0, 1\], got 1.5"),
        (["rescale=2"], r"rescale must be in \[0, 1\], got 2"),
        (["sampler=dmp"], "sampler must be one of ddim, .*, got 'dmp'"),
        (["sigmas=linear"], "sigmas must be karras or exponential, got 'linear'"),
        (["size=8by8"], "size must be PIXELS or WIDTHxHEIGHT, got '8by8'"),
        (["weight=inf"], "weight must be a finite number"),
        (["prompt=a\udcff"], "is not text in UTF-8"),
    ],
)
def test_values_that_cannot_be_are_refused_in_one_line(words, told):
    with pytest.raises(ValueError, match=told) as refused:
        parse_axis("x", words)
    assert "\n" not in str(refused.value)


def test_an_axis_is_there_once_and_its_option_is_not_given_as_well():
    with pytest.raises(ValueError, match="--x and --z are both steps"):
        parse_axes({"x": ["steps=1"], "y": [], "z": ["steps=2"]})
    with pytest.raises(ValueError, match="give at least --x NAME=VALUES"):
        parse_axes({"x": [], "y": [], "z": []})
    for words, given, told in (
        (["steps=1"], {"sampling": Sampling(steps=3)}, "--steps and --x steps exclude"),
        (["seed=1"], {"seed": 3}, "--seed and --x seed exclude"),
        (["negative=a"], {"negative": "b"}, "--negative and --x negative exclude"),
        (["prompt=a"], {"prompts": ["b"]}, "--prompt and --x prompt exclude"),
        (["size=64"], {"width": 64}, "--height and --width and --x size exclude"),
        (["seed=1"], {"prompts": ["a", "b"]}, "several prompts are an axis"),
        (["seed=1"], {"prompts": []}, "give --prompt, or an axis prompt"),
        (["at=1"], {}, "the axis at is about a run; give --run"),
        (["weight=1"], {"loras": ["a", "b"]}, "weight is about an axis lora, a --run or the one"),
        (["seed=1"], {"run": "r", "model": "sd21"}, "--run brings its own model"),
        (["seed=1"], {"seed": -1}, "--seed and --x"),
        (["steps=1"], {"seed": -1}, "seed must be an integer from 0 to"),
        (["seed=1"], {"cell_px": 8}, "cell_px must be an integer from 16 to 4096, got 8"),
    ):
        request = Request({"x": words}, **{"prompts": ["a"], **given})
        with pytest.raises(ValueError, match=told):
            require_apart(request, parse_axes(request.axes))


@pytest.fixture
def schedule():
    return Schedule(ScheduleConfig.from_json(tiny.config("sd2", "scheduler")))


def cells_of(schedule, settings=SETTINGS, model=MODEL, loras=LoRAs(), **axes):  # noqa: B008
    return make_cells(parse_axes(axes), settings, model, loras, schedule)


def test_what_a_sampler_does_not_admit_is_an_empty_cell_with_its_reason(schedule):
    axes = {"x": ["sampler=ddim,euler"], "y": ["sigmas=own,karras"], "z": ["eta=0,0.5"]}
    cells = cells_of(schedule, **axes)
    assert [cell.place for cell in cells[:3]] == [(0, 0, 0), (1, 0, 0), (0, 1, 0)]
    why = {tuple(cell.values.values()): cell.why for cell in cells}
    assert not why["ddim", None, 0.0] and not why["ddim", None, 0.5]
    assert not why["euler", None, 0.0] and not why["euler", "karras", 0.0]
    assert "ddim admits no sigmas karras" in why["ddim", "karras", 0.0]
    assert "euler has no eta" in why["euler", None, 0.5]
    assert [cell.key == "" for cell in cells] == [bool(cell.why) for cell in cells]
    with pytest.raises(ValueError, match="ddim admits no sigmas karras"):
        cells_of(schedule, x=["sampler=ddim,ddpm"], y=["sigmas=karras"])


def test_a_key_follows_all_that_the_picture_depends_on_and_nothing_else(schedule):
    elsewhere = replace(MODEL, source="else", place=hub.Source("else"))
    (plain,) = cells_of(schedule, x=["steps=4"])
    same = [
        *cells_of(schedule, x=["size=96x64"]),
        *cells_of(schedule, y=["seed=0"], z=["prompt=a star"]),
        *cells_of(schedule, model=elsewhere, x=["eta=0"]),
        *cells_of(schedule, x=["guidance=7.5"]),
    ]
    assert {cell.key for cell in same} == {plain.key}
    for_axis = {
        "sampler": "heun",
        "sigmas": "karras",
        "steps": "5",
        "guidance": "2",
        "eta": "0.5",
        "rescale": "0.5",
        "clip_skip": "2",
        "seed": "1",
        "prompt": "a cat",
        "negative": "dark",
        "size": "64x96",
    }
    assert {*for_axis, "lora", "weight", "at"} == {*KINDS}
    other = [*(cells_of(schedule, x=[f"{k}={v}"])[0] for k, v in for_axis.items())]
    other += cells_of(schedule, model=replace(MODEL, fingerprint="e"), x=["steps=4"])
    other += cells_of(
        schedule, model=replace(MODEL, place=hub.Source("somewhere", "fp16")), x=["steps=4"]
    )
    other += cells_of(
        schedule, replace(SETTINGS, sampling=Sampling(4, rng="torch-cpu")), x=["eta=0"]
    )
    keys = {plain.key, *(cell.key for cell in other)}
    assert len(keys) == len(other) + 1 and all(len(key) == 64 for key in keys)


def test_loras_and_weights_are_part_of_the_key_and_none_is_none_at_any_weight(schedule):
    loras = LoRAs((FILE,), None, {("lora", "b"): replace(FILE, sha256="b"), ("lora", "none"): None})
    cells = cells_of(schedule, loras=loras, x=["lora=none|b"], y=["weight=0.5,1"])
    none, b, none_too, b_full = cells
    assert none.key == none_too.key and len({none.key, b.key, b_full.key}) == 3
    assert [(one.sha256[0], one.weight) for one in b.loras] == [("a", 1.0), ("b", 0.5)]
    (moved,) = cells_of(schedule, loras=LoRAs((), FILE), x=["weight=0.5"])
    assert moved.loras == (replace(FILE, weight=0.5),)


def test_a_run_is_known_by_its_folder(tmp_path):
    (tmp_path / "step-000010").mkdir()
    (tmp_path / "step-000002").mkdir()
    config = {"model": "tiny", "variant": None, "size_px": 64, "train": "lora", "steps": 10}
    (tmp_path / "config.json").write_text(json.dumps(config))
    run = open_run(tmp_path)
    assert [*run.saved] == [2, 10] and (run.model, run.size_px) == ("tiny", 64)
    axis = saved_counts(parse_axis("x", ["at=all"]), run)
    assert axis.values == (2, 10) and axis.labels == ("at 2", "at 10")
    untrained = saved_counts(parse_axis("x", ["at=0,10"]), run)
    assert untrained.labels == ("at untrained", "at 10")
    with pytest.raises(ValueError, match="nothing is saved at step 3; saved: 2, 10"):
        saved_counts(parse_axis("x", ["at=3"]), run)
    with pytest.raises(ValueError, match="all stands alone"):
        saved_counts(parse_axis("x", ["at=0,all"]), run)
    for wrong, told in (
        ("[]", "config.json"),
        ('{"model": 3}', "not the configuration of a run"),
        (json.dumps({**config, "train": "full"}), "trained 'full'; a grid is made of LoRAs only"),
    ):
        (tmp_path / "config.json").write_text(wrong)
        with pytest.raises(ValueError, match=told):
            open_run(tmp_path)
    with pytest.raises(ValueError, match="is not a run"):
        open_run(tmp_path / "step-000002")


def flat(number, width=48, height=40):
    return np.full((height, width, 3), (number, 0, 200), np.uint8)


def places(pixels, number):
    """(left, top, width, height) of what has the colour of flat(number)."""
    rows, columns = np.nonzero((pixels == (number, 0, 200)).all(-1))
    left, top = columns.min(), rows.min()
    return left, top, columns.max() - left + 1, rows.max() - top + 1


def test_a_sheet_shows_every_picture_whole_where_its_labels_say():
    labels = Labels("all", ["dpm++2m-sde", "b"], ["r", "s"], ["t", "u"])
    sheet = Sheet(labels, (48, 40))
    shown = {
        (i, j, k): flat(100 + i + 10 * j + 40 * k) for i in (0, 1) for j in (0, 1) for k in (0, 1)
    }
    shown[1, 1, 1] = "no such thing"
    pixels = sheet.draw(lambda *place: shown[place])
    assert pixels.shape == (sheet.height, sheet.width, 3)
    at = {
        place: places(pixels, cell[0, 0, 0]) for place, cell in shown.items() if place != (1, 1, 1)
    }
    assert {spot[2:] for spot in at.values()} == {(48, 40)}
    assert at[0, 0, 0][0] == at[0, 1, 0][0] < at[1, 0, 0][0]
    assert at[0, 0, 0][1] == at[1, 0, 0][1] < at[0, 1, 0][1]
    assert at[0, 0, 1][:2] != at[0, 0, 0][:2]
    assert (pixels == 0xEE).all(-1).sum() > 48 * 40 / 2  # the empty cell, with its reason in grey
    other = {**shown, (1, 1, 1): "another reason"}
    assert not np.array_equal(pixels, sheet.draw(lambda *place: other[place]))
    # a name that is wider than its pictures is not cut: another ending, another sheet
    named = Sheet(replace(labels, columns=["dpm++2m-sdX", "b"]), (48, 40)).draw(lambda *p: shown[p])
    assert not np.array_equal(pixels, named)


def test_tables_stand_beside_each_other_without_gaps_and_no_sheet_is_too_large():
    labels = Labels("", ["a"] * 4, ["r"] * 3, ["t"] * 3)
    assert Sheet(labels, (128, 128)).across in (1, 3)
    with pytest.raises(ValueError, match="at most 120 million are possible; give fewer values"):
        Sheet(Labels("", ["a"] * 100, ["r"] * 100, [""]), (512, 512))
    assert scaled(flat(3), 24).shape == (20, 24, 3) and scaled(flat(3), 96).shape == (80, 96, 3)
    assert scaled(flat(3), None).shape == (40, 48, 3)


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_the_page_holds_its_pictures_and_no_prompt_becomes_markup(schedule, tmp_path):
    hostile = (
        "\"><script>alert(1)</script><img src=x onerror=alert(2)> $title {0} %s ' 你好 </title>"
    )
    folder = tmp_path / 'a "b" #c.cells'
    folder.mkdir()
    axes = parse_axes(
        {"x": [f"prompt={hostile}|plain"], "y": ["sampler=ddim,euler"], "z": ["eta=0,1"]}
    )
    cells = make_cells(axes, SETTINGS, MODEL, LoRAs(), schedule)
    for cell in cells:
        if not cell.why:
            image.save_png(folder / f"{cell.key}.png", flat(9, 64, 64))
    labels = [axis.labels for axis in axes]
    at = {cell.place: cell for cell in cells}
    text = as_html(hostile, {"prompt": hostile}, labels, at, folder)
    found = Tags(text)
    names = [tag for tag, _ in found.tags]
    assert "script" not in names and names.count("img") == names.count("a") == 6
    assert not any(name.startswith("on") for _, attrs in found.tags for name in attrs)
    assert found.text.count(hostile) == 5  # title, heading, what is the same, two tables' heads
    assert (
        text.count('class="empty"') + text.count("class=empty") == 2 and "euler has no eta" in text
    )
    for tag, attrs in found.tags:
        if tag == "img":
            assert attrs["src"].startswith("data:image/webp;base64,") and attrs["alt"]
        if tag == "a":
            assert attrs["href"].startswith("./a%20%22b%22%20%23c.cells/")
    assert "default-src 'none'" in text and "http" not in text.replace("http-equiv", "")
