"""Small contests and submissions, made of smooth random pictures."""

from __future__ import annotations

import json
from pathlib import Path

from jstyle.sd import image
from tests.pictures import picture

STYLES = {  # the edge cases of real ones: a space, a trailing _, upper case
    "00": (("moon", "origami_crane"), ("Ice cream", "wallet_")),
    "01": (("Cherry_blossom", "cat_"), ("Cat", "Dog", "Tree house")),
}
SIZE = 48


def make_contest(folder: Path) -> tuple[Path, Path]:
    """ROOT and a complete RESULT for it, below `folder`."""
    root, result = folder / "root", folder / "result"
    seed = 0
    for name, (references, prompts) in STYLES.items():
        (root / name / "images").mkdir(parents=True)
        (result / name).mkdir(parents=True)
        for reference in references:
            save(root / name / "images" / f"{reference}.png", seed := seed + 1, 64)
        for prompt in prompts:
            save(result / name / f"{prompt}.png", seed := seed + 1)
        numbered = dict(enumerate(prompts))
        (root / name / "prompt.json").write_text(json.dumps(numbered))
    return root, result


def save(path: Path, seed: int, size: int = SIZE) -> None:
    image.save_png(path, image.to_uint8(picture(seed, size, size))[0])
