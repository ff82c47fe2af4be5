"""Who runs the styles: this process, several on this machine, or Ray's on several.

All of them call `run_style`, and what they leave on the disk is the same.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from jstyle.sd import ending
from jstyle.sd.limits import TOGETHER, require_whole

from .execute import Outcome, Tell, run_style
from .task import Task
from .worker import Worker

ENGINES = ("local", "ray")
PATIENCE = 1.0  # seconds; the parent waits for its processes, and it has ending.PATIENCE


def check_engine(engine: str, jobs: int | None) -> None:
    """Raise ValueError for another engine or fewer than one job."""
    if engine not in ENGINES:
        raise ValueError(f"engine must be {' or '.join(ENGINES)}, got {engine!r}")
    if jobs is not None:
        require_whole("jobs", jobs, 1, TOGETHER)


def run_styles(
    tasks: list[Task],
    engine: str = "local",
    jobs: int | None = None,
    tell: Tell = print,
    bar: Callable | None = None,
) -> Iterator[Outcome]:
    """Run every task, at most `jobs` at once; yields their outcomes as they come.

    jobs: None for one, and for one per GPU with Ray.
    tell(line) is called in this process. bar(total) makes progress bars, for one job at a time.
    Raises ValueError as `check_engine` does.
    """
    check_engine(engine, jobs)
    if engine == "ray":
        from .engine_ray import run_with_ray

        return run_with_ray(tasks, jobs, tell)
    if jobs in (None, 1) or len(tasks) < 2:
        return run_here(tasks, tell, bar)
    return run_in_processes(tasks, min(jobs, len(tasks)), tell)


def run_here(tasks: list[Task], tell: Tell, bar: Callable | None) -> Iterator[Outcome]:
    worker = Worker()
    for task in tasks:
        yield run_style(task, worker, tell, bar)


def run_in_processes(tasks: list[Task], jobs: int, tell: Tell) -> Iterator[Outcome]:
    """Each process loads the model once. A process that is lost fails its style and no other."""
    waiting, crew = list(reversed(tasks)), {}
    devices = gpus()
    try:
        while waiting or crew:
            taken = {number for _, _, number in crew.values()}
            for number in sorted(set(range(jobs)) - taken):
                if waiting:
                    process, pipe = _start(devices, number)
                    _sent(pipe, waiting[-1])
                    crew[pipe] = (process, waiting.pop(), number)
            for pipe in wait(list(crew)):
                process, task, number = crew[pipe]
                try:
                    said = pipe.recv()
                except (EOFError, ConnectionError):
                    process.join()
                    del crew[pipe]
                    reason = f"its process ended (exit code {process.exitcode}); run it again"
                    yield Outcome(task.name, error=reason)
                    continue
                if isinstance(said, str):
                    tell(said)
                    continue
                yield said
                if waiting and _sent(pipe, waiting[-1]):
                    crew[pipe] = (process, waiting.pop(), number)
                else:
                    _sent(pipe, None)
                    process.join()
                    del crew[pipe]
    finally:
        for process, _, _ in crew.values():
            process.terminate()
            process.join()


def _start(devices: list[str], number: int) -> tuple[SpawnProcess, Connection]:
    """A new process that waits for tasks; several GPUs are dealt out in turn."""
    more = {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive")}
    if len(devices) > 1:
        more["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    spawned = multiprocessing.get_context("spawn")  # a fork would share Jittor's threads
    ours, theirs = spawned.Pipe()
    process = spawned.Process(target=_work, args=(theirs, more), daemon=True)
    with ending.signals_wait():  # there, too, until it can hear them
        process.start()
    theirs.close()
    return process, ours


def _sent(pipe: Connection, task: Task | None) -> bool:
    """False if the process has gone; whoever listens to it hears of that too."""
    try:
        pipe.send(task)
        return True
    except OSError:
        return False


def _work(pipe: Connection, environment: dict[str, str]) -> None:
    """What a process does: tasks in; lines and outcomes out; None ends it."""
    os.environ.update(environment)
    ending.install(None, PATIENCE)  # the parent tells
    ending.end_with_parent()  # which must not be written behind the back of, if it is killed
    worker, code = Worker(), 0
    try:
        ending.let_signals_come()
        while (task := pipe.recv()) is not None:
            pipe.send(run_style(task, worker, pipe.send))
    except (EOFError, ConnectionError):
        code = 1  # the parent is gone
    except ending.Terminated as stop:
        code = stop.code
    ending.end(code)


def gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may be set to, one GPU each."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    found = sorted(int(p.name[6:]) for p in Path("/dev").glob("nvidia[0-9]*"))
    return [str(number) for number in found]
