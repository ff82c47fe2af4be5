"""States to resume from.

RUN/checkpoints/step-000100/ holds state.safetensors, the trained parameters with their optimiser
state by name, and state.json, which knows the other file's hash: a state that does not match it is
not whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jstyle.sd import files
from jstyle.sd.folders import remove_folder, whole_folder
from jstyle.sd.reading import read_object
from jstyle.sd.steps import step_folders, step_name

TENSORS, FACTS = "state.safetensors", "state.json"


class CheckpointError(ValueError):
    """A state that is missing, damaged, or of another run."""


class State(NamedTuple):
    """What a run needs to go on: facts["step"] steps are done."""

    facts: dict
    tensors: dict[str, np.ndarray]
    folder: Path


def save_state(folder: Path, tensors: Mapping[str, np.ndarray], facts: dict, keep: int) -> Path:
    """Write a state to folder/step-XXXXXX, then remove all but the last `keep`.

    Raises OSError if it cannot be written, WeightsError if a value is not finite; the older
    states are untouched then.
    """
    from jstyle.sd import weights  # starts Jittor; whoever only moves folders does not need it

    target = folder / step_name(facts["step"])
    with whole_folder(target) as part:
        shapes = {name: values.shape for name, values in tensors.items()}
        getters = {name: (lambda v=values: v) for name, values in tensors.items()}
        weights.write_safetensors(part / TENSORS, getters, shapes)
        files.write_json(part / FACTS, {**facts, "sha256": _hash(part / TENSORS)})
    for old in [*step_folders(folder).values()][:-keep]:
        remove_folder(old)
    return target


def load_state(folder: Path) -> State:
    """Read a state. Raises CheckpointError if it is not whole."""
    from jstyle.sd import weights

    try:
        facts = read_object(folder / FACTS)
        whole = facts["sha256"] == _hash(folder / TENSORS)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}: not a whole checkpoint ({error})") from None
    if not whole:
        raise CheckpointError(f"{folder / TENSORS}: does not match {FACTS}, it is damaged")
    stored = weights.read_safetensors(folder / TENSORS)
    return State(facts, {name: np.array(t.array()) for name, t in stored.items()}, folder)


def newest_state(folder: Path) -> State | None:
    """The whole state with the most steps, or None."""
    for path in reversed([*step_folders(folder).values()]):
        try:
            return load_state(path)
        except CheckpointError:
            continue
    return None


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def require_fit(state: State, wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Raise CheckpointError unless the state holds exactly these tensors in these shapes."""
    have = {name: values.shape for name, values in state.tensors.items()}
    if have != dict(wanted):
        other = sorted(n for n in have.keys() | wanted.keys() if have.get(n) != wanted.get(n))
        raise CheckpointError(
            f"{state.folder}: {len(other)} tensors do not fit this model, such as {other[0]}"
        )
