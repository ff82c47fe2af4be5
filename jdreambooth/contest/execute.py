"""One style from beginning to end, in the process that is called: what every engine runs."""

from __future__ import annotations

import errno
import filecmp
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from jstyle.console.words import count, one_line
from jstyle.sd import ending, files, parts
from jstyle.sd.folders import remove_folder

from .. import runs
from .folders import locked
from .order import stages_of
from .search_task import SearchTask
from .stages import Stage
from .task import Task
from .worker import Worker

log = logging.getLogger("jdreambooth")

LACKS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENOMEM)

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """made: the stages that were done. error: one line, or None for a style that is finished.
    elsewhere: whether it is of the machine, so that another one may do better."""

    style: str
    made: tuple[str, ...] = ()
    seconds: float = 0.0
    error: str | None = None
    elsewhere: bool = False


def run_style(
    task: Task, worker: Worker, tell: Tell = log.info, bar: Callable | None = None
) -> Outcome:
    """Do what is missing or changed of one style, then put its pictures into the submission.

    tell(line) after every stage; bar(total) makes a tqdm-like progress bar. An error ends up in the
    outcome, so that the other styles go on. Another process at work on the style is waited for.
    """
    started, made, elsewhere = perf_counter(), [], False
    try:
        with locked(task.setup.out.style(task.name)):
            _run_stages(task, worker, tell, bar, made)
        error = None
    except Exception as problem:
        ending.stop_if_asked()
        log.info("style %s", task.name, exc_info=True)
        error = one_line(str(problem)) or type(problem).__name__
        elsewhere = is_of_the_machine(problem)
    return Outcome(task.name, tuple(made), perf_counter() - started, error, elsewhere)


def is_of_the_machine(problem: BaseException | None) -> bool:
    """Whether an error, or what it came from, says that this machine lacks disk or memory."""
    while problem is not None:
        if isinstance(problem, MemoryError) or getattr(problem, "errno", None) in LACKS:
            return True
        problem = problem.__cause__ or problem.__context__
    return False


def _run_stages(task: Task, worker: Worker, tell: Tell, bar, made: list[str]) -> None:
    parts.sweep(task.setup.out.style(task.name))
    if isinstance(task, SearchTask):
        from .search import search_style

        with runs.on_device(task.setup.device):
            search_style(task, worker, tell, bar)
        return
    stages = stages_of(task)
    if any(stage.current() is None for stage in stages):
        remove_folder(_result(task))  # a half of old pictures must not be submitted
        with runs.on_device(task.setup.device):
            for stage in stages:
                if stage.current() is None:
                    done = stage.run(worker, bar)
                    made.append(stage.name)
                    took = f"in {done.measured['seconds']:.1f} s"
                    if done.style != task.name:
                        took = f"made for style {done.style}"
                    tell(f"{task.name} {stage.name}: {count(*stage.count())} {took}")
    publish(stages[-1], _result(task))


def _result(task: Task) -> Path:
    return task.setup.out.result / task.name


def publish(stage: Stage, folder: Path) -> None:
    """Make `folder` hold the pictures of a stage, and nothing else."""
    pictures = {path.name: path for path in stage.outputs() if path.suffix == ".png"}
    files.writable_folder(folder)
    for path in folder.iterdir():
        if path.name not in pictures:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, source in pictures.items():
        target = folder / name
        if not (target.is_file() and filecmp.cmp(source, target, shallow=False)):
            with files.atomic_write(target) as part:
                shutil.copyfile(source, part)
