"""`contest tune` with a tiny model: what it finds, that a run repeats it, and that it goes on."""

from __future__ import annotations

import importlib.util
import json
import shutil
import warnings
from pathlib import Path

import pytest

from jdreambooth.contest import probe, tune
from jdreambooth.contest.config import make_config, read_config
from jdreambooth.contest.judging import JudgeConfig
from jdreambooth.contest.run import make_record, make_tasks, run_contest
from jdreambooth.contest.stages import Stage
from jstyle.score.pictures import read_rgb
from tests import tiny
from tests.contests import STYLES, make_contest

DEFAULTS = {
    "train": {"steps": 2, "save_at": "1", "rank": 2, "learning_rate": 1e-1},
    "pick": {"prompts": 2, "steps": 1, "draws": 1},
    "generate": {"steps": 2, "guidance": 2.0},
    "refine": {"steps": 1},
}
MORE = {"trainings": 2, "candidates": 2, "counts": 2, "seed": 3}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a contest "root" and a configuration."""
    folder = tmp_path_factory.mktemp("tune")
    make_contest(folder)
    tiny.make_ours("sd2").save_pretrained(folder / "model", "float32")
    return folder


@pytest.fixture(scope="module")
def search(place):
    """search(out, engine) -> the lines that were told; of style 01."""
    values = {"model": str(place / "model"), "size_px": 32, "defaults": DEFAULTS}
    config = make_config(values, "contest.yaml", place)
    (place / "words.yaml").write_text("Cat: [tiger]\n")

    def run(out: str, engine: str = "local", trials: int = 4) -> list[str]:
        lines: list[str] = []
        record = tune.make_record(place / "root", place / out, config)
        how = (tune.budget_of(str(trials)), JudgeConfig(draws=1), place / "words.yaml", MORE)
        tasks = tune.make_searches(record, tune.make_search(*how), 2, ["01"], "cpu")
        (done,) = tune.tune(record, tasks, engine, None, lines.append)
        assert done.error is None, done.error
        return lines

    return run


@pytest.fixture(scope="module")
def found(search, place) -> Path:
    search("out")
    return place / "out"


def run_with(place: Path, config: Path, out: Path) -> list[str]:
    record = make_record(place / "root", out, read_config(config))
    (done,) = run_contest(record, make_tasks(record, ["01"], "cpu"), tell=lambda line: None)
    assert done.error is None, done.error
    return list(done.made)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def told_of(out: Path) -> dict:
    return json.loads((out / tune.TUNED).read_text())["styles"]["01"]


def test_the_configuration_that_is_found_is_repeated_by_a_run_to_the_same_bytes(place, found):
    made = run_with(place, found / "contest.yaml", found)
    assert made == ["generate", "refine"] or made == ["generate"]  # the training was kept
    made = run_with(place, found / "contest.yaml", place / "again")
    assert made[0] == "train"
    first = bytes_of(found / "result/01")
    assert first == bytes_of(place / "again/result/01")
    assert sorted(first) == sorted(f"{prompt}.png" for prompt in STYLES["01"][1])


def test_each_prompt_gets_the_picture_that_the_search_chose(place, found):
    run_with(place, found / "contest.yaml", found)
    plans = told_of(found)["prompts"]["plans"]
    assert set(plans) == set(STYLES["01"][1])
    assert any(one["word"] is None for one in plans.values())
    assert plans["Cat"]["of"] == 2 * 2 * 2 and plans["Dog"]["of"] == 2 * 2  # Cat has another word
    stages = found / "search/styles/01"
    painted = {}
    for path in stages.glob("measure-*/measured.json"):
        folders = [p for kind in ("refine", "generate") for p in stages.glob(f"{kind}-*")]
        for row in json.loads(path.read_text())["pictures"]:
            for folder in folders:
                if (folder / row["file"]).is_file():
                    painted.setdefault((row["text"], row["seed"]), []).append(folder / row["file"])
    for prompt, one in plans.items():
        own = read_rgb(found / "result/01" / f"{prompt}.png").tobytes()
        paths = painted[one["text"], one["seed"]]
        assert own in {read_rgb(path).tobytes() for path in paths}, prompt


def test_trials_never_paint_what_is_reported(found):
    told = told_of(found)
    own = {prompt.casefold() for prompt in STYLES["01"][1]}
    sides = [set(told[side]["prompts"]) for side in ("searched", "held")]
    assert not sides[0] & sides[1]
    assert not own & {prompt.casefold() for side in sides for prompt in side}
    seeds: dict[bool, set[int]] = {True: set(), False: set()}
    for path in (found / "search/styles/01").glob("measure-*/measured.json"):
        for row in json.loads(path.read_text())["pictures"]:
            seeds[row["prompt"].casefold() in own].add(row["seed"])
    assert not seeds[True] & seeds[False]
    for side in ("searched", "held"):
        assert 0 <= told[side]["own"] and 0 <= told[side]["best"] <= 1
    first, *others = told["searched"]["trials"]
    assert first["changes"]["refine"]["method"] == "styleid"  # the configuration's own
    assert others and all(row["values"] != first["values"] for row in others)
    assert told["prompts"]["chosen"] >= told["prompts"]["first"]


class Killed(BaseException):
    """As a signal would end it, at whatever place."""


def test_a_search_that_was_killed_goes_on_and_repeats_nothing(place, search, found, monkeypatch):
    made: list[str] = []
    limit: int | None = None
    run = Stage.run

    def counted(stage, worker, bar=None):
        if limit is not None and len(made) >= limit:
            raise Killed
        done = run(stage, worker, bar)
        made.append(str(stage.folder))
        return done

    monkeypatch.setattr(Stage, "run", counted)
    for wanted in (3, 9):
        limit = wanted
        with pytest.raises(Killed):
            search("killed")
    limit = None
    search("killed")
    assert len(made) == len(set(made))
    kept = json.loads((place / "killed" / tune.TUNED).read_text())
    first = json.loads((found / tune.TUNED).read_text())
    assert without_times(kept) == without_times(first)
    config = (found / "contest.yaml").read_text()
    assert (place / "killed/contest.yaml").read_text() == config
    assert sum("/train-" in name for name in made) == len(
        list((found / "search/styles/01").glob("train-*"))
    )


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k != "seconds"}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def test_trainings_are_shared_by_trials(found):
    trials = told_of(found)["searched"]["trials"]
    used = {row["values"]["training"] for row in trials}
    there = list((found / "search/styles/01").glob("train-*"))
    assert len(there) == len(used) <= 2 < len(trials)


def test_more_trials_go_on_from_those_that_are_there(place, search, found):
    shutil.copytree(found, place / "more")
    before = {p.name for p in (place / "more/search/styles/01").iterdir()}
    lines = search("more", trials=5)
    rows = [line for line in lines if " trial " in line and "taken" not in line]
    assert len(rows) == 5
    assert rows[0].split(": ")[1] == f"is {told_of(found)['searched']['trials'][0]['value']:.4f}"
    after = {p.name for p in (place / "more/search/styles/01").iterdir()}
    assert before <= after


def test_a_worker_of_ray_comes_to_the_same_configuration(place, search, found):
    if importlib.util.find_spec("ray") is None:
        reason = "Ray is not installed (pip install '.[ray]')"
        warnings.warn(f"tune with the engine ray was NOT tested; {reason}", stacklevel=1)
        pytest.skip(reason)
    shutil.copytree(found, place / "rayed")
    for folder in (place / "rayed/search/styles/01").glob("measure-*"):
        shutil.rmtree(folder)  # what is left to do there
    search("rayed", engine="ray")
    wanted = (found / "contest.yaml").read_text()
    assert (place / "rayed/contest.yaml").read_text() == wanted
    assert without_times(told_of(place / "rayed")) == without_times(told_of(found))


def test_the_judge_measures_the_same_as_when_it_chooses(found):
    path = next((found / "search/styles/01").glob("measure-*"))
    judged, rows = probe.measured_in(path)
    assert len(judged.style) == len(rows) and set(judged.parts) == {"hist", "recognised"}
