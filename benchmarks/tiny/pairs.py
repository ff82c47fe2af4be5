"""Triples for training with injected attention: a content, a style, and the content as it should
look in that style.

The wanted result has the style's RGB mean and covariance (the linear map of optimal transport
between Gaussians, arXiv:1910.06521, eq. 5); where both are drawings it is also drawn in the
style's manner.
"""

from __future__ import annotations

import argparse
from multiprocessing import Pool
from pathlib import Path

import numpy as np

from benchmarks.tiny import photos
from benchmarks.tiny.models import SIZE_PX
from jdreambooth import drawings

ROLES = ("content", "style", "result")
CONTENTS = {"photo": 0.5, "drawing": 0.35, "scene": 0.15}
STYLES = {"photo": 0.25, "drawing": 0.5, "scene": 0.25}
LEAST_DEVIATION = 0.03  # of a channel, pixels in [0, 1]: what flat colours are stretched from


def match_colours(picture: np.ndarray, style: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3), twice -> `picture` with the RGB mean and covariance of `style`, clipped."""
    x, y = (a.reshape(-1, 3).astype(np.float64) / 255 for a in (picture, style))
    ridge = LEAST_DEVIATION**2 * np.eye(3)
    own, wanted = (np.cov(a.T) + ridge for a in (x, y))
    root = _root(own)
    back = np.linalg.inv(root)
    transport = back @ _root(root @ wanted @ root) @ back
    matched = (x - x.mean(0)) @ transport + y.mean(0)
    return (np.clip(matched, 0, 1) * 255 + 0.5).astype(np.uint8).reshape(picture.shape)


def _root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def _triple(task) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    seed, photo_a, photo_b = task
    rng = np.random.default_rng((13, seed))
    kinds = [str(rng.choice(list(s), p=list(s.values()))) for s in (CONTENTS, STYLES)]
    manner = drawings.STYLES[rng.integers(len(drawings.STYLES))]
    own = None if rng.random() < 0.5 else drawings.STYLES[rng.integers(len(drawings.STYLES))]
    names = [drawings.OBJECTS[i] for i in rng.integers(len(drawings.OBJECTS), size=2)]

    def make(kind, photo, name, style, number):
        if kind == "photo":
            return photo
        if kind == "scene":
            return np.asarray(drawings.scene(number, SIZE_PX))
        return np.asarray(drawings.draw(name, style, number, SIZE_PX))

    content = make(kinds[0], photo_a, names[0], own, 2 * seed)
    style = make(kinds[1], photo_b, names[1], manner, 2 * seed + 1)
    drawn = kinds == ["drawing", "drawing"]
    base = make("drawing", None, names[0], manner, 2 * seed) if drawn else content
    return content, style, match_colours(base, style)


def build(folder: Path, count: int, seed: int) -> None:
    """Write ROLE.npy (count, S, S, 3) uint8 for every role."""
    folder.mkdir(parents=True, exist_ok=True)
    views = photos.views(2 * count, SIZE_PX, seed + 2)
    first = 50_000_000 + seed * 10_000_000
    tasks = [(first + i, views[2 * i], views[2 * i + 1]) for i in range(count)]
    with Pool() as pool:
        made = pool.map(_triple, tasks, chunksize=32)
    for k, role in enumerate(ROLES):
        np.save(folder / f"{role}.npy", np.stack([triple[k] for triple in made]))


def load(folder: Path) -> dict[str, np.ndarray]:
    """The pictures (memory-mapped) written by `build`."""
    return {role: np.load(folder / f"{role}.npy", mmap_mode="r") for role in ROLES}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--count", type=int, default=6000, help="how many triples")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    build(args.out, args.count, args.seed)


if __name__ == "__main__":
    main()
