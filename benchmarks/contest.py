"""On a drawn contest: a count per style against one count for all, and StyleID on DreamBooth.

    python -m benchmarks.contest --out FOLDER --data FOLDER

Runs `jdreambooth contest mini` and trains every style once. Each saved count then paints the whole
contest; so does the count that `pick` chooses for each style, alone and refined with StyleID. Every
submission is measured in the same way:

* `hist`: the contest's colour histograms, as `jstyle score --hist-only`;
* `style`: distance in colour and texture to drawings of the same style that are no references, in
  parts of the untrained model's;
* `named`: share of the pictures in which the judge sees the word that was asked for;
* `in_five`: share in which it has that word among its first five, as the contest's CLIP recall;
* `copied`: share that are copies of a reference;
* `product`: hist x in_five, built like the contest's score: a part for the style times one for
  the content.

--data is the folder of the training drawings, for the judge (benchmarks/tiny/classifier.py), which
never saw the styles of this contest. Writes figures.json, table.md and pictures.png.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.dreambooth import drawn_style, style_part
from benchmarks.tiny import classifier
from jdreambooth import drawings, measures
from jdreambooth.contest.config import make_config, read_config
from jdreambooth.contest.manifest import FILE
from jdreambooth.contest.mini import CONFIG, make_mini
from jdreambooth.contest.run import make_record, make_tasks, run_contest
from jstyle.score.histogram import hist_scores
from jstyle.score.layout import Contest, read_contest, result_path
from jstyle.score.pictures import read_rgb
from jstyle.sd import files, image
from jstyle.sd.pipeline import StableDiffusion
from jstyle.sd.startup import jt

UNTRAINED, PICK, REFINED = "untrained", "pick", "pick + StyleID"
SHOWN = 4  # prompts of a style in the picture
MEASURES = ("hist", "style", "named", "in_five", "copied", "product")


def variants(counts: list[int]) -> dict[str, dict]:
    """Title -> what differs from the configuration of the contest."""
    fixed = {f"{n} steps": {"pick": False, "generate": {"at": n}} for n in counts}
    ends = {PICK: {}, REFINED: {"refine": "styleid"}}
    return {UNTRAINED: {"train": False, "pick": False}, **fixed, **ends}


def paint_all(folder: Path, model: str | None, jobs: int) -> dict[str, Path]:
    """Title -> folder of the submission. What is there is kept."""
    root, out = folder / "contest", folder / "out"
    config = read_config(root / CONFIG).with_model(model)
    made, base = {}, config.values["defaults"]
    for title, change in variants(base["train"]["save_at"]).items():
        defaults = dict(base)
        for section, value in change.items():
            both = isinstance(value, dict) and isinstance(base.get(section), dict)
            defaults[section] = {**base[section], **value} if both else value
        made[title] = folder / "results" / title.replace(" ", "_")
        if made[title].exists():
            continue
        values = {**config.values, "defaults": defaults}
        record = make_record(root, out, make_config(values, title, root))
        done = run_contest(record, make_tasks(record), jobs=jobs, bar=progress)
        failed = [outcome.error for outcome in done if outcome.error is not None]
        if failed:
            raise RuntimeError(f"{title}: {failed[0]}")
        shutil.copytree(out / "result", made[title])
    return made


def progress(total: int) -> tqdm:
    return tqdm(total=total, mininterval=5)


def pictures_of(contest: Contest, result: Path) -> dict[str, np.ndarray]:
    """Style -> uint8 (prompts, S, S, 3)."""
    return {
        style.name: np.stack([read_rgb(result_path(result, style.name, p)) for p in style.prompts])
        for style in contest.styles
    }


class Ruler:
    """What the pictures of each style are measured with."""

    def __init__(self, contest: Contest, drawn: list[str], sd: StableDiffusion, judge):
        self.contest, self.sd, self.judge = contest, sd, judge
        self.wanted = {
            style.name: drawn_style(manner)
            for style, manner in zip(contest.styles, drawn, strict=True)
        }
        self.references = {
            style.name: self.latents(np.stack([read_rgb(path) for path in style.references]))
            for style in contest.styles
        }

    def latents(self, pictures: np.ndarray) -> np.ndarray:
        return self.sd.encode_image(jt.array(image.from_uint8(pictures))).numpy()

    def measure(self, result: Path, untrained: dict[str, np.ndarray]) -> dict[str, dict]:
        """Style -> measure -> value."""
        hist, painted = hist_scores(self.contest, result), pictures_of(self.contest, result)
        found = {}
        for style in self.contest.styles:
            pictures, before = painted[style.name], untrained[style.name]
            wanted = [drawings.OBJECTS.index(prompt.lower()) for prompt in style.prompts]
            named, in_five = (
                float(np.mean(classifier.sees(self.judge, pictures, wanted, n))) for n in (1, 5)
            )
            gaps = measures.to_training(self.latents(pictures), self.references[style.name])
            found[style.name] = {
                "hist": hist[style.name],
                "style": style_part(pictures, before, self.wanted[style.name]),
                "named": named,
                "in_five": in_five,
                "copied": measures.copied(gaps),
                "product": hist[style.name] * in_five,
            }
        return found


def chosen_counts(folder: Path) -> dict[str, dict]:
    """Style -> what `pick` said: the count that was used, and the recommended one or None."""
    found = {}
    for path in sorted((folder / "out" / "styles").glob(f"*/pick/{FILE}")):
        facts = json.loads(path.read_text())["facts"]
        found[path.parent.parent.name] = facts
    return found


def as_table(figures: dict[str, dict[str, float]]) -> str:
    """A Markdown table, a row per submission."""
    lines = ["| pictures | HIST | style distance | named | in five | copies | HIST x in five |"]
    lines.append("|---" * 7 + "|")
    for title, row in figures.items():
        cells = [f"{row['hist']:.3f}", f"{row['style']:.2f}", f"{row['named']:.0%}"]
        cells += [f"{row['in_five']:.0%}", f"{row['copied']:.0%}", f"{row['product']:.3f}"]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def as_picture(contest: Contest, shown: dict[str, Path]):
    """References first, then a column per submission; SHOWN prompts of every style."""
    rows, labels = [], []
    painted = {title: pictures_of(contest, path) for title, path in shown.items()}
    for style in contest.styles:
        for i, prompt in enumerate(style.prompts[:SHOWN]):
            reference = style.references[i] if i < len(style.references) else None
            first = None if reference is None else read_rgb(reference)
            rows.append([first, *(pictures[style.name][i] for pictures in painted.values())])
            labels.append(f"{style.name} {prompt}")
    return image.grid(rows, ["reference", *shown], labels)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="the training drawings")
    parser.add_argument("--model", help="another than the contest's")
    parser.add_argument("--styles", type=int, default=len(drawings.HELD_OUT_STYLES))
    parser.add_argument("--prompts", type=int, default=12, help="of every style")
    parser.add_argument("--jobs", type=int, default=1, help="processes that train and paint")
    parser.add_argument("--seed", type=int, default=0, help="of the contest")
    args = parser.parse_args()
    started, root = time.time(), args.out / "contest"
    drawn = drawings.HELD_OUT_STYLES[: args.styles]
    if not root.exists():
        make_mini(root, args.styles, prompts=args.prompts, seed=args.seed)
    submissions = paint_all(args.out, args.model, args.jobs)
    contest = read_contest(root)
    judge, accuracy = classifier.trained_on(args.data)
    sd = StableDiffusion.from_pretrained(args.model or "tiny")
    ruler = Ruler(contest, drawn, sd, judge)
    untrained = pictures_of(contest, submissions[UNTRAINED])
    styles = {title: ruler.measure(path, untrained) for title, path in submissions.items()}
    means = {
        title: {m: float(np.mean([row[m] for row in rows.values()])) for m in MEASURES}
        for title, rows in styles.items()
    }
    figures = {"means": means, "styles": styles, "picked": chosen_counts(args.out)}
    figures |= {"drawn": drawn, "judge_accuracy": accuracy}
    figures["seconds"] = round(time.time() - started)
    files.write_json(args.out / "figures.json", figures)
    (args.out / "table.md").write_text(as_table(means) + "\n")
    image.save_png(args.out / "pictures.png", np.asarray(as_picture(contest, submissions)))
    print(as_table(means))


if __name__ == "__main__":
    main()
