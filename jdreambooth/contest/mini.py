"""A small contest in the contest's own format, drawn: no download, and every style is a new one.

The styles are those kept out of the shipped model's training. File names and prompts have the edge
cases of the real data: spaces, a trailing underscore, mixed case, and stems that tell the style.
The references of the second style are all animals, as those of one real style are, so that too many
steps turn every prompt into an animal. Prompts are words that the shipped model knows best.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np

from jstyle.score.layout import IMAGES, PROMPTS
from jstyle.sd import files, image
from jstyle.sd.folders import filled_folder
from jstyle.sd.limits import require_whole

from .. import drawings

log = logging.getLogger("jdreambooth")

CONFIG = "contest.yaml"
SPACED = ("ice cream", "pine tree", "lightning bolt")
REFERENCES = ("fox", "teapot", "pine tree", "boat", "owl", "chair", "lighthouse", "whale")
REFERENCES += ("guitar", "mushroom")
ALIKE = 1  # the style whose references are all of one kind
YAML = """\
# jdreambooth contest run {root} --out OUT --config {root}/contest.yaml
# The sections hold the options of jdreambooth train, pick and generate, and of jstyle stylize.
model: tiny
defaults:
  train:
    instance_prompt: "a {{stem}} in style{{style}} style"
    caption_case: lower
    steps: 120
    save_at: [15, 30, 60, 120]
    batch: 2
    rank: 16
    targets: feed-forward
    learning_rate: 1e-3
  pick:
    by: score         # HIST x recognised, as the contest's score is built
    prompts: 6
    draws: 2
    most_copies: 0.3
    least_recognised: 0.5
  generate:
    template: "a {{prompt}} in style{{style}} style"
    steps: 25
  refine: none        # or styleid
# styles:             # options for one style only
#   "00": {{train: {{steps: 60}}, refine: {{gamma: 0.5}}}}
"""


def make_mini(
    out: str | Path,
    styles: int = len(drawings.HELD_OUT_STYLES),
    references: int = 3,
    prompts: int = 8,
    size_px: int = 128,
    seed: int = 0,
) -> list[str]:
    """Write OUT/SS/images, OUT/SS/prompt.json and a contest.yaml to begin with.

    Returns the drawn style of each. Prompts are words that the references do not show. Raises
    ValueError for a number out of range, or if `out` holds something already.
    """
    folder = Path(out)
    most = len(drawings.OBJECTS) - 2 * len(REFERENCES) - len(SPACED)
    for name, value, least, limit in (
        ("styles", styles, 1, len(drawings.HELD_OUT_STYLES)),
        ("references", references, 1, len(REFERENCES)),
        ("prompts", prompts, 1, most),
        ("size_px", size_px, 16, 1024),
        ("seed", seed, 0, 2**31),
    ):
        require_whole(name, value, least, limit)
    if os.path.exists(folder) and any(files.require_folder(folder).iterdir()):
        raise ValueError(f"{folder}: is not empty; choose another folder for the contest")
    drawn = drawings.HELD_OUT_STYLES[:styles]
    with filled_folder(folder, last=CONFIG) as made:
        for number, style in enumerate(drawn):
            _write_style(made / f"{number:02d}", number, style, references, prompts, size_px, seed)
        files.write_text(made / CONFIG, YAML.format(root=folder))
    return list(drawn)


def _write_style(folder: Path, number: int, style, references, prompts, size_px, seed) -> None:
    rng = np.random.default_rng([seed, number])
    known = drawings.FAMILIES["animals"] if number == ALIKE else REFERENCES
    shown = [known[i] for i in rng.permutation(len(known))[:references]]
    (folder / IMAGES).mkdir(parents=True)
    for i, thing in enumerate(shown):
        picture = np.asarray(drawings.draw(thing, style, seed * 100 + i, size_px))
        image.save_png(folder / IMAGES / f"{stem(thing, style, i, number)}.png", picture)
    words = {word for thing in shown for word in thing.split()}
    taken = (*REFERENCES, *SPACED, *words)
    others = [thing for thing in drawings.OBJECTS if thing not in taken]
    others = [others[i] for i in rng.permutation(len(others))]
    others.sort(key=lambda thing: thing not in drawings.COMMON_OBJECTS)
    chosen = [word.capitalize() for word in (SPACED[number % 2 * 2], *others)][:prompts]
    order = rng.permutation(len(chosen))
    files.write_json(folder / PROMPTS, {str(i): chosen[j] for i, j in enumerate(order)})


def stem(thing: str, style: str, place: int, number: int) -> str:
    """The file name, without its suffix, of a reference: each of the odd ways in turn."""
    word = thing.replace(" ", "_")
    joined = style.replace(" ", "_")
    ways = (word, f"{word}_", word.capitalize(), f"{joined}_{word}")
    return ways[(place + number) % len(ways)]
