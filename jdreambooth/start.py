"""Where a run begins: its folder, the state that it goes on from, the lines of its steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jstyle.sd import files, locks, parts, reading, targets

from . import checkpoint
from .config import TrainConfig
from .runs import CAPTIONS, CONFIG, METRICS, RunError

CHECKPOINTS, LOCK = "checkpoints", ".jstyle-lock"
OWN_FILES = (CONFIG, CAPTIONS, METRICS)


@contextmanager
def open_folder(cfg: TrainConfig) -> Iterator[Path]:
    """cfg.out for the time of a run. Of a new one that comes to no step its own files are removed
    again, and the folder if it is empty then.

    Raises ValueError if it holds a run that is not to be resumed, something else under the names
    of a run's files, or a run that another process is working on.
    """
    with files.output_folder(cfg.out) as folder, _alone_in(folder):
        if cfg.resume is None and (folder / METRICS).exists():
            raise ValueError(
                f"{folder}: holds a run already; resume it (auto) or choose another out"
            )
        if not targets.is_ours(folder / CONFIG):
            targets.require_free([folder / CONFIG])
            for name in (CAPTIONS, METRICS):
                if (folder / name).exists():
                    raise RunError(f"{folder / name}: is not of a run; choose another out")
        for place in (folder, folder / CHECKPOINTS):
            parts.sweep(place)
        is_new = not any((folder / name).exists() for name in OWN_FILES)
        try:
            yield folder
        finally:
            if is_new and not _has_step(folder / METRICS):
                for name in OWN_FILES:
                    parts.remove(folder / name)


def _has_step(path: Path) -> bool:
    return path.is_file() and b"\n" in path.read_bytes()


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which goes with the run. Raises RunError if another one holds it."""
    try:
        with locks.holding(folder / LOCK, wait=False):
            yield
    except locks.Taken:
        raise RunError(
            f"{folder}: another process is training there; wait for it or choose another out"
        ) from None


def find_state(cfg: TrainConfig, folder: Path, ranks: int = 1) -> checkpoint.State | None:
    """The state to go on from, or None.

    ranks: how many processes train. Raises CheckpointError if the state belongs to another
    configuration or to another number of them.
    """
    if cfg.resume is None:
        return None
    if cfg.resume == "auto":
        state = checkpoint.newest_state(folder / CHECKPOINTS)
    else:
        state = checkpoint.load_state(Path(cfg.resume))
    if state is None:
        return None
    differences = cfg.differences(state.facts["config"])
    if differences:
        raise checkpoint.CheckpointError(
            f"{state.folder}: cannot go on with another configuration: {'; '.join(differences)}"
        )
    trained_by = state.facts.get("ranks", 1)
    if trained_by != ranks:
        raise checkpoint.CheckpointError(
            f"{state.folder}: was trained by {trained_by} processes and cannot go on with "
            f"{ranks}, whose batches are others"
        )
    if state.facts["step"] > cfg.steps:
        raise checkpoint.CheckpointError(
            f"{state.folder}: {state.facts['step']} steps are done, steps = {cfg.steps} are fewer"
        )
    return state


def read_lines(path: Path, steps: int) -> list[dict]:
    """The lines of the first `steps` steps; what a killed process wrote beyond them is dropped."""
    lines = reading.read_lines(path) if steps and path.exists() else []
    return [
        reading.parse_json(line, f"{path}, line {i}") for i, line in enumerate(lines[:steps], 1)
    ]


def add_line(path: Path, metrics: dict) -> None:
    with files.naming(path), open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(metrics) + "\n")


def write_lines(path: Path, metrics: list[dict]) -> None:
    with files.atomic_write(path) as part:
        files.write_text(part, "".join(json.dumps(m) + "\n" for m in metrics))
