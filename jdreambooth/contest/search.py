"""The search of one style: trials by Optuna, then its prompts one by one. What every engine runs.

Nothing is remembered but the stages: the same seed asks for the same trials again, and those that
are finished answer at once, so a killed search goes on where it was. The pictures that are reported
take no part in the trials: these paint other prompts with other seeds, and what they came to is
measured again on prompts and seeds, and with noises of the judge, that no trial has seen.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from jstyle.sd import files
from jstyle.sd.limits import SEED

from .config import ContestConfig
from .judge import judge
from .judging import TOLD, Judged, join, settled
from .options import ChooseOptions, StyleOptions
from .probe import Laboratory
from .search_task import TRIALS, SearchTask
from .space import space_of
from .task import Task

if TYPE_CHECKING:
    from .worker import Worker

log = logging.getLogger("jdreambooth")

FOR_TRIALS, FOR_FINALS, FOR_HELD = 100_000, 200_000, 300_000  # added to the seeds of pictures
OTHER_NOISES = 100_000  # added to the judge's seed, for what no choice has seen
SHARE_OF_TRIALS = 0.5  # of time or work; the rest is for finals, held-out and prompts
FIRST_LOOK = 3  # one part in so many of the prompts, before a trial may be given up
STARTED, FINALISTS, REPEATS = 4, 3, 25


class SearchError(RuntimeError):
    """A search that came to nothing; one line."""


class Trials:
    """The trials of a style. Everything that is measured, in the order of the questions."""

    def __init__(self, task: SearchTask, worker: Worker, tell: Callable, bar: Callable | None):
        self.task, self.tell = task, tell
        self.lab = Laboratory(task, worker, task.among, bar)
        self.space = space_of(task)
        self.rows: list[dict[str, Any]] = []
        self.judged: dict[int, Judged] = {}

    def options(self, changes: Mapping, seeds: int = 0, noises: int = 0) -> StyleOptions:
        """The style's options with these changes, painted with other seeds, judged with others."""
        made = changed(self.task.config, self.task.name, changes).style(self.task.name)
        recipe, how = made.generate, self.task.search.judge
        recipe = replace(recipe, seed=(recipe.seed + seeds) % SEED, candidates=1)
        how = replace(how, seed=how.seed + noises)
        return replace(made, generate=recipe, choose=ChooseOptions(**asdict(how)))

    def measure(
        self, changes: Mapping, prompts: tuple[str, ...], seeds: int, noises: int = 0
    ) -> Judged:
        return self.lab.measure(self.options(changes, seeds, noises), prompts)[0]

    def looks(self) -> list[tuple[int, tuple[str, ...]]]:
        """(seeds, prompts) of what a trial paints before and after it may be given up."""
        prompts = self.task.searched
        first = max(1, len(prompts) // FIRST_LOOK)
        return [(FOR_TRIALS, prompts[:first]), (FOR_TRIALS + first, prompts[first:])]

    def run(self) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        cfg = self.task.search
        sampler = optuna.samplers.TPESampler(seed=cfg.seed, n_startup_trials=STARTED + 2)
        pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTED)
        study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
        for params in self.space.first():
            study.enqueue_trial(params)
        known: dict[str, float] = {}
        repeats = 0
        while self._goes_on() and repeats < REPEATS:
            trial = study.ask()
            values = self.space.suggest(trial)
            if repr(values) in known:
                study.tell(trial, known[repr(values)])
                repeats += 1
                continue
            repeats, before = 0, self.lab.spent()
            row = self._try(trial, values)
            if row["pruned"]:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                study.tell(trial, row["value"])
            known[repr(values)] = row["value"]
            spent = self.lab.spent()
            row |= {kind: round(spent[kind] - before[kind], 3) for kind in spent}
            self.rows.append(row)
            state = "given up at" if row["pruned"] else "is"
            self.tell(f"{self.task.name} trial {row['trial']}: {state} {row['value']:.4f}")

    def _goes_on(self) -> bool:
        budget = self.task.search.budget
        if budget.kind == TRIALS:
            return len(self.rows) < budget.amount
        spent = self.lab.spent()[budget.kind]
        return not self.rows or spent < SHARE_OF_TRIALS * budget.amount

    def _try(self, trial: Any, values: Mapping[str, Any]) -> dict:
        changes, parts, pruned = self.space.changes(values), [], False
        looks = [(seeds, prompts) for seeds, prompts in self.looks() if prompts]
        for number, (seeds, prompts) in enumerate(looks):
            parts.append(self.measure(changes, prompts, seeds))
            trial.report(join(parts).value, number)
            if number + 1 < len(looks) and trial.should_prune():
                pruned = True
                break
        judged = join(parts)
        if not pruned:
            self.judged[len(self.rows)] = judged
        row = {"trial": len(self.rows), "values": dict(values), "changes": changes}
        row["picture"] = self.lab.each
        row |= {"pruned": pruned, "value": judged.value, "pictures": len(judged.style)}
        return {**row, "parts": means(judged)}

    def finals(self) -> int:
        """The number of the best trial: the first few paint once more, with other seeds."""
        if not self.judged:
            raise SearchError(f"style {self.task.name}: no trial was finished")
        order = sorted(self.judged, key=lambda n: -self.judged[n].value)[:FINALISTS]
        for number in order if len(order) > 1 else []:
            changes = self.rows[number]["changes"]
            more = self.measure(changes, self.task.searched, FOR_FINALS)
            self.judged[number] = join([self.judged[number], more])
            self.rows[number]["final"] = self.judged[number].value
        return max(order, key=lambda n: self.judged[n].value)


def search_style(
    task: SearchTask, worker: Worker, tell: Callable[[str], None], bar: Callable | None = None
) -> None:
    """Search a style and write found.json. Raises SearchError if no trial was finished."""
    trials = Trials(task, worker, tell, bar)
    trials.run()
    best = trials.finals()
    row = trials.rows[best]
    found: dict[str, Any] = {"style": task.name, "judge": TOLD[settled(task.search.judge)[0]]}
    found |= {"searched": {"prompts": task.searched, "trials": trials.rows}, "best": best}
    found["searched"] |= {"own": trials.rows[0]["value"], "best": trials.judged[best].value}
    found["held"] = {"prompts": task.held}
    for name, number in (("own", 0), ("best", best)):
        changes = trials.rows[number]["changes"]
        held = trials.measure(changes, task.held, FOR_HELD, OTHER_NOISES)
        found["held"] |= {name: held.value, f"{name}_parts": means(held)}
    found["changes"], found["prompts"] = row["changes"], per_prompt(trials, row)
    found |= {kind: round(amount, 3) for kind, amount in trials.lab.spent().items()}
    sides = found["searched"]["best"], found["held"]["best"]
    tell(f"{task.name} trial {best} is taken: {sides[0]:.4f}, on what it never saw {sides[1]:.4f}")
    files.write_json(task.found, found)


def means(judged: Judged) -> dict[str, float]:
    parts = {name: float(values.mean()) for name, values in judged.parts.items()}
    return {"style": float(judged.style.mean()), "content": float(judged.content.mean()), **parts}


# ---- one prompt after the other


def per_prompt(trials: Trials, row: dict) -> dict[str, Any]:
    """For every prompt of the style the best of some seeds, counts and words, by the judge; and how
    the judge finds the chosen ones with noises that it did not choose by."""
    task, cfg = trials.task, trials.task.search
    ways = [(at, place) for at, place in product(_counts(trials, row), range(_most_words(task)))]
    candidates = _affordable(trials, row, len(ways))
    asked: list[dict] = []
    judged: list[Judged] = []
    for at, place in ways:
        words = {p: w for p in task.style.prompts if (w := _word(task, p, place)) is not None}
        if place and not words:
            continue
        prompts = tuple(task.style.prompts if not place else words)
        made, rows = _paint(trials, row, at, words, prompts, candidates)
        judged.append(made)
        asked += [{**one, "at": at, "word": words.get(one["prompt"])} for one in rows]
    every = join(judged)
    chosen = {}
    for prompt in task.style.prompts:
        places = [i for i, one in enumerate(asked) if one["prompt"] == prompt]
        chosen[prompt] = places[int(np.argmax(every.gains[places]))]
    taken = list(chosen.values())
    firsts = [i for i, one in enumerate(asked) if one["first"]]
    paths = [asked[i]["path"] for i in taken]
    how = replace(cfg.judge, seed=cfg.judge.seed + OTHER_NOISES)
    sd = trials.lab.worker.plain(task.setup)
    again = judge(sd, task.style, paths, list(chosen), task.among, how)
    told = {
        prompt: {name: asked[i].get(name) for name in ("seed", "at", "word", "text", "style_image")}
        | {"gain": float(every.gains[i]), "of": sum(one["prompt"] == prompt for one in asked)}
        for prompt, i in chosen.items()
    }
    return {
        "candidates": candidates,
        "first": _some(every, firsts).value,
        "chosen": _some(every, taken).value,
        "chosen_again": again.value,
        "plans": told,
    }


def _paint(trials: Trials, row, at, words, prompts, candidates):
    task = trials.task
    changes = dict(row["changes"])
    if at is not None:
        changes["generate"] = {**changes["generate"], "at": at}
    own = trials.options(changes)
    recipe = replace(own.generate, candidates=candidates)
    own = replace(own, generate=recipe, words={**own.words, **words})
    judged, rows = trials.lab.measure(own, prompts)
    for one in rows:
        one["first"] = not words and at == row["values"].get("at") and _is_first(one, task, recipe)
    return judged, rows


def _is_first(one: dict, task: Task, recipe) -> bool:
    """Whether a picture is the one that would be painted without any plan."""
    return one["seed"] == recipe.seed + task.style.prompts.index(one["prompt"])


def _some(judged: Judged, places: list[int]) -> Judged:
    parts = {name: values[places] for name, values in judged.parts.items()}
    return Judged(judged.style[places], judged.content[places], parts)


def _counts(trials: Trials, row: dict) -> list[int | None]:
    """The trial's count, and the saved ones nearest to it."""
    at = row["values"].get("at")
    if at is None:
        return [None]
    near = sorted(trials.space.choices["at"], key=lambda n: abs(np.log(n / at)))
    return near[: trials.task.search.counts]


def _most_words(task: SearchTask) -> int:
    """How many words the prompt with most of them has; the prompt itself is one."""
    words = task.search.words
    return 1 + max((len(words.get(prompt, ())) for prompt in task.style.prompts), default=0)


def _word(task: SearchTask, prompt: str, place: int) -> str | None:
    """The word in this place of a prompt's own list; None for the prompt itself."""
    words = task.search.words.get(prompt, ())
    return words[place - 1] if 0 < place <= len(words) else None


def _affordable(trials: Trials, row: dict, ways: int) -> int:
    """As many candidates as were asked for, or as the rest of the budget lets."""
    cfg = trials.task.search
    kind = cfg.budget.kind
    if kind == TRIALS:
        return cfg.candidates
    each = row["picture"][kind]
    left = cfg.budget.amount - trials.lab.spent()[kind]
    return max(1, min(cfg.candidates, int(left / (each * ways * len(trials.task.style.prompts)))))


def changed(config: ContestConfig, style: str, changes: Mapping) -> ContestConfig:
    """The configuration with these sections of a style over its own."""
    styles = dict(config.values.get("styles") or {})
    own = dict(styles.get(style) or {})
    for section, value in changes.items():
        before = own.get(section)
        both = isinstance(value, dict) and isinstance(before, dict)
        own[section] = {**before, **value} if both else value
    return replace(config, values={**config.values, "styles": {**styles, style: own}})
