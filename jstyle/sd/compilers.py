"""The processes in which Jittor compiles the sources of its core.

Jittor's own are a pool that waits for ever when one of its processes is killed, as a system short
of memory does, and whose processes stay. These are gone when the sources are compiled, and one that
is killed is an error.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import ModuleType

from .toolchain import usable_cores

MEMORY = 3 * 2**30  # bytes that a compiler may take


def run_cmds(
    jittor_utils: ModuleType,
    cmds: list[str],
    cache_path: str,
    jittor_path: str,
    msg: str = "run_cmds",
) -> None:
    """Stands in for jittor_utils.run_cmds: run every compiler's command whose output is not there.

    jittor_utils: Jittor's tools. msg: what a bar says. Raises RuntimeError if a process is killed,
    and what the first command that fails raises.
    """
    bar, done = jittor_utils.DelayProgress(msg, len(cmds)), False
    with _may_have_children():
        processes = ProcessPoolExecutor(
            max(1, min(usable_cores(), int(jittor_utils.get_total_mem() // MEMORY))),
            multiprocessing.get_context("fork"),  # they have loaded what they need
            jittor_utils.pool_initializer,
        )
        try:
            jobs = [
                processes.submit(jittor_utils.do_compile, [cmd, cache_path, jittor_path])
                for cmd in cmds
            ]
            for i, job in enumerate(as_completed(jobs)):
                job.result()
                bar.update(i)
            done = True
        except BrokenProcessPool:
            raise RuntimeError(
                "a process that compiled was killed, perhaps for lack of memory; run it again"
            ) from None
        finally:
            processes.shutdown(wait=done, cancel_futures=True)


@contextmanager
def _may_have_children() -> Iterator[None]:
    """Also for a process of a contest, which is a daemon to multiprocessing."""
    config = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    before = config.get("daemon")
    config["daemon"] = False
    try:
        yield
    finally:
        config["daemon"] = before
