"""A folder of drawings of objects in one style, with a caption for each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from jstyle.sd import files, image, limits

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

    obj: a name, or several with commas between, which take turns. style None: plain drawings.
    Raises ValueError for an unknown name or a number out of range before anything is written,
    OSError if the folder cannot be written.
    """
    names = [name.strip() for name in obj.split(",")]
    captions = {name: drawings.caption(name, style) for name in names}
    limits.require_whole("count", count, 1, limits.PICTURES)
    limits.require_whole("seed", seed, 0, limits.SEED)
    limits.require_whole("size_px", size_px, 16, limits.SIDE_PX)
    folder = files.writable_folder(out)
    paths, lines = [], []
    for i, number in enumerate(range(seed, seed + count)):
        name = names[i % len(names)]
        stem = "_".join(filter(None, (name, style))).replace(" ", "_")
        path = folder / f"{stem}_{number:04d}.png"
        image.save_png(path, np.asarray(drawings.draw(name, style, number, size_px)))
        facts = {"object": name, "style": style, "seed": number, "size_px": size_px}
        lines.append(json.dumps({"file": path.name, "caption": captions[name], **facts}))
        paths.append(path)
    with files.atomic_write(folder / CAPTIONS) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return paths
