"""`jdreambooth contest tune`: search every style, then write a contest.yaml that `run` repeats.

OUT/search/            the stages of all trials, see probe.py
OUT/contest.yaml       the configuration that was found, every option and every plan written out
OUT/tune.json          every trial, what was chosen, and how it does on what no trial has seen
OUT/styles/SS/train/   the training that was chosen, so that `run` into OUT has it already
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from jstyle.methods import DEFAULT, find_method
from jstyle.score.layout import Contest, Style, read_contest
from jstyle.sd import files, parts
from jstyle.sd.folders import whole_folder
from jstyle.sd.limits import PER_PICTURE, TRAINING_STEPS, require_whole
from jstyle.sd.reading import read_object

from ..captions import subject
from ..config import CAPTION_SOURCES
from ..pick import WORDS
from . import plans, run
from .config import AVERAGE, ContestConfig, make_config
from .engines import run_styles
from .execute import Outcome, Tell
from .folders import Record, require_ours
from .judge import words_of
from .judging import JudgeConfig, settled
from .order import stages_of
from .plans import merged_plans
from .probe import SEARCH, SearchOut, work_of
from .search_task import RUNS, SECONDS, WORK, Budget, Search, SearchTask
from .space import space_of
from .task import Task
from .yaml_file import read_yaml

CONFIG, TUNED = "contest.yaml", "tune.json"
UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
LEAST_PROMPTS = 2


class TuneError(ValueError):
    """A search that cannot be begun; one line."""


def budget_of(text: str) -> Budget:
    """ "40" trials of a style; "90m" or "2h" for all styles; "3x" the work of that many runs of the
    configuration. Raises TuneError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    number, unit = found.groups() if found else ("", "")
    if found and not unit and number.isdigit() and 1 <= int(number) <= TRAINING_STEPS:
        return Budget(int(number))
    if found and unit == "x" and 0 < float(number) < 1e6:
        return Budget(float(number), RUNS)
    if found and unit in UNITS and 0 < float(number) * UNITS[unit] < 1e9:
        return Budget(float(number) * UNITS[unit], SECONDS)
    raise TuneError(
        f"budget must be trials per style (40), time (90m, 2h), or the work of so many plain runs "
        f"(3x), got {text!r}"
    )


def _of_style(budget: Budget, task: Task, styles: int, jobs: int) -> Budget:
    """A style's own part of what was asked for."""
    if budget.kind == SECONDS:
        return Budget(budget.amount * min(jobs, styles) / styles, SECONDS)
    if budget.kind == RUNS:
        return Budget(budget.amount * sum(map(work_of, stages_of(task))), WORK)
    return budget


def make_record(root: str | Path, out: str | Path, config: ContestConfig) -> Record:
    """That of a run into the same folder. Raises TuneError without Optuna, and as `run` does."""
    if find_spec("optuna") is None:
        raise TuneError("tune needs Optuna; mend: pip install 'jstyle[tune]'")
    return run.make_record(root, out, config)


def make_search(
    budget: Budget,
    judge: JudgeConfig,
    words: str | Path | None,
    more: Mapping[str, int],
    methods: str = f"{plans.NONE},{DEFAULT}",
) -> Search:
    """words: a YAML file, prompt -> a word or a list of them. methods: their names. Raises
    ValueError."""
    names = tuple(dict.fromkeys(name.strip() for name in methods.split(",")))
    for name in names:
        if name != plans.NONE:
            find_method(name)
    search = Search(budget, judge, methods=names, words=read_words(words), **more)
    for name in ("trainings", "candidates", "counts"):
        require_whole(name, getattr(search, name), 1, PER_PICTURE)
    require_whole("seed", search.seed, 0, 2**31)
    return search


def read_words(path: str | Path | None) -> dict[str, list[str]]:
    """Prompt -> words to try for it. Raises TuneError or YamlError."""
    found = {}
    for prompt, given in ({} if path is None else read_yaml(path)).items():
        words = [given] if isinstance(given, str) else given
        if not isinstance(words, list) or not all(isinstance(w, str) and w.strip() for w in words):
            raise TuneError(f"{path}: {prompt} must be a word or a list of them, got {given!r}")
        found[prompt] = words
    return found


def make_searches(
    record: Record,
    search: Search,
    prompts: int,
    styles: Sequence[str] | None,
    device: str,
    jobs: int | None = None,
) -> list[SearchTask]:
    """A task for each style. prompts: how many, of other styles, the trials of each paint; as many
    are held back. search.budget: what `budget_of` made. Raises TuneError, or what `make_tasks`
    raises."""
    require_whole("prompts", prompts, LEAST_PROMPTS, PER_PICTURE)
    settled(search.judge)
    searching = replace(record, out=SearchOut(record.out.folder / SEARCH))
    tasks, whole, made = run.make_tasks(searching, styles, device), read_contest(record.root), []
    lost = plans.unmatched(search.words, [p for style in whole.styles for p in style.prompts])
    if lost:
        raise TuneError(f"words: {lost}")
    for task in tasks:
        budget = _of_style(search.budget, task, len(tasks), jobs or 1)
        pool = other_prompts(whole, task.style)
        searched, held = pool[0::2][:prompts], pool[1::2][:prompts]
        if len(held) < LEAST_PROMPTS:
            raise TuneError(
                f"style {task.name}: too few prompts that are not its own ({len(pool)}): the other "
                f"styles of the contest have them, and pictures that are reported are not searched"
            )
        among = tuple(words_of(task.style, pool))
        about = (record.config, replace(search, budget=budget), tuple(searched), tuple(held), among)
        made.append(SearchTask(task.setup, task.style, task.options, *about))
    return made


def told(task: SearchTask) -> str:
    """What would be tried for a style, in a few lines."""
    space = space_of(task)
    lines = [f"{task.name}: {task.search.budget.amount:g} {task.search.budget.kind}"]
    lines.append(f"  trials paint {', '.join(task.searched)}; held back are {', '.join(task.held)}")
    lines += [f"  training {i}: {one}" for i, one in enumerate(space.trainings or ())]
    for name, values in space.choices.items():
        if name != "training":
            lines.append(f"  {name}: {', '.join(map(str, values))}")
    return "\n".join(lines)


def other_prompts(contest: Contest, style: Style) -> list[str]:
    """Prompts of the other styles, then common words, that this one neither has nor shows."""
    own = {word.casefold() for word in style.prompts}
    own |= {word for path in style.references for word in subject(path).casefold().split()}
    every = [prompt for other in contest.styles for prompt in other.prompts]
    found: dict[str, str] = {}
    for word in [*every, *(word.capitalize() for word in WORDS)]:
        if word.casefold() not in own and not own & set(word.casefold().split()):
            found.setdefault(word.casefold(), word)
    return list(found.values())


def tune(
    record: Record,
    tasks: list[SearchTask],
    engine: str = "local",
    jobs: int | None = None,
    tell: Tell = print,
    bar: Callable | None = None,
) -> list[Outcome]:
    """Search these styles and write contest.yaml and tune.json into record.out.

    An outcome for each style, in their order; nothing is written if one of them failed. Raises
    OutError if the folder holds what no run has made.
    """
    require_ours(record.out)
    found = {}
    with files.output_folder(record.out.folder):
        parts.sweep(record.out.folder)
        record.write()
        for outcome in run_styles(list(tasks), engine, jobs, tell, bar):
            found[outcome.style] = outcome
            if outcome.error is not None:
                tell(f"{outcome.style}: failed: {outcome.error}")
        if all(outcome.error is None for outcome in found.values()):
            told = {task.name: read_object(task.found) for task in tasks}
            config = tuned_config(record, told)
            text = yaml.safe_dump(dict(config.values), sort_keys=False, allow_unicode=True)
            files.write_text(record.out.folder / CONFIG, text)
            replace(record, config=config).write()
            files.write_json(record.out.folder / TUNED, summary(told))
            for task in tasks:
                keep_training(record, config, task)
    return [found[task.name] for task in tasks]


def tuned_config(record: Record, found: Mapping[str, Mapping]) -> ContestConfig:
    """The configuration with what was found for each style, and all paths from the root."""
    from .search import changed

    config = placed(record.config)
    for name, told in found.items():
        config = changed(config, name, told["changes"])
        values = dict(config.values)
        own = dict(values["styles"][name])
        own["prompts"] = merged_plans(own.get("prompts") or {}, _plans(told))
        words = {p: one["word"] for p, one in told["prompts"]["plans"].items() if one["word"]}
        if words:
            own["words"] = {**(own.get("words") or {}), **words}
        values["styles"] = {**values["styles"], name: own}
        config = replace(config, values=values)
    path = record.out.folder / CONFIG
    return make_config(dict(config.values), str(path), path.parent)


def _plans(told: Mapping) -> dict[str, dict]:
    """A plan for every prompt whose picture is not painted as the others are."""
    made = {}
    generate, refine = told["changes"]["generate"], told["changes"]["refine"]
    for prompt, one in told["prompts"]["plans"].items():
        made[prompt] = {"seed": one["seed"]}
        if one["at"] is not None and one["at"] != generate.get("at"):
            made[prompt]["at"] = one["at"]
        if isinstance(refine, dict) and refine["style_image"] == "rotate":
            made[prompt]["style_image"] = one["style_image"]
    return made


def placed(config: ContestConfig) -> ContestConfig:
    """The same with paths from the root, for a file that stands elsewhere."""

    def of(section: str, given: Any) -> Any:
        if section == "prompts" and isinstance(given, dict):
            return {name: of("generate", plan) for name, plan in given.items()}
        if not isinstance(given, dict):
            return given
        names = {"train": ("captions", "class_dir"), "generate": ("init",)}.get(section, ())
        there = {
            name: str((config.folder / given[name]).resolve())
            for name in names
            if isinstance(given.get(name), str) and given[name] not in (AVERAGE, *CAPTION_SOURCES)
        }
        return {**given, **there}

    def all_of(sections: Mapping | None) -> dict:
        return {name: of(name, given) for name, given in (sections or {}).items()}

    values = dict(config.values)
    values["defaults"] = all_of(values.get("defaults"))
    styles = values.get("styles") or {}
    values["styles"] = {name: all_of(sections) for name, sections in styles.items()}
    return replace(config, values=values)


def keep_training(record: Record, config: ContestConfig, task: SearchTask) -> None:
    """Let a run into the same folder find the training and class pictures of the search."""
    plain = replace(record, config=config)
    (wanted,) = run.make_tasks(plain, [task.name], task.setup.device)
    searched = replace(wanted, setup=task.setup)
    for ours, theirs in zip(stages_of(wanted), stages_of(searched), strict=True):
        if ours.name not in ("prior", "train") or theirs.current() is None:
            return
        if ours.current() is None and not ours.folder.exists():
            with whole_folder(ours.folder) as part:
                shutil.copytree(theirs.folder, part, copy_function=_linked, dirs_exist_ok=True)


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)


def summary(found: Mapping[str, Mapping]) -> dict:
    """All styles, and the means of both sides: what the trials saw, and what none of them saw."""

    def mean(side: str, name: str) -> float:
        return sum(told[side][name] for told in found.values()) / len(found)

    sides = {s: {n: mean(s, n) for n in ("own", "best")} for s in ("searched", "held")}
    names = ("first", "chosen", "chosen_again")
    sides["prompts"] = {name: mean("prompts", name) for name in names}
    took = {kind: sum(told[kind] for told in found.values()) for kind in (SECONDS, WORK)}
    return {"means": sides, **took, "styles": dict(found)}
