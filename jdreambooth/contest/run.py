"""`jdreambooth contest run`: the tasks of a contest, checked as a whole, and their execution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from jstyle.commands.inputs import find_model
from jstyle.score.layout import read_contest
from jstyle.sd import files, parts

from ..config import DEVICES
from .config import ContestConfig
from .engines import run_styles
from .execute import Outcome, Tell
from .folders import Out, Record, require_ours
from .order import stages_of
from .task import Setup, Task


def make_record(root: str | Path, out: str | Path, config: ContestConfig) -> Record:
    """Find the model, downloading it if need be. Raises HubError, ConfigError or ValueError."""
    if Path(root).resolve() == Path(out).resolve():
        raise ValueError(f"{out}: is the contest itself; give another folder for the results")
    model = find_model(config.source)
    return Record(Out(Path(out)), Path(root), config, model.fingerprint)


def make_tasks(
    record: Record, styles: Sequence[str] | None = None, device: str = "auto"
) -> list[Task]:
    """A task for each style, or for those named, checked before any work is done.

    Raises ContestError, ConfigError, or the ValueError of whatever cannot work later.
    """
    if device not in DEVICES:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}, got {device!r}")
    contest = read_contest(record.root, styles)
    there = sorted([*(style.name for style in contest.styles), *contest.others])
    record.config.require_styles(there)
    prompts = {style.name: style.prompts for style in contest.styles}
    record.config.require_prompts(prompts, whole=not contest.others)
    setup = Setup(record.out, fingerprint=record.fingerprint, device=device, **record.config.wide)
    tasks = [Task(setup, style, record.config.style(style.name)) for style in contest.styles]
    for task in tasks:
        for stage in stages_of(task):
            stage.check()
    return tasks


def run_contest(
    record: Record,
    tasks: list[Task],
    engine: str = "local",
    jobs: int | None = None,
    tell: Tell = print,
    bar: Callable | None = None,
) -> list[Outcome]:
    """Run what is missing or changed of these tasks; an outcome for each style, in their order.

    Raises OutError if the folder holds what no run has made, OSError if it cannot be written; what
    goes wrong in a style is in its outcome.
    """
    require_ours(record.out)
    found = {}
    with files.output_folder(record.out.folder):
        parts.sweep(record.out.folder)
        record.write()
        for outcome in run_styles(tasks, engine, jobs, tell, bar):
            found[outcome.style] = outcome
            if outcome.error is not None:
                tell(f"{outcome.style}: failed: {outcome.error}")
    return [found[task.name] for task in tasks]
