"""The training pictures of the shipped model: drawings with captions, scenes, and views of
photographs."""

from __future__ import annotations

import argparse
import json
from multiprocessing import Pool
from pathlib import Path

import numpy as np

from benchmarks.tiny import photos
from benchmarks.tiny.models import SIZE_PX
from jdreambooth import drawings

KINDS = ("photo", "drawing", "scene")
PLAIN_SHARE = 0.5  # of the drawings
COMMON_SHARE = 0.75  # of the drawings: objects whose names a small model learns first
RECOLOURED_SCENES = 0.5


def _drawing(seed: int) -> tuple[np.ndarray, str]:
    rng = np.random.default_rng((11, seed))
    names = drawings.COMMON_OBJECTS if rng.random() < COMMON_SHARE else drawings.OBJECTS
    name = names[rng.integers(len(names))]
    plain = rng.random() < PLAIN_SHARE
    style = None if plain else drawings.STYLES[rng.integers(len(drawings.STYLES))]
    picture = drawings.draw(name, style, seed, SIZE_PX)
    return np.asarray(picture), drawings.caption(name, style)


def _scene(seed: int) -> tuple[np.ndarray, str]:
    rng = np.random.default_rng((12, seed))
    picture = drawings.scene(seed, SIZE_PX)
    if rng.random() < RECOLOURED_SCENES:
        picture = drawings.recolour(picture, rng)
    return np.asarray(picture), ""


def build(folder: Path, counts: dict[str, int], seed: int = 0) -> None:
    """Write KIND.npy (N, S, S, 3) uint8 and captions.json for every kind in `counts`."""
    folder.mkdir(parents=True, exist_ok=True)
    captions = {}
    with Pool() as pool:
        for kind, maker in (("drawing", _drawing), ("scene", _scene)):
            first = seed * 10_000_000
            made = pool.map(maker, range(first, first + counts[kind]), chunksize=64)
            np.save(folder / f"{kind}.npy", np.stack([picture for picture, _ in made]))
            captions[kind] = [caption for _, caption in made]
    np.save(folder / "photo.npy", photos.views(counts["photo"], SIZE_PX, seed + 1))
    captions["photo"] = ["a photo" if i % 4 == 0 else "" for i in range(counts["photo"])]
    (folder / "captions.json").write_text(json.dumps(captions))


def load(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """The pictures (memory-mapped) and captions written by `build`."""
    pictures = {kind: np.load(folder / f"{kind}.npy", mmap_mode="r") for kind in KINDS}
    return pictures, json.loads((folder / "captions.json").read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    for kind, count in (("photo", 7000), ("drawing", 28000), ("scene", 4000)):
        parser.add_argument(f"--{kind}", type=int, default=count, help=f"how many {kind}s")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    build(args.out, {kind: getattr(args, kind) for kind in KINDS}, args.seed)


if __name__ == "__main__":
    main()
