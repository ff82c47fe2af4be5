"""Measure the shipped model on pictures it never saw; the figures of its model card come from here.

    python -m benchmarks.tiny.evaluate --photos FOLDER --styles FOLDER --data FOLDER --out FOLDER

--photos and --styles hold four pictures each; --data holds the training drawings, for the judge
that names generated objects, and keeps the judge. Asked for are the objects drawn most often,
with the steps and the guidance that `jstyle generate` has by default.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.tiny import classifier
from jdreambooth import drawings
from jstyle import JStyleID, StableDiffusion, StyleConfig
from jstyle.commands.reconstruct import psnr_db
from jstyle.sd import image as image_files
from jstyle.sd.startup import jt

GENERATED_OBJECTS = 20
SEEDS_PER_OBJECT = 5


def colour(image: np.ndarray) -> np.ndarray:
    """(1, 3, H, W) in [-1, 1] -> RGB mean and 3 x RGB covariance, of pixels in [0, 1]."""
    pixels = (image[0].reshape(3, -1) + 1) / 2
    return np.concatenate([pixels.mean(1), 3 * np.cov(pixels).reshape(-1)])


def edges(image: np.ndarray) -> np.ndarray:
    """Gradient magnitude of the grey image at 64 px, mean removed, unit length."""
    grey = image[0].mean(0)
    k = grey.shape[0] // 64
    grey = grey.reshape(64, k, 64, k).mean((1, 3))
    dy, dx = np.gradient(grey)
    magnitude = np.hypot(dx, dy)
    magnitude -= magnitude.mean()
    return (magnitude / np.linalg.norm(magnitude)).reshape(-1)


def round_trips(styler: JStyleID, images: list[np.ndarray], cfg: StyleConfig) -> dict[str, float]:
    """Mean PSNR of the autoencoder, and of inversion and back against the autoencoder's result."""
    vae, back = [], []
    for image in images:
        with jt.no_grad():
            plain = styler.sd.decode(styler.sd.encode_image(jt.array(image))).numpy()
        vae.append(psnr_db(plain, image))
        back.append(psnr_db(styler.reconstruct(image, cfg).numpy(), plain))
    return {"vae_psnr_db": float(np.mean(vae)), "inversion_psnr_db": float(np.mean(back))}


def stylise_all(styler, contents, styles, cfg) -> list[list[np.ndarray]]:
    """results[content][style]."""
    noise_c = [styler.invert(c, cfg, "q") for c in contents]
    noise_s = [styler.invert(s, cfg, "kv") for s in styles]
    return [[styler.transfer(c, s, cfg).numpy() for s in noise_s] for c in tqdm(noise_c)]


def style_measures(contents, styles, results) -> dict[str, float]:
    """Colour ratio (median), own content by edges, own style by colours; see the model card."""
    ratios, own_content, own_style = [], 0, 0
    style_colours = [colour(s) for s in styles]
    content_edges = np.stack([edges(c) for c in contents])
    for i, row in enumerate(results):
        for j, result in enumerate(row):
            before = np.linalg.norm(colour(contents[i]) - style_colours[j])
            distances = [np.linalg.norm(colour(result) - s) for s in style_colours]
            ratios.append(distances[j] / before)
            own_style += int(np.argmin(distances) == j)
            own_content += int(np.argmax(content_edges @ edges(result)) == i)
    return {
        "colour_ratio_median": float(np.median(ratios)),
        "own_content": own_content,
        "own_style": own_style,
        "pairs": len(ratios),
    }


def generation(sd: StableDiffusion, data: Path, steps: int, guidance: float):
    """Share of generated pictures whose object the judge names, its own accuracy, and a sample."""
    judge, accuracy = classifier.trained_on(data)
    names = drawings.COMMON_OBJECTS[:GENERATED_OBJECTS]
    hits, shown = [], []
    for name in tqdm(names, desc="generate"):
        prompts = [drawings.caption(name)] * SEEDS_PER_OBJECT
        images = image_files.to_uint8(
            sd.generate(prompts, seed=0, num_steps=steps, guidance=guidance).numpy()
        )
        hits += list(classifier.sees(judge, images, drawings.OBJECTS.index(name)))
        shown.append(list(images))
    figures = {
        "named_share": float(np.mean(hits)),
        "judge_accuracy": accuracy,
    }
    return figures, list(names), shown


def load_folder(styler, folder: Path, cfg) -> list[np.ndarray]:
    return [styler.load(path, cfg) for path in image_files.list_images(folder)]


def picture(image: np.ndarray):
    return image_files.to_uint8(image)[0]


def style_grid(contents, styles, results):
    rows = [[None, *map(picture, styles)]]
    rows += [[picture(c), *map(picture, row)] for c, row in zip(contents, results, strict=True)]
    labels = ["content", *[f"style {j + 1}" for j in range(len(styles))]]
    return image_files.grid(rows, labels)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--styles", type=Path, required=True)
    parser.add_argument(
        "--data", type=Path, help="folder of the training drawings; without: no judge"
    )
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance", type=float, default=7.5)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    started = time.time()
    styler = JStyleID(StableDiffusion.from_pretrained(args.model))
    cfg = StyleConfig.preset("paper", steps=args.steps)
    contents, styles = (load_folder(styler, f, cfg) for f in (args.photos, args.styles))
    figures = {"steps": args.steps, **round_trips(styler, contents, cfg)}
    results = stylise_all(styler, contents, styles, cfg)
    figures |= style_measures(contents, styles, results)
    style_grid(contents, styles, results).save(args.out / "styles.png")
    if args.data is not None:
        named, names, shown = generation(styler.sd, args.data, args.steps, args.guidance)
        figures |= named
        columns = [f"seed {i}" for i in range(SEEDS_PER_OBJECT)]
        image_files.grid(shown, columns, names).save(args.out / "generated.png")
    figures["seconds"] = round(time.time() - started, 1)
    print(json.dumps(figures, indent=2))
    (args.out / "figures.json").write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
