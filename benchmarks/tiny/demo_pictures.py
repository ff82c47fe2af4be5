"""Write the pictures of `jstyle demo` and their provenance: photographs, drawn styles."""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from benchmarks.tiny.photos import HELD_OUT, PHOTOS, open_photo
from jdreambooth import drawings

SIZE_PX = 256
CONTENTS = {  # name: (photograph, left, top, side)
    "cat": ("chelsea", 60, 0, 300),
    "coffee": ("coffee", 110, 0, 400),
    "rocket": ("rocket", 130, 0, 427),
}
STYLES = {  # name: (object, style, seed)
    "stained_glass": ("butterfly", "stained glass", 18),
    "woodcut": ("tree", "woodcut", 6),
    "poster": ("house", "poster", 13),
    "neon": ("apple", "neon", 17),
}
PROVENANCE = """\
# Where the demo's pictures come from

Every file is {size} x {size} px, written by `python -m benchmarks.tiny.demo_pictures`.

| file | what | licence |
|---|---|---|
{rows}

The photograph of the cat was never part of the model's training; the other photographs were.
The style pictures are new drawings (seeds not used in training) in styles that were.
"""


def content(name: str) -> Image.Image:
    photo, left, top, side = CONTENTS[name]
    box = (left, top, left + side, top + side)
    return open_photo(photo).resize((SIZE_PX, SIZE_PX), Image.LANCZOS, box=box)


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, (photo, *_) in CONTENTS.items():
        content(name).save(folder / f"content_{name}.png", optimize=True)
        package, file, licence = {**PHOTOS, **HELD_OUT}[photo]
        rows.append(f"| content_{name}.png | crop of {package}'s {Path(file).name} | {licence} |")
    for name, (subject, style, seed) in STYLES.items():
        picture = drawings.draw(subject, style, -seed, SIZE_PX)
        picture.save(folder / f"style_{name}.png", optimize=True)
        told = f"`jdreambooth.drawings.draw({subject!r}, {style!r}, {-seed}, {SIZE_PX})`"
        rows.append(f"| style_{name}.png | {told} | Apache-2.0, as this project |")
    text = PROVENANCE.format(size=SIZE_PX, rows="\n".join(rows))
    (folder / "PROVENANCE.md").write_text(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("jstyle/models/tiny/demo"))
    write(parser.parse_args().out)


if __name__ == "__main__":
    main()
