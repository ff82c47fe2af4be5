"""Markers, and the rule that a missing reference is a loud skip here and a failure in CI."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
from pathlib import Path

import pytest

# Jittor and PyTorch bring one OpenMP runtime each; spinning threads of one starve the other.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers share the cores, not each of them

# A shell's background job ignores SIGINT, and so would every command the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

MARKERS = {
    "slow": "takes more than about ten seconds",
    "parity": "compares with PyTorch, diffusers or transformers",
    "gpu": "needs a CUDA device",
    "cuda_emulated": "runs on the emulated CUDA device (python -m tests.cuda.make makes it)",
    "weights": "needs a real checkpoint",
}
REFERENCE = ("torch", "diffusers", "transformers")


def missing_references() -> list[str]:
    return [name for name in REFERENCE if importlib.util.find_spec(name) is None]


def pytest_configure(config):
    for name, why in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {why}")
    missing = missing_references()
    if missing and os.environ.get("JSTYLE_REQUIRE_PARITY"):
        raise pytest.UsageError(
            f"JSTYLE_REQUIRE_PARITY is set, but {', '.join(missing)} cannot be imported; "
            "pip install '.[parity]'"
        )


def pytest_collection_modifyitems(config, items):
    missing = missing_references()
    for item in items:
        if "parity" in Path(item.fspath).parts:
            item.add_marker(pytest.mark.parity)
        if missing and item.get_closest_marker("parity"):
            item.add_marker(pytest.mark.skip(reason=f"not installed: {', '.join(missing)}"))


def pytest_terminal_summary(terminalreporter):
    skipped = [r for r in terminalreporter.stats.get("skipped", []) if "parity" in r.keywords]
    if skipped:
        terminalreporter.section("PARITY SKIPPED")
        terminalreporter.line(f"{len(skipped)} tests against PyTorch did NOT run.")


@pytest.fixture(autouse=True)
def _loggers_as_they_were():
    """A command that a test runs in this process sets how much is logged."""
    loggers = [logging.getLogger(name) for name in ("", "jstyle", "jdreambooth")]
    before = [(logger.level, logger.handlers[:]) for logger in loggers]
    yield
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers[:] = handlers
