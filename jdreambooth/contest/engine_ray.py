"""`--engine ray`: styles on the machines and GPUs of a Ray cluster, or on this machine alone.

A Ray actor is one process with one model and, where the cluster has GPUs, one of them, which Ray
assigns. Every machine must see the contest, the model and OUT under the same paths.
https://docs.ray.io/en/latest/ray-core/actors.html
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from jstyle.sd import ending

from .execute import Outcome, Tell, run_style
from .task import Task
from .worker import Worker

TRIES = 3  # of a style whose worker is lost
EAR = 0.5  # seconds between two looks at what the workers say


class EngineError(RuntimeError):
    """Ray cannot be used here; one line that says how to mend it."""


class Lines:
    """What the workers want to tell, kept until the driver asks for it."""

    def __init__(self):
        self.kept = []

    def say(self, line: str) -> None:
        self.kept.append(line)

    def take(self) -> list[str]:
        kept, self.kept = self.kept, []
        return kept


class Crew:
    """A process that styles are handed to, in the folder and environment of the driver."""

    def __init__(self, lines, folder: str, environment: dict[str, str]):
        os.chdir(folder)
        os.environ.update(environment)
        self.worker, self.lines = Worker(), lines

    def run(self, task: Task) -> Outcome:
        import ray

        return run_style(task, self.worker, lambda line: ray.get(self.lines.say.remote(line)))

    def machine(self) -> str:
        """The identity that Ray has given to the machine of this process."""
        import ray

        return ray.get_runtime_context().get_node_id()


def run_with_ray(tasks: list[Task], jobs: int | None, tell: Tell) -> Iterator[Outcome]:
    """Run every task on at most `jobs` workers, None for one per GPU; yields outcomes as they come.

    A style whose worker is lost, or whose machine has no disk or memory left, is given to another
    one, which goes on where that stopped; such a machine gets no more styles while there are
    others. Raises EngineError where Ray is not installed or does not start.
    """
    with _cluster() as ray:
        gpus = int(ray.cluster_resources().get("GPU", 0))
        if any(task.setup.device == "cpu" for task in tasks):
            gpus = 0
        lines = ray.remote(num_cpus=0)(Lines).remote()
        shift = Shift(ray, lines, min(1, gpus))
        waiting, lost = list(reversed(tasks)), dict.fromkeys((t.name for t in tasks), 0)
        for _ in range(min(jobs or max(1, gpus), len(tasks))):
            shift.hand_over(shift.start(), waiting.pop())
        while shift.crew:
            ready, _ = ray.wait(list(shift.crew), timeout=EAR)
            for line in ray.get(lines.take.remote()):
                tell(line)
            for reference in ready:
                member, task = shift.crew.pop(reference)
                try:
                    done = ray.get(reference)
                    why = f"its machine cannot go on ({done.error})" if done.elsewhere else None
                    if why is not None:
                        shift.avoid(member)
                        member = shift.start()
                except ray.exceptions.RayActorError as error:
                    reason = str(error).strip().splitlines()[0]
                    done = Outcome(task.name, error=f"its worker was lost ({reason})")
                    member, why = shift.start(), "its worker was lost"
                except ray.exceptions.RayError as error:  # a machine that lacks something
                    reason = str(error).strip().splitlines()[-1]
                    done, why = Outcome(task.name, error=reason), None
                lost[task.name] += why is not None
                if why is not None and lost[task.name] < TRIES:
                    tell(f"{task.name}: {why}; another one goes on")
                    waiting.append(task)
                elif why is not None:
                    yield replace(done, error=f"{done.error}; tried {TRIES} times")
                else:
                    yield done
                if waiting:
                    shift.hand_over(member, waiting.pop())
                else:
                    ray.kill(member)


class Shift:
    """The workers that are at work. crew: what is awaited -> (worker, task)."""

    def __init__(self, ray: Any, lines: Any, gpus: int):
        self.ray, self.gpus, self.crew = ray, gpus, {}
        self._about = lines, os.getcwd(), _threads()
        self._avoided: set[str] = set()  # identities of machines
        self._turn = 0  # the others take them

    def start(self) -> Any:
        """A new worker, on a machine that is not avoided if there is one."""
        options: dict[str, Any] = {"num_cpus": 1, "num_gpus": self.gpus}
        if self._avoided:
            alive = [node["NodeID"] for node in self.ray.nodes() if node["Alive"]]
            good = sorted(set(alive) - self._avoided)
            if good:
                self._turn += 1
                options["scheduling_strategy"] = _on(good[self._turn % len(good)])
        return self.ray.remote(Crew).options(**options).remote(*self._about)

    def hand_over(self, member: Any, task: Task) -> None:
        self.crew[member.run.remote(task)] = member, task

    def avoid(self, member: Any) -> None:
        """End the worker, and start none on its machine again."""
        with suppress(self.ray.exceptions.RayError):
            self._avoided.add(self.ray.get(member.machine.remote()))
        self.ray.kill(member)


def _on(machine: str) -> Any:
    """On this machine, or on another one if it is lost."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(machine, soft=True)


@contextmanager
def _cluster() -> Iterator:
    """Ray, connected to RAY_ADDRESS, to a cluster that runs here, or to one started for this."""
    try:
        import ray
    except ImportError:
        raise EngineError("--engine ray needs Ray; mend: pip install 'jstyle[ray]'") from None
    if ray.is_initialized():
        yield ray
        return
    more = {"RAY_USAGE_STATS_ENABLED": "0", **_threads()}  # Ray would report home
    more = {name: value for name, value in more.items() if name not in os.environ}
    os.environ.update(more)
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # whatever the network and the cluster did, in one line
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise EngineError(f"Ray does not start: {reason}") from error
    finally:
        for name in more:
            del os.environ[name]
    ending.take_signals()  # Ray's own handler ends with code 1
    try:
        yield ray
    finally:
        ray.shutdown()


def _threads() -> dict[str, str]:
    """As many threads as this process has: Ray would give each worker one, and last bits of sums
    can depend on it."""
    here = str(len(os.sched_getaffinity(0)))
    names = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")
    given = {name: os.environ[name] for name in names if name in os.environ}
    return {"OMP_NUM_THREADS": here, "OMP_WAIT_POLICY": "passive", **given}
