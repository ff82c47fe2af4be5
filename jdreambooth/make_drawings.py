"""A folder of drawings of objects in one style, with a caption for each."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from jstyle.sd import files, image, limits, targets
from jstyle.sd.folders import filled_folder

from . import drawings

CAPTIONS = "captions.jsonl"


def make_drawings(
    out: str | Path,
    obj: str,
    style: str | None = None,
    count: int = 8,
    seed: int = 0,
    size_px: int = 128,
    overwrite: bool = False,
) -> list[Path]:
    """Write `count` PNGs with the seeds seed, seed + 1, ... and captions.jsonl, one line each.

    obj: a name, or several with commas between, which take turns. style None: plain drawings.
    overwrite: also replace files that are no drawings of ours.
    Raises ValueError for an unknown name or a number out of range before anything is written,
    OSError if the folder cannot be written.
    """
    names = [name.strip() for name in obj.split(",")]
    captions = {name: drawings.caption(name, style) for name in names}
    limits.require_whole("count", count, 1, limits.PICTURES)
    limits.require_whole("seed", seed, 0, limits.SEED)
    limits.require_whole("size_px", size_px, 16, limits.SIDE_PX)
    stem = {name: "_".join(filter(None, (name, style))).replace(" ", "_") for name in names}
    rows: list[dict[str, Any]] = []
    for i, number in enumerate(range(seed, seed + count)):
        name = names[i % len(names)]
        row: dict[str, Any] = {
            "file": f"{stem[name]}_{number:04d}.png",
            "caption": captions[name],
            "object": name,
        }
        rows.append({**row, "style": style, "seed": number, "size_px": size_px})
    paths = [Path(out) / row["file"] for row in rows]
    _require_free(Path(out), paths, overwrite)
    with filled_folder(out, last=CAPTIONS) as folder:
        for row in rows:
            pixels = np.asarray(drawings.draw(row["object"], style, row["seed"], size_px))
            image.save_png(folder / row["file"], pixels)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        with files.atomic_write(folder / CAPTIONS) as part:
            files.write_text(part, lines)
    return paths


def _require_free(folder: Path, paths: list[Path], overwrite: bool) -> None:
    """Raise TargetError for what is there and was not drawn by us, as captions.jsonl tells."""
    captions = folder / CAPTIONS
    targets.require_free([captions], overwrite)
    drawn = targets.drawn(captions) if os.path.isfile(captions) else set()
    targets.require_free([path for path in paths if path.name not in drawn], overwrite)
