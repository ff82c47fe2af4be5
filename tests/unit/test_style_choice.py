"""Several style pictures for one result, generate after references, and the sheet of methods."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from jstyle import cli
from jstyle.commands.stylize import Request, stylize
from jstyle.config import StyleConfig
from jstyle.likeness import colour_distance, edge_similarity
from jstyle.sd import image
from tests.pictures import picture
from tests.tiny import make_ours
from tests.unit.test_folder_runs import Bar

SIZE = 64


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model and pictures: content/a, b and style/x, y, z."""
    place = tmp_path_factory.mktemp("place")
    make_ours("sd2").save_pretrained(place / "model", "float32")
    for role, names in (("content", "ab"), ("style", "xyz")):
        (place / role).mkdir()
        for name in names:
            pixels = image.to_uint8(picture(ord(name), SIZE, SIZE))[0]
            image.save_png(place / role / f"{name}.png", pixels)
    return place


@pytest.fixture
def run(place, tmp_path):
    def start(choice, out="out", **options):
        cfg = StyleConfig(steps=1, size_px=SIZE, features="memory", **options)
        inputs = str(place / "content"), str(place / "style"), str(tmp_path / out)
        asked = Request(*inputs, cfg, choice, model=str(place / "model"), device="cpu")
        bar, told = Bar(), []
        done = stylize(asked, bar, told.append)
        assert not done.written or bar.done == bar.total
        return done, told, tmp_path / out

    return start


def test_all_styles_of_a_result_and_one_in_turn(run):
    each, _, there = run("each")
    rotated, _, turns = run("rotate", "turns")
    assert len(each.written) == 6
    assert [path.name for path in rotated.written] == ["a_stylized_x.png", "b_stylized_y.png"]
    for path in rotated.written:
        assert path.read_bytes() == (there / path.name).read_bytes()
    pooled, _, _ = run("all", "pooled")
    assert [path.name for path in pooled.written] == ["a_stylized_all.png", "b_stylized_all.png"]
    record = json.loads(pooled.written[0].with_suffix(".json").read_text())
    assert [each["file"][-5:] for each in record["style"]] == ["x.png", "y.png", "z.png"]
    made = {path.name: np.asarray(image.read_rgb(path)) for path in each.written}
    both = np.asarray(image.read_rgb(pooled.written[0]))
    assert all((both != pixels).any() for name, pixels in made.items() if name[0] == "a")
    assert run("all", "pooled")[0].skipped == 2
    assert run("rotate")[0].skipped == 2  # the same as among all of them


def test_the_nearest_is_told_written_down_and_not_chosen_twice(run):
    done, told, out = run("nearest")
    assert [path.name for path in done.written] == [
        "a_stylized_nearest.png",
        "b_stylized_nearest.png",
    ]
    record = json.loads((out / "a_stylized_nearest.json").read_text())
    chosen = record["style"]["file"]
    assert record["style_choice"] == "nearest"
    assert any(line.endswith(f"{chosen} is the nearest style") for line in told)
    again, told, _ = run("nearest")
    assert (again.skipped, told) == (2, [])


def test_words_count_only_where_they_are_given(run):
    run("rotate")
    worded, _, out = run("rotate", prompt="a star", guidance=2.0)
    assert len(worded.written) == 2
    record = json.loads((out / "a_stylized_x.json").read_text())
    assert record["config"]["prompt"] == "a star" and "negative" not in record["config"]


def words(place, out, *more):
    common = ["--model", str(place / "model"), "--device", "cpu", "--steps", "1"]
    return [*common, "--out", str(out), *map(str, more)]


def test_generate_after_references(place, tmp_path, capsys):
    style, size = place / "style" / "x.png", ["--height", "64", "--width", "96"]
    given = words(place, tmp_path / "one.png", "--prompt", "a", *size, "--reference", style)
    assert cli.main(["generate", *given, "--method", "reference-only", "--sampler", "heun"]) == 0
    record = json.loads((tmp_path / "one.json").read_text())["config"]
    assert (record["method"], record["sampler"]) == ("reference-only", "heun")
    assert record["reference"][0]["file"] == str(style) and record["options"]["fidelity"] == 0.5
    assert "guidance" not in record["options"]
    pair = words(place, tmp_path / "pair", "--prompt", "a", "--prompt", "b", *size)
    assert cli.main(["generate", *pair, "--method", "style-aligned"]) == 0
    apart = words(place, tmp_path / "apart", "--prompt", "a", "--prompt", "b", *size)
    assert cli.main(["generate", *apart, "--sampler", "ddim"]) == 0
    same = [(tmp_path / folder / "000_a.png", tmp_path / folder / "001_b.png")
            for folder in ("pair", "apart")]  # fmt: skip
    pixels = [[np.asarray(image.read_rgb(path)) for path in both] for both in same]
    assert (pixels[0][0] == pixels[1][0]).all() and (pixels[0][1] != pixels[1][1]).any()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--reference", "X"], "--reference needs --method, one of style-aligned, reference-only"),
        (["--method", "reference-only"], "method reference-only needs a --reference"),
        (["--method", "styleid"], "method styleid paints no prompts after a reference; these do"),
        (["--weight", "0.5"], "--weight: needs --method, one of style-aligned, reference-only"),
        (["--method", "reference-only", "--adain", "q"], "--adain: method reference-only has no"),
        (["--method", "nothing"], "method must be one of styleid"),
        (
            ["--method", "style-aligned", "--reference", "X", "--sampler", "euler"],
            "method style-aligned works with sampler ddim, got euler",
        ),
    ],
)
def test_what_does_not_go_together_is_one_line(place, tmp_path, capsys, more, told):
    more = [str(place / "style" / "x.png") if word == "X" else word for word in more]
    given = words(place, tmp_path / "one.png", "--prompt", "a")
    assert cli.main(["generate", *given, *more]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("jstyle generate: error: ") and told in error
    assert not (tmp_path / "one.png").exists()


def test_a_choice_that_does_not_exist_is_refused_before_anything_starts(run):
    with pytest.raises(ValueError, match="style_choice must be one of each, all, rotate, nearest"):
        run("some")


def test_a_sheet_of_methods_with_figures(place, tmp_path, capsys):
    content, style = place / "content" / "a.png", place / "style" / "x.png"
    given = words(place, tmp_path / "sheet.png", "--content", content, "--style", style)
    given += ["--methods", "styleid,reference-only", "--csv", str(tmp_path / "figures.csv")]
    given += ["--size-px", "64", "--weight", "0.5"]
    assert cli.main(["compare", *given]) == 0
    assert "styleid has no --weight" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "figures.csv").open()))
    assert [row["method"] for row in rows] == ["styleid", "reference-only"]
    pictures = {name: tmp_path / "sheet.cells" / name / "a_stylized_x.png" for name in
                ("styleid", "reference-only")}  # fmt: skip
    for row in rows:
        made = image.load(pictures[row["method"]], 64)
        assert float(row["colour"]) == pytest.approx(
            colour_distance(made, image.load(style, 64)), abs=1e-4
        )
        assert float(row["edges"]) == pytest.approx(
            edge_similarity(made, image.load(content, 64)), abs=1e-4
        )
    record = json.loads((tmp_path / "sheet.json").read_text())
    assert record["options"]["reference-only"]["weight"] == 0.5
    before = {path: path.stat().st_mtime_ns for path in pictures.values()}
    assert cli.main(["compare", *given, "--cell-px", "32"]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in pictures.values()}
    assert image.read_rgb(tmp_path / "sheet.png").width < 64 * 4 + 200


def test_figures_of_pictures_that_are_the_same_or_only_recoloured():
    one, other = picture(1, 64, 64), picture(2, 64, 64)
    assert colour_distance(one, one) == 0.0 and colour_distance(one, other) > 0.05
    assert edge_similarity(one, one) == pytest.approx(1.0)
    assert edge_similarity(one, -one) == pytest.approx(1.0)
    assert edge_similarity(one, other) < 0.6
    assert colour_distance(one, one[:, :, ::-1]) == pytest.approx(0.0, abs=1e-12)
    assert edge_similarity(one, np.zeros_like(one)) == 0.0
