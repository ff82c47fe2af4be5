"""stage.json: what a stage was made from, what it wrote, and what that took.

The key is a hash over the inputs, which hold the contents of files and never their places: a folder
can be moved, and a run on another machine comes to the same key.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from jstyle.sd import files, parts
from jstyle.sd.folders import remove_folder
from jstyle.sd.reading import read_object

FILE = "stage.json"
WHOLE = 1 << 26  # bytes up to which all of a file is hashed; of larger ones, size and both ends
END = 1 << 20


@dataclass
class Manifest:
    """outputs: path inside the folder -> digest. facts: for later stages and reports. measured:
    {"seconds", "units"} of the work since the last interruption."""

    stage: str
    style: str
    key: str
    inputs: dict
    done: bool = False
    outputs: dict[str, str] = field(default_factory=dict)
    facts: dict = field(default_factory=dict)
    measured: dict[str, float] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        files.write_json(folder / FILE, asdict(self))

    def is_whole(self, folder: Path) -> bool:
        """Whether the stage was finished and its outputs are still what they were."""
        return self.done and all(
            (folder / name).is_file() and digest(folder / name) == value
            for name, value in self.outputs.items()
        )


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a stage's folder, or None where there is none that can be read."""
    try:
        return Manifest(**read_object(folder / FILE))
    except (ValueError, TypeError):
        return None


def key_of(inputs: dict) -> str:
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def digest(path: Path) -> str:
    """A hash of a file's contents; of a file above WHOLE, of its size and of both its ends.

    Raises InputError for what is no regular file.
    """
    size = files.require_file(path).stat().st_size
    with path.open("rb") as file:
        if size <= WHOLE:
            return hashlib.sha256(file.read()).hexdigest()
        ends = [file.read(END)]
        file.seek(size - END)
        ends.append(file.read(END))
    return hashlib.sha256(f"{size}\0".encode() + b"".join(ends)).hexdigest()


def open_folder(folder: Path, manifest: Manifest) -> bool:
    """Prepare a stage's folder for its work; True if it goes on with work that was interrupted.

    What was made from other inputs is removed, and so is what killed processes left half-written.
    """
    old = read_manifest(folder)
    goes_on = old is not None and old.key == manifest.key
    if not goes_on:
        remove_folder(folder)
    files.writable_folder(folder)
    parts.sweep(folder, deep=True)
    manifest.write(folder)
    return goes_on


def changes(old: dict, new: dict) -> list[str]:
    """What differs between two inputs, as "train.steps: 500 -> 250"; files by name only."""
    before, after = _flat(old), _flat(new)
    differences = []
    for name in dict.fromkeys([*before, *after]):
        a, b = before.get(name), after.get(name)
        if a != b:
            hashed = any(isinstance(x, str) and len(x) == 64 for x in (a, b))
            differences.append(name if hashed else f"{name}: {a!r} -> {b!r}")
    return differences


def _flat(values: dict, above: str = "") -> dict:
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{above}{name}.")
        else:
            flat[f"{above}{name}"] = value
    return flat
