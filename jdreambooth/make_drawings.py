"""A folder of drawings of one object in one style, with a caption for each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from jstyle.sd import files, image

from . import drawings

CAPTIONS = "captions.jsonl"


def make_drawings(
    out: str | Path,
    obj: str,
    style: str | None = None,
    count: int = 8,
    seed: int = 0,
    size_px: int = 128,
) -> list[Path]:
    """Write `count` PNGs with the seeds seed, seed + 1, ... and captions.jsonl, one line each.

    style None: plain drawings. Raises ValueError for an unknown name or a number out of range
    before anything is written, OSError if the folder cannot be written.
    """
    caption = drawings.caption(obj, style)
    for name, value, least in (("count", count, 1), ("seed", seed, 0), ("size_px", size_px, 16)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    folder = files.writable_folder(out)
    stem = "_".join(filter(None, (obj, style))).replace(" ", "_")
    paths, lines = [], []
    for number in range(seed, seed + count):
        path = folder / f"{stem}_{number:04d}.png"
        image.save_png(path, np.asarray(drawings.draw(obj, style, number, size_px)))
        facts = {"object": obj, "style": style, "seed": number, "size_px": size_px}
        lines.append(json.dumps({"file": path.name, "caption": caption, **facts}))
        paths.append(path)
    with files.atomic_write(folder / CAPTIONS) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return paths
