"""What there is to do, why, and how long it may take, from what finished stages took."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from statistics import median

from jstyle.console.words import count

from .folders import PRIOR, STYLES
from .manifest import FILE, Manifest, changes, key_of, read_manifest
from .order import stages_of
from .stages import Stage
from .task import Setup, Task

CHANGES_TOLD = 3


class State(str, Enum):
    """Where a stage of a style stands."""

    DONE = "done"
    MISSING = "missing"
    CHANGED = "changed"  # it was made from other inputs
    WAITING = "waiting"  # for a stage before it, or for another style that makes the same
    DAMAGED = "damaged"  # outputs are gone or not what they were
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Row:
    """A stage of a style. why: the state in words. share: what an interrupted one has done already,
    0..1. seconds: what is left may take; None where nothing was measured."""

    style: str
    stage: str
    state: State
    why: str
    amount: str
    share: float = 0.0
    seconds: float | None = 0.0

    @property
    def is_done(self) -> bool:
        return self.state is State.DONE


@dataclass(frozen=True)
class Plan:
    rows: list[Row]
    rates: dict[str, float]  # stage -> seconds per unit

    @property
    def todo(self) -> list[Row]:
        return [row for row in self.rows if not row.is_done]

    @property
    def unknown(self) -> list[str]:
        """Stages that nothing was measured for."""
        return list(dict.fromkeys(row.stage for row in self.todo if row.seconds is None))

    def seconds(self, jobs: int = 1) -> float:
        """Of all that has an estimate; styles are dealt out to `jobs` as they come."""
        ends = [0.0] * jobs
        for style in dict.fromkeys(row.style for row in self.rows):
            took = sum(row.seconds or 0.0 for row in self.todo if row.style == style)
            ends[ends.index(min(ends))] += took
        return max(ends)


def make_plan(tasks: Iterable[Task]) -> Plan:
    """Reads manifests, references and results; writes nothing and loads no network."""
    tasks = list(tasks)
    rates = measured_rates(tasks[0].setup) if tasks else {}
    rows, priors = [], {}
    for task in tasks:
        for stage in stages_of(task):
            row = _row(task, stage, rates)
            if stage.name == "prior" and not row.is_done:
                first = priors.setdefault(stage.folder, task.name)
                if first != task.name:
                    row = Row(
                        task.name, stage.name, State.WAITING, f"with style {first}", row.amount
                    )
            rows.append(row)
    return Plan(rows, rates)


def _row(task: Task, stage: Stage, rates: Mapping[str, float]) -> Row:
    amount = count(*stage.count())
    if stage.current() is not None:
        return Row(task.name, stage.name, State.DONE, "done", amount, 1.0)
    state, why, done = _reason(stage)
    units = stage.units()
    seconds = rates[stage.name] * (units - done) if stage.name in rates else None
    share = done / units if units else 0.0
    return Row(task.name, stage.name, state, why, amount, share, seconds)


def _reason(stage: Stage) -> tuple[State, str, int]:
    """Why a stage is to be made, and how many of its units are done already."""
    inputs, found = stage.inputs(), read_manifest(stage.folder)
    if inputs is None:
        last = [name for name, s in stage.earlier.items() if s.current() is None][-1]
        return State.WAITING, f"after {last}", 0
    if found is None:
        return State.MISSING, "missing", 0
    if found.key != key_of(inputs):
        told = changes(found.inputs, inputs)
        more = [f"{len(told) - CHANGES_TOLD} more"] if len(told) > CHANGES_TOLD else []
        return State.CHANGED, f"changed ({', '.join(told[:CHANGES_TOLD] + more)})", 0
    if found.done:
        return State.DAMAGED, "outputs are missing or damaged", 0
    return State.INTERRUPTED, "interrupted", stage.units_done()


def measured_rates(setup: Setup) -> dict[str, float]:
    """Stage -> seconds per unit: the median over the finished ones with this model and size."""
    found: dict[str, list[float]] = {}
    for manifest in _manifests(setup.out.folder):
        same = (manifest.inputs.get("model"), manifest.inputs.get("size_px"))
        units = manifest.measured.get("units", 0)
        if manifest.done and units > 0 and same == (setup.fingerprint, setup.size_px):
            found.setdefault(manifest.stage, []).append(manifest.measured["seconds"] / units)
    return {stage: median(rates) for stage, rates in found.items()}


def _manifests(folder: Path) -> Iterable[Manifest]:
    for pattern in (f"{STYLES}/*/*/{FILE}", f"{PRIOR}/*/{FILE}"):
        for path in folder.glob(pattern):
            if (found := read_manifest(path.parent)) is not None:
                yield found


def plan_text(plan: Plan, jobs: int = 1) -> str:
    """The plan as lines of text: what is to do, and an estimate."""
    lines = []
    for row in plan.todo:
        time = f"  {duration(row.seconds)}" if row.seconds else ""
        part = f", {row.share:.0%} done" if row.share else ""
        lines.append(f"{row.style}  {row.stage:<9} {row.amount:<18} {row.why}{part}{time}")
    styles = dict.fromkeys(row.style for row in plan.rows)
    if not plan.todo:
        return f"{count(len(styles), 'style')}: everything is done"
    lines.append(
        f"to do: {count(len(plan.todo), 'stage')} of {len(plan.rows)}; done: "
        f"{len(plan.rows) - len(plan.todo)}"
    )
    return "\n".join([*lines, _estimate(plan, jobs)])


def _estimate(plan: Plan, jobs: int) -> str:
    if len(plan.unknown) == len({row.stage for row in plan.todo}):
        return "no estimate: none of these stages was measured yet; run one style first (--styles)"
    with_jobs = f" with {count(jobs, 'job')}" if jobs > 1 else ""
    without = f", without {', '.join(plan.unknown)}, not measured yet" if plan.unknown else ""
    return f"about {duration(plan.seconds(jobs))}{with_jobs}, as finished stages took{without}"


def duration(seconds: float) -> str:
    """ "40 s", "3 min 20 s", "2 h 5 min"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min" + (f" {seconds % 60} s" if seconds % 60 else "")
    minutes = round(seconds / 60)
    return f"{minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")


def as_json(plan: Plan) -> str:
    rows = [{**vars(row)} for row in plan.rows]
    return json.dumps({"rows": rows, "rates": plan.rates}, indent=2)
