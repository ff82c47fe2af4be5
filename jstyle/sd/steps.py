"""How folders of a training step are called: step-000250."""

from __future__ import annotations

import re
from pathlib import Path


def step_name(step: int) -> str:
    return f"step-{step:06d}"


def step_folders(folder: Path) -> dict[int, Path]:
    """Step -> its folder, ascending."""
    found = {}
    for path in folder.glob("step-*"):
        if re.fullmatch(r"step-\d+", path.name) and path.is_dir():
            found[int(path.name[5:])] = path
    return dict(sorted(found.items()))
