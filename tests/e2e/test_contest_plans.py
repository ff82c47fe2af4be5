"""Plans per prompt and candidates with a tiny model: every key moves the picture it is for."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jdreambooth import generate
from jdreambooth.contest.config import make_config
from jdreambooth.contest.findings import collect
from jdreambooth.contest.folders import read_record
from jdreambooth.contest.run import make_record, make_tasks, run_contest
from jstyle.score.pictures import read_rgb
from jstyle.sd import image
from tests import tiny
from tests.contests import make_contest

DEFAULTS = {
    "train": {"steps": 2, "save_at": "1", "rank": 2, "learning_rate": 1e-1},
    "generate": {"steps": 2, "guidance": 2.0, "init": "average", "strength": 1.0},
    "refine": {"steps": 2, "style_image": "cat_"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """run(out, style options) -> the folder of the pictures of a contest's style 01."""
    folder = tmp_path_factory.mktemp("plans")
    root, _ = make_contest(folder)
    tiny.make_ours("sd2").save_pretrained(folder / "model", "float32")
    image.save_png(folder / "start.png", np.full((32, 32, 3), 90, np.uint8))
    kept = folder / "kept"

    def run(own: dict):
        values = {"model": str(folder / "model"), "size_px": 32, "defaults": DEFAULTS}
        config = make_config({**values, "styles": {"01": own}}, "contest.yaml", folder)
        record = make_record(root, kept, config)
        (done,) = run_contest(record, make_tasks(record, ["01"], "cpu"), tell=lambda line: None)
        assert done.error is None, done.error
        return kept / "result" / "01"

    return run


def pixels(folder) -> dict[str, np.ndarray]:
    return {path.stem: read_rgb(path) for path in sorted(folder.iterdir())}


def changed(before, after) -> list[str]:
    return [name for name in before if not np.array_equal(before[name], after[name])]


def test_every_key_of_a_plan_changes_the_picture_of_its_prompt_and_no_other(run):
    plain = pixels(run({}))
    keys = {
        "text": "another text",
        "at": 1,
        "seed": 40,
        "negative": "grey",
        "strength": 0.5,
        "init": "start.png",
        "style_image": "Cherry_blossom",
        "method": "none",
    }
    (first, *others), prompts = keys.items(), ("Cat", "Dog", "Tree house")
    after = pixels(run({"prompts": {"D*": dict([first])}}))
    assert changed(plain, after) == ["Dog"], first
    for start in range(0, len(others), len(prompts)):  # a key for each prompt at once
        given = dict(zip(prompts, others[start:], strict=False))
        own = {prompt: {key: value} for prompt, (key, value) in given.items()}
        assert changed(plain, pixels(run({"prompts": own}))) == list(given), given
    assert changed(plain, pixels(run({"words": {"Cat": "tiger"}}))) == ["Cat"]
    assert changed(plain, pixels(run({}))) == []


def test_pictures_painted_together_are_those_of_one_by_one_up_to_rounding(run, monkeypatch):
    own = {"generate": {"together": 2}, "prompts": {"Dog": {"seed": 40}}}
    alone = pixels(run({**own, "generate": {"together": 1}}))
    sizes = []
    make = generate.make_pictures

    def counted(sd, texts, *how):
        sizes.append(len(texts))
        return make(sd, texts, *how)

    monkeypatch.setattr(generate, "make_pictures", counted)
    folder = run(own)
    assert sizes == [2, 1]  # three prompts
    together = pixels(folder)
    for name, picture in alone.items():
        gaps = np.abs(picture.astype(int) - together[name])
        assert gaps.max() <= 2 and (gaps > 0).mean() < 0.01, name
    # a batch of which one picture is there is painted as a whole: the same bytes
    stage = folder.parent.parent / "styles/01/generate"
    before = {path.name: path.read_bytes() for path in stage.glob("*.png")}
    (stage / "Cat.png").unlink()
    run(own)
    assert sizes[2:] == [2]
    assert before == {path.name: path.read_bytes() for path in stage.glob("*.png")}


def test_the_nearest_reference_is_the_one_whose_parts_lie_alike(run):
    folder = run({"refine": {"style_image": "nearest"}, "generate": {"init": "start.png"}})
    style = folder.parent.parent / "styles/01"
    rows = json.loads((style / "refine/stage.json").read_text())["facts"]["pictures"]
    names = {"Cherry_blossom.png", "cat_.png"}
    assert {row["style_image"] for row in rows} <= names and len(rows) == 3
    # a start that is a reference stays nearest to it
    own = {"init": str(folder.parent.parent.parent / "root/01/images/cat_.png"), "strength": 0.5}
    own |= {"steps": 4, "guidance": 1.0}
    run({"train": False, "generate": own, "refine": {"style_image": "nearest"}})
    rows = json.loads((style / "refine/stage.json").read_text())["facts"]["pictures"]
    assert {row["style_image"] for row in rows} == {"cat_.png"}


def test_of_several_candidates_the_best_by_the_judge_is_taken_and_all_are_kept(run):
    alone = pixels(run({}))
    own = {"generate": {"candidates": 3}, "choose": {"draws": 1}}
    folder = run(own)
    style = folder.parent.parent / "styles/01"
    choice = json.loads((style / "choose/choice.json").read_text())
    assert choice["judge"] == "HIST times recognition by the untrained model"
    chosen = pixels(folder)
    for prompt, told in choice["prompts"].items():
        each = told["candidates"]
        assert [row["file"] for row in each] == [f"{prompt}/{i}.png" for i in range(3)]
        best = max(each, key=lambda row: row["gain"])
        assert best["chosen"] and told["chosen"] == best["file"] and "hist" in told["why"]
        kept = [read_rgb(style / "refine" / row["file"]) for row in each]
        assert np.array_equal(kept[0], alone[prompt])  # the first is what there was without
        assert len({picture.tobytes() for picture in kept}) == 3
        assert np.array_equal(chosen[prompt], kept[each.index(best)])
    (found,) = collect(read_record(folder.parent.parent))  # as the report shows it
    for picture in found.pictures:
        told = choice["prompts"][picture.prompt]
        assert picture.path == style / "choose" / f"{picture.prompt}.png" and picture.last
        assert picture.before == style / "generate" / told["chosen"] and picture.why == told["why"]
        shown = {one.path: one.chosen for one in picture.candidates}
        wanted = {style / "refine" / row["file"]: row["chosen"] for row in told["candidates"]}
        assert shown == wanted and picture.candidates[0].scores["gain"] > 0
    by_hist = run({**own, "choose": {"by": "hist"}})
    choice = json.loads((style / "choose/choice.json").read_text())
    for prompt, told in choice["prompts"].items():
        best = max(told["candidates"], key=lambda row: row["hist"])
        assert best["chosen"] and "recognised" not in best, prompt
    assert sorted(pixels(by_hist)) == sorted(alone)
