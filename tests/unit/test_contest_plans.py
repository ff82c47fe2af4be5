"""Plans for single prompts and the words that stand for them: which counts, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jdreambooth.contest import judge, plans
from jdreambooth.contest.config import ConfigError, make_config
from jdreambooth.contest.judging import JudgeConfig, Judged, join
from jdreambooth.contest.mini import make_mini
from jdreambooth.contest.order import stages_of
from jdreambooth.contest.run import make_record, make_tasks
from jstyle.score.layout import Style

DEFAULTS = {
    "train": {"steps": 4, "save_at": "2"},
    "generate": {"template": "a {prompt} in style{style}", "init": "average", "seed": 5},
    "refine": {"steps": 3, "gamma": 0.5},
}


def options(prompts=None, words=None, style=None, folder="here", **sections):
    values = {**DEFAULTS, **sections, "prompts": prompts, "words": words}
    config = make_config(
        {"defaults": values, "styles": {"05": style}}, "contest.yaml", Path(folder)
    )
    return config.style("05")


def test_for_every_key_the_most_specific_entry_counts():
    given = {
        "Ice cream": {"seed": 1},
        "*": {"seed": 2, "negative": "x", "strength": 0.5},
        "Ice*": {"seed": 3, "negative": "y"},
        "I*": {"negative": "z", "at": 9},
    }
    assert plans.plan_for(given, "Ice cream") == {
        "seed": 1, "negative": "y", "strength": 0.5, "at": 9,
    }  # fmt: skip
    assert plans.plan_for(given, "Ice tea")["seed"] == 3
    assert plans.plan_for(given, "ice tea") == given["*"]  # prompts are verbatim
    assert plans.plan_for({"[Ii]ce*": {"at": 1}, "?ce*": {"at": 2}}, "Ice")["at"] == 2
    assert plans.plan_for({"a[b]": {"at": 1}, "*": {"at": 2}}, "a[b]")["at"] == 1


def test_the_keys_of_a_plan_change_what_the_prompt_is_painted_with():
    own = {
        "Ring": {
            "at": 2,
            "negative": "n",
            "strength": 0.4,
            "init": None,
            "text": "{prompt} {style}",
        }
    }
    made = options(own, {"Ring": "gold ring", "Cup": "mug"})
    assert made.text("Ring") == "gold ring 05" and made.text("Cup") == "a mug in style05"
    assert made.text("Fox") == "a Fox in style05"
    ring, fox = made.recipe("Ring"), made.recipe("Fox")
    assert (ring.negative, ring.strength, ring.init, ring.at) == ("n", 0.4, None, 2)
    assert fox is made.generate and fox.init == "average"
    placed = options({"Ring": {"init": "{style}.png"}}, folder="there").recipe("Ring")
    assert placed.init == "there/05.png"


def test_a_plan_can_refine_otherwise_or_not_at_all():
    made = options({"Ring": {"method": "none"}, "Cup": {"style_image": "rotate"}})
    assert made.refinement("Ring") is None
    assert (made.refinement("Cup").style_image, made.refinement("Cup").gamma) == ("rotate", 0.5)
    assert made.refinement("Fox") is made.refine
    only = options({"Ring": {"method": "styleid"}}, refine="none")
    assert only.refines and only.refinement("Fox") is None
    assert only.refinement("Ring").gamma == 0.75
    assert not options(refine="none").refines


def test_a_style_adds_to_the_plans_of_the_defaults_key_by_key():
    own = {"prompts": {"Ring": {"seed": 9}}, "words": {"Cup": "mug"}}
    made = options({"Ring": {"seed": 1, "at": 2}}, {"Cup": "cup", "Fox": "red fox"}, own)
    assert made.plan("Ring") == {"seed": 9, "at": 2}
    assert made.words == {"Cup": "mug", "Fox": "red fox"}


@pytest.mark.parametrize(
    "prompts, told",
    [
        ({"Ring": {"sed": 1}}, "prompts: Ring: no option 'sed'; did you mean seed?"),
        ({"Ring": {"at": 0}}, "Ring: at must be a count of steps that train saves, got 0"),
        ({"Ring": {"seed": -1}}, "Ring: seed must be an integer from 0 to"),
        ({"Ring": {"seed": True}}, "Ring: seed must be an integer"),
        ({"Ring": {"text": " "}}, "text must be text that is not empty"),
        ({"Ring": {"negative": 3}}, "negative must be text, got 3"),
        ({"Ring": {"strength": 1.5}}, "strength must be above 0 and at most 1, got 1.5"),
        ({"Ring": {"init": ""}}, "init must be text that is not empty"),
        ({"Ring": {"style_image": 3}}, "style_image must be text"),
        ({"Ring": {"method": "stylid"}}, "method must be one of none, styleid, style-aligned"),
        ({"Ring": 3}, "prompts: Ring must hold names with values, got 3"),
        ([1], "prompts must hold names with values"),
    ],
)
def test_a_plan_that_cannot_be_is_named_when_the_file_is_read(prompts, told):
    with pytest.raises(ConfigError) as error:
        options(prompts)
    assert "contest.yaml: defaults: prompts" in str(error.value) and told in str(error.value)


@pytest.mark.parametrize(
    "prompts, sections, told",
    [
        ({"R*": {"at": 3}}, {}, r"prompts: R\*: at must be a count .* saves \(2, 4\), got 3"),
        ({"R": {"at": 2}}, {"train": "none"}, r"count that train saves \(nothing\), got 2"),
        ({"R": {"style_image": "rotate"}}, {"refine": "none"}, "does nothing without refine"),
        ({"R": {"strength": 0.5}}, {"generate": {}}, "strength does nothing without init"),
        ({}, {"choose": {"draws": 1}}, "choose: there is nothing to choose from"),
        ({}, {"generate": {"candidates": 0}}, "candidates must be an integer from 1"),
        ({}, {"generate": {"together": 0}}, "together must be an integer from 1 to"),
        ({}, {"generate": {"candidates": 2}, "choose": {"by": "x"}}, "by must be one of score"),
        ({}, {"generate": {"candidates": 2}, "choose": {"ask": "x"}}, "ask must contain"),
    ],
)  # fmt: skip
def test_what_would_do_nothing_or_cannot_be_is_refused(prompts, sections, told):
    with pytest.raises(ConfigError, match=told):
        options(prompts, **sections)


def test_words_are_texts():
    with pytest.raises(ConfigError, match="words: Ring must be text that is not empty, got 3"):
        options(words={"Ring": 3})


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """tasks(defaults, styles) -> those of a contest of two styles."""
    monkeypatch.chdir(tmp_path)
    make_mini("small", styles=2, references=3, prompts=4, size_px=16)

    def make(defaults, styles=None, only=None):
        values = {"defaults": {**DEFAULTS, **defaults}, "styles": styles or {}}
        config = make_config(values, "contest.yaml", tmp_path)
        return make_tasks(make_record("small", "out", config), only)

    return make


def test_a_plan_for_a_prompt_that_no_style_has_is_refused_with_the_nearest(tasks):
    own = tasks({})[0].style.prompts[0]
    tasks({"prompts": {own: {"seed": 1}}})  # of one style only: enough for defaults
    near = own + "s"
    with pytest.raises(
        ConfigError, match=f"defaults: prompts: no prompt '{near}'; did you mean {own}"
    ):
        tasks({"prompts": {near: {"seed": 1}}})
    with pytest.raises(ConfigError, match="style 01: words: no prompt 'Nobody'"):
        tasks({}, {"01": {"words": {"Nobody": "x"}}})
    tasks({"prompts": {near: {"seed": 1}}}, only=["00"])  # another style may have it


def test_seeds_of_plans_and_candidates(tasks):
    first, *_ = tasks({"generate": {**DEFAULTS["generate"], "candidates": 3}})
    second = first.style.prompts[1]
    own = {"00": {"prompts": {second: {"seed": 40}}}}
    task = tasks({"generate": {**DEFAULTS["generate"], "candidates": 3}}, own)[0]
    generate = stages_of(task)[1]
    seeds = [generate.seed_for(item) for item in generate.items]
    assert seeds == [5, 9, 13, 40, 44, 48, 7, 11, 15, 8, 12, 16]
    assert generate.file(second, 2) == f"{second}/2.png"


def test_the_style_image_of_each_prompt(tasks):
    (task,) = tasks({"refine": {"style_image": "rotate", "steps": 2}}, only=["00"])
    names = [path.name for path in task.style.references]
    last = task.style.prompts[3]
    own = {"00": {"prompts": {last: {"style_image": names[1]}, "[!I]*": {}}}}
    (task,) = tasks({"refine": {"style_image": "rotate", "steps": 2}}, own, only=["00"])
    refine = stages_of(task)[-1]
    found = [refine.style_image(item).name for item in refine.items]
    assert found == [names[0], names[1], names[2], names[1]]
    assert refine.units() == 4 * 4 + 3 * 2  # every style image is prepared once
    with pytest.raises(
        ValueError, match="style_image must be one of .*, rotate, nearest, seed, got"
    ):
        tasks({"refine": {"style_image": "nobody"}})


def test_the_judge_builds_the_value_as_the_score_is_built():
    a = Judged(np.array([0.5, 0.1]), np.array([1.0, 0.5]), {"hist": np.array([0.5, 0.1])})
    assert a.value == pytest.approx(0.3 * 0.75)
    nudged = a._replace(style=a.style + [1e-6, 0])
    assert (nudged.value - a.value) == pytest.approx(1e-6 * a.content.mean() / 2)
    both = join([a, a])
    assert both.value == pytest.approx(a.value) and len(both.parts["hist"]) == 4
    assert a.gains.argmax() == 0
    with pytest.raises(ValueError, match="draws must be an integer from 1"):
        JudgeConfig(draws=0)


def test_certainty_is_the_share_of_texts_that_explain_a_picture_worse():
    errors = np.array([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1], [0.2, 0.1, 0.3]])
    assert judge.certainty(errors, np.array([0, 0, 0])) == pytest.approx([1, 0, 0.25])


def test_the_words_among_which_a_picture_is_recognised(tmp_path):
    style = Style("05", (tmp_path / "Cherry_blossom_.png",), ("cup", "Ring"))
    assert judge.words_of(style, ["Fox", "Cup"]) == ["Cherry blossom", "cup", "Fox", "Ring"]
