"""Where a run begins: its folder, the state that it goes on from, the lines of its steps."""

from __future__ import annotations

import json
from pathlib import Path

from jstyle.sd import files, reading

from . import checkpoint
from .config import TrainConfig
from .runs import METRICS

CHECKPOINTS = "checkpoints"


def open_folder(cfg: TrainConfig) -> Path:
    """Prepare cfg.out. Raises ValueError if it holds a run that is not to be resumed."""
    folder = files.writable_folder(cfg.out)
    if cfg.resume is None and (folder / METRICS).exists():
        raise ValueError(f"{folder}: holds a run already; resume it (auto) or choose another out")
    for place in (folder, folder / CHECKPOINTS):
        checkpoint.sweep(place)
    return folder


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


def write_lines(path: Path, metrics: list[dict]) -> None:
    with files.atomic_write(path) as part:
        part.write_text("".join(json.dumps(m) + "\n" for m in metrics), encoding="utf-8")
