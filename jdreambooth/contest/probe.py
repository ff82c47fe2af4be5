"""One trial of a search: a few pictures painted in one way and judged, as stages with manifests.

    OUT/search/prior/KEY/              class pictures
    OUT/search/styles/SS/STAGE-KEY/    train, generate, refine and measure, each under its inputs
    OUT/search/styles/SS/found.json    what the search of the style came to

Stages lie under the key of their inputs, so trials that have one in common share it, and a search
that was killed finds all that was finished.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jstyle.sd import files
from jstyle.sd.reading import read_object

from .folders import Out
from .judged import JudgingStage
from .judging import Judged
from .manifest import key_of
from .options import StyleOptions
from .search_task import SECONDS, WORK
from .stages import Stage
from .task import Task

if TYPE_CHECKING:
    from .worker import Worker

SEARCH, MEASURED = "search", "measured.json"
BACKWARD = 3  # evaluations that a forward and a backward pass are worth


@dataclass(frozen=True)
class SearchOut(Out):
    """The folder of a search's stages: each of them under the key of its inputs."""

    def stage_folder(self, stage: Stage) -> Path:
        if stage.place is None:
            inputs = stage.inputs()
            if inputs is None:  # what comes before is not there yet
                return self.style(stage.task.name) / f"{stage.name}-none"
            stage.place = self.style(stage.task.name) / f"{stage.name}-{key_of(inputs)[:16]}"
        return stage.place


@dataclass(frozen=True)
class Probe(Task):
    """Some prompts of a style with one set of options. words: what recognition chooses among."""

    words: tuple[str, ...] = ()


class Measure(JudgingStage):
    """The judge's parts of every picture, in measured.json."""

    name, unit = "measure", "picture"
    task: Probe

    def own_inputs(self) -> dict:
        pictures = self.before.current().outputs
        return {**self.judge_inputs(), "words": [*self.task.words], "pictures": pictures}

    def make(self, worker: Worker, bar: Callable | None) -> dict:
        rows, _, _, judged = self.verdicts(worker, bar, self.task.words)
        found = {"style": judged.style.tolist(), "content": judged.content.tolist()}
        found["parts"] = {name: values.tolist() for name, values in judged.parts.items()}
        files.write_json(self.folder / MEASURED, {**found, "pictures": rows})
        return {"value": judged.value}

    def outputs(self) -> list[Path]:
        return [self.folder / MEASURED]


def measured_in(folder: Path) -> tuple[Judged, list[dict]]:
    """What a finished Measure found, and the rows of its pictures."""
    found = read_object(folder / MEASURED)
    parts = {name: np.array(values) for name, values in found["parts"].items()}
    judged = Judged(np.array(found["style"]), np.array(found["content"]), parts)
    return judged, found["pictures"]


@dataclass
class Laboratory:
    """Runs the probes of one style. taken: folder of a stage -> the seconds and the work that it
    took, of all stages that its probes needed, whether they were made now or by a search before
    this one. each: what a picture of the last probe took."""

    task: Task
    worker: Worker
    words: tuple[str, ...]
    bar: Callable | None = None
    taken: dict[Path, dict[str, float]] = field(default_factory=dict)
    each: dict[str, float] = field(default_factory=dict)

    def spent(self) -> dict[str, float]:
        return {kind: sum(one[kind] for one in self.taken.values()) for kind in (SECONDS, WORK)}

    def measure(self, options: StyleOptions, prompts: tuple[str, ...]) -> tuple[Judged, list[dict]]:
        """Paint the prompts with these options and judge the pictures; rows have their paths."""
        style = replace(self.task.style, prompts=prompts)
        probe = Probe(self.task.setup, style, options, self.words)
        measure = self.run(probe)[-1]
        judged, rows = measured_in(measure.folder)
        folder = measure.before.folder
        return judged, [{**row, "path": folder / row["file"]} for row in rows]

    def run(self, probe: Probe) -> list[Any]:
        """Make what is missing. Returns its stages, all of them current."""
        from .order import stages_of

        stages = stages_of(probe)
        for stage in stages:
            done = stage.current() or stage.run(self.worker, self.bar)
            took = {SECONDS: done.measured["seconds"], WORK: work_of(stage)}
            self.taken[stage.folder] = took
        painted = [self.taken[s.folder] for s in stages if s.name not in ("prior", "train")]
        count = len(probe.style.prompts) * probe.options.generate.candidates
        self.each = {k: sum(one[k] for one in painted) / count for k in (SECONDS, WORK)}
        return stages


def work_of(stage: Stage) -> float:
    """Evaluations of the network for one picture that a stage takes from its beginning; a step of
    training counts BACKWARD, and recognition one for every word."""
    more = {"train": BACKWARD, "measure": len(getattr(stage.task, "words", ()))}
    return float(stage.units() * more.get(stage.name, 1))
