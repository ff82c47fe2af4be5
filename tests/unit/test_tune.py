"""What `contest tune` may try, on what, for how much, and what it writes; without a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from jdreambooth.contest import tune
from jdreambooth.contest.config import make_config
from jdreambooth.contest.judging import JudgeConfig
from jdreambooth.contest.mini import make_mini
from jdreambooth.contest.search import changed
from jdreambooth.contest.search_task import Budget
from jdreambooth.contest.space import make_space, space_of
from jdreambooth.contest.tune import TuneError
from jdreambooth.contest.yaml_file import read_yaml
from jstyle.score.layout import Contest, Style

DEFAULTS = {
    "train": {
        "steps": 80,
        "save_at": "40",
        "rank": 8,
        "prior_weight": 1,
        "class_prompt": "a thing",
    },
    "pick": True,
    "generate": {"guidance": 5.0, "init": "average", "strength": 0.6},
    "refine": {"gamma": 0.6, "steps": 7},
}


def config_of(defaults=None, **styles):
    values = {"defaults": DEFAULTS if defaults is None else defaults, "styles": styles}
    return make_config(values, "contest.yaml", Path("here"))


class First:
    """An Optuna trial that takes what is in the given places, else the first."""

    def __init__(self, **places):
        self.places, self.asked = places, []

    def suggest_categorical(self, name, choices):
        self.asked.append(name)
        return choices[self.places.get(name, 0)]


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("40", Budget(40, "trials")),
        ("90m", Budget(5400, "seconds")),
        ("2h", Budget(7200, "seconds")),
        ("1.5 H", Budget(5400, "seconds")),
        ("3x", Budget(3, "runs")),
        ("0.5x", Budget(0.5, "runs")),
    ],
)
def test_budgets_are_trials_time_or_runs(text, wanted):
    assert tune.budget_of(text) == wanted


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "1.5", "2 weeks", "0h", "x", "9" * 400, "nan", "1e3h"]
)
def test_a_budget_that_is_none_is_refused(text):
    with pytest.raises(TuneError, match="budget must be trials per style"):
        tune.budget_of(text)


def test_the_configuration_comes_first_and_changes_nothing_but_the_pick():
    config = config_of()
    options = config.style("05")
    space = make_space(options, 3, [0])
    values = space.suggest(First())
    made = changed(config, "05", space.changes(values)).style("05")
    assert made.pick is None and made.generate == options.generate.__class__(
        **{**vars(options.generate), "at": 80}
    )
    assert made.refine.gamma == 0.6 and made.refine.steps == 7
    assert {**vars(made.train), "save_at": None} == {**vars(options.train), "save_at": None}
    assert made.train.save_steps == [10, 20, 40, 80]
    first, mean, plain = space.first()
    assert set(first.values()) == {0}
    assert space.choices["start"][mean["start"]] == ("average", 0.8)
    assert space.choices["method"][plain["method"]] == "none"


def test_every_choice_changes_the_options_of_the_style():
    config = config_of()
    space = make_space(config.style("05"), 3, [0])
    own = changed(config, "05", space.changes(space.suggest(First()))).style("05")
    for name, values in space.choices.items():
        made = changed(config, "05", space.changes(space.suggest(First(**{name: 1})))).style("05")
        assert made != own, (name, values)


def test_methods_are_tried_beside_the_styles_own():
    space = make_space(config_of().style("05"), 1, [0], ["reference-only"])
    assert space.choices["method"] == ["styleid", "reference-only"]
    trial = First(method=1)
    values = space.suggest(trial)
    assert "tau" not in trial.asked and "style_image" in trial.asked
    made = changed(config_of(), "05", space.changes(values)).style("05")
    assert made.refine.method == "reference-only"
    with pytest.raises(ValueError, match="method must be one of"):
        tune.make_search(Budget(1), JudgeConfig(), None, {}, "none,stylid")


def test_what_does_nothing_is_not_asked_for():
    space = make_space(config_of().style("05"), 2, [0])
    trial = First(method=space.choices["method"].index("none"))
    values = space.suggest(trial)
    assert not {"gamma", "tau", "style_image"} & set(trial.asked)
    assert space.changes(values)["refine"] == "none"
    untrained = make_space(config_of({"train": False}).style("05"), 2, [0])
    assert "training" not in untrained.choices and "at" not in untrained.choices
    assert "train" not in untrained.changes(untrained.suggest(First()))


def test_trainings_are_different_and_drawn_by_the_seed():
    options = config_of().style("05")
    one, other = (make_space(options, 4, [seed]).trainings for seed in (0, 1))
    assert len(one) == 4 and one == make_space(options, 4, [0]).trainings and one != other
    assert len({repr(training) for training in one}) == 4 and set(one[0]) == {"save_at"}
    rates = {training.get("learning_rate", 1e-4) for training in (*one, *other)}
    assert rates <= {5e-5, 1e-4, 2e-4} and len(rates) > 1
    assert len(make_space(options, 1, [0]).trainings) == 1


def test_trials_paint_prompts_of_other_styles_that_this_one_neither_has_nor_shows():
    here, there = Path("a/Wolf_.png"), Path("a/cat.png")
    styles = (Style("00", (here,), ("Cup", "Ring")), Style("01", (there,), ("cup", "Wolf", "Fox")))
    found = tune.other_prompts(Contest(Path(), styles), styles[0])
    assert found[0] == "Fox" and {"Cup", "Wolf"}.isdisjoint(found)
    assert "House" in found and "Cup" not in tune.other_prompts(Contest(Path(), styles), styles[1])


@pytest.fixture
def record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_mini("small", styles=2, references=2, prompts=3, size_px=16)
    return tune.make_record("small", "out", config_of())


def searches(record, budget="2x", prompts=3, jobs=None, words=None, **more):
    more = {"trainings": 2, "candidates": 2, "counts": 1, "seed": 0, **more}
    search = tune.make_search(tune.budget_of(budget), JudgeConfig(), words, more)
    return tune.make_searches(record, search, prompts, None, "cpu", jobs)


def test_every_style_gets_its_part_of_the_budget(record):
    assert [t.search.budget for t in searches(record, "7")] == [Budget(7, "trials")] * 2
    assert [t.search.budget.amount for t in searches(record, "2h")] == [3600.0] * 2
    assert [t.search.budget.amount for t in searches(record, "2h", jobs=8)] == [7200.0] * 2
    one, two = (searches(record, text)[0].search.budget for text in ("1x", "2x"))
    assert one.kind == "work" and two.amount == pytest.approx(2 * one.amount)
    for task in searches(record):
        assert len(task.searched) == len(task.held) == 3
        assert set(task.searched) | set(task.held) | set(task.style.prompts) <= set(task.among)
        assert task.setup.out.folder == Path("out/search") and "at: 80" in tune.told(task)


def test_what_cannot_be_searched_is_refused(record, tmp_path):
    with pytest.raises(ValueError, match="prompts must be an integer from 2"):
        searches(record, prompts=1)
    with pytest.raises(ValueError, match="candidates must be an integer from 1"):
        searches(record, candidates=0)
    (tmp_path / "words.yaml").write_text("Nobody: [x]\n")
    with pytest.raises(TuneError, match="words: no prompt 'Nobody'"):
        searches(record, words="words.yaml")
    (tmp_path / "words.yaml").write_text("Ring: [3]\n")
    with pytest.raises(
        TuneError, match=r"words.yaml: Ring must be a word or a list of them, got \[3"
    ):
        searches(record, words="words.yaml")
    (tmp_path / "words.yaml").write_text("Ring: jewel\nCup: [mug, glass]\n")
    assert tune.read_words("words.yaml") == {"Ring": ["jewel"], "Cup": ["mug", "glass"]}


def test_without_optuna_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(tune, "find_spec", lambda name: None)
    with pytest.raises(TuneError, match=r"pip install 'jstyle\[tune\]'"):
        tune.make_record("small", "out", config_of())


def test_what_was_found_is_a_plain_configuration(record, tmp_path):
    space = space_of(searches(record)[0])
    changes = space.changes(space.suggest(First(style_image=1, at=2)))
    one = {"seed": 9, "at": 10, "word": None, "style_image": "b.png"}
    prompts = {"A": one, "B": {**one, "at": changes["generate"]["at"], "word": "jewel"}}
    found = {"00": {"changes": changes, "prompts": {"plans": prompts}}}
    config = tune.tuned_config(record, found)
    text = yaml.safe_dump(dict(config.values), sort_keys=False)
    (tmp_path / "again.yaml").write_text(text)
    assert read_yaml(tmp_path / "again.yaml") == yaml.safe_load(text)
    style = make_config(read_yaml(tmp_path / "again.yaml"), "again", tmp_path).style("00")
    assert style.plan("A") == {"seed": 9, "at": 10, "style_image": "b.png"}
    assert style.plan("B") == {"seed": 9, "style_image": "b.png"} and style.words == {"B": "jewel"}
    assert style.pick is None and style.generate.at == changes["generate"]["at"]


def test_paths_of_the_configuration_hold_from_elsewhere():
    own = {"train": {"captions": "c/{style}.jsonl"}, "generate": {"init": "average"}}
    config = config_of(None, **{"05": {**own, "prompts": {"Cup": {"init": "s.png"}}}})
    values = tune.placed(config).values["styles"]["05"]
    there = Path("here").resolve()
    assert values["train"]["captions"] == str(there / "c/{style}.jsonl")
    assert values["generate"]["init"] == "average"
    assert values["prompts"]["Cup"]["init"] == str(there / "s.png")
