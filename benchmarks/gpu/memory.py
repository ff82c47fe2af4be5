"""Memory of the GPU: what the allocator says, and what the package's own plan expects."""

from __future__ import annotations

import importlib

from benchmarks.works import Setting

PLAN = "jstyle.sd.memory_plan"  # absent in a version without a plan: then nothing is compared


def expected_mib(work: str, setting: Setting) -> float | None:
    """The peak of this package on the GPU by its plan, or None where none is made for the work."""
    try:
        plan = importlib.import_module(PLAN)
    except ModuleNotFoundError:
        return None
    expected = getattr(plan, "expected_bytes", None)
    found = expected(work, setting) if expected else None
    return None if found is None else found / 2**20


def told(turn: dict) -> float | None:
    """MiB that a turn's allocator had at most."""
    return turn.get("device_mib")
