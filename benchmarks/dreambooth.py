"""Does DreamBooth learn a style that the shipped model never saw, and keep the rest?

    python -m benchmarks.dreambooth --out FOLDER [--style thermal]

Eight drawings in a style that was kept out of the training are learned twice: without and with
prior preservation. Then three models (untrained, both results) paint

* objects that were not among the eight, in the style's words: `style` is how far their colour and
  texture are from the style's, in parts of the untrained model's distance;
* the plain class prompts: `drift` is how far the same seeds' pictures have moved from the untrained
  model's, root mean square of pixels in [0, 1].

Writes figures.json and pictures.png into the folder.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from jdreambooth import drawings, measures, runs
from jdreambooth.config import TrainConfig
from jdreambooth.generate import paint
from jdreambooth.make_drawings import CAPTIONS, make_drawings
from jdreambooth.recipe import Recipe
from jdreambooth.train import train
from jstyle.sd import files, image
from jstyle.sd.pipeline import StableDiffusion

LEARNED = ("house", "apple", "car", "umbrella", "mushroom", "bell", "fish", "bottle")
NOT_LEARNED = ("star", "tree", "cup", "heart", "flower", "butterfly")
PLAIN = ("star", "cup", "tree", "house", "heart", "car")  # the class prompts
SEEDS = 2
REFERENCES = 24  # drawings in the style that the distance is measured to
TRAINING = {
    "rank": 16, "targets": "feed-forward", "learning_rate": 2e-3, "batch": 4, "warmup_steps": 10,
    "checkpoint_every": 0, "sample_every": None,
}  # fmt: skip
PRIOR = {"prior_weight": 1.0, "num_class_images": 48, "class_steps": 25, "class_guidance": 1.0}
WITHOUT, WITH = "without prior", "with prior"


def plain_prompts() -> list[str]:
    return [drawings.caption(name) for name in PLAIN]


def learn(model: str, folder: Path, style: str, steps: int) -> dict[str, tuple[str, int]]:
    """Train both runs. Returns title -> run folder and seconds."""
    pictures = folder / "references"
    make_drawings(pictures, ",".join(LEARNED), style, len(LEARNED))
    done = {}
    for title in (WITHOUT, WITH):
        prior = PRIOR | {"class_prompt": plain_prompts()} if title == WITH else {}
        cfg = TrainConfig(
            model=model, instance_dir=str(pictures), captions=str(pictures / CAPTIONS),
            out=str(folder / title.replace(" ", "_")), resume="auto", steps=steps,
            **TRAINING, **prior,
        )  # fmt: skip
        with tqdm(desc=title, unit="step") as bar:
            report = train(cfg, lambda stage, done, total, values, bar=bar: bar.update())
        done[title] = (cfg.out, round(report.seconds))
    return done


def paint_all(sd, prompts: list[str], recipe: Recipe) -> np.ndarray:
    """uint8 (prompts, SEEDS, S, S, 3)."""
    size = sd.picture_size
    seeds = range(recipe.seed, recipe.seed + SEEDS)
    return np.array([[paint(sd, text, seed, recipe, size) for seed in seeds] for text in prompts])


def drawn_style(name: str) -> measures.Style:
    """Of drawings in a style, other ones than are learned from."""
    objects = drawings.OBJECTS[:REFERENCES]
    drawn = [np.asarray(drawings.draw(o, name, 1000 + i)) for i, o in enumerate(objects)]
    return measures.style(as_model(np.array(drawn)))


def style_part(pictures: np.ndarray, untrained: np.ndarray, wanted: measures.Style) -> float:
    """Style distance of pictures in parts of the untrained model's: mean of colour and texture."""

    def distance(x):
        return measures.style_distance(measures.style(as_model(x)), wanted)

    pairs = zip(distance(pictures), distance(untrained), strict=True)
    return float(np.mean([after / before for after, before in pairs]))


def as_model(pictures: np.ndarray) -> np.ndarray:
    """uint8 (..., S, S, 3) -> (N, 3, S, S) in [-1, 1]."""
    return image.from_uint8(pictures.reshape(-1, *pictures.shape[-3:]))


def drift(pictures: np.ndarray, untrained: np.ndarray) -> float:
    """Mean over pictures of the root mean square difference, pixels in [0, 1]."""
    gaps = (as_model(pictures) - as_model(untrained)) / 2
    return float(np.sqrt((gaps**2).mean((1, 2, 3))).mean())


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--style", default="thermal", choices=drawings.HELD_OUT_STYLES)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--guidance", type=float, default=4.0)
    args = parser.parse_args()
    started = time.time()
    learned = learn(args.model, args.out, args.style, args.steps)
    styled = [drawings.caption(name, args.style) for name in NOT_LEARNED]
    recipe = Recipe(seed=0, steps=25, guidance=args.guidance)
    models = {"untrained": StableDiffusion.from_pretrained(args.model)}
    models |= {t: runs.load_model(runs.open_run(f), args.steps) for t, (f, _) in learned.items()}
    painted = {
        title: [paint_all(sd, prompts, recipe) for prompts in (styled, plain_prompts())]
        for title, sd in models.items()
    }
    before, wanted = painted["untrained"], drawn_style(args.style)
    figures = {"style": args.style, "steps": args.steps, "guidance": args.guidance}
    for title in learned:
        new, plain = painted[title]
        figures[title] = {
            "style": round(style_part(new, before[0], wanted), 3),
            "drift": round(drift(plain, before[1]), 4),
            "training_seconds": learned[title][1],
        }
    figures["drift_ratio"] = round(figures[WITH]["drift"] / figures[WITHOUT]["drift"], 3)
    figures["seconds"] = round(time.time() - started)
    files.write_json(args.out / "figures.json", figures)
    rows = [[row[0] for part in painted[title] for row in part] for title in models]
    columns = [*(f"{name} + style" for name in NOT_LEARNED), *plain_prompts()]
    whole = image.grid(rows, columns, list(models))
    image.save_png(args.out / "pictures.png", np.asarray(whole))
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
