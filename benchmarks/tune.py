"""On a drawn contest: what `contest tune` gains over `pick` and StyleID, for three times the work.

    python -m benchmarks.tune --out FOLDER --data FOLDER --seed 0

Three submissions for the same prompts: of the untrained model, of `pick` with StyleID after it (the
plain run), and of the contest.yaml that `contest tune --budget 3x` finds, beginning with the plain
run's configuration. Its trials paint prompts of other styles, with other seeds. Measured is as in
contest.py, by a classifier that neither the search nor the models know. What is there is kept, so a
run that was stopped goes on. Writes figures.json and table.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np

from benchmarks.contest import MEASURES, REFINED, UNTRAINED, Ruler, as_table, pictures_of, progress
from benchmarks.tiny import classifier
from jdreambooth import drawings
from jdreambooth.contest.config import ContestConfig, make_config, read_config
from jdreambooth.contest.judging import JudgeConfig
from jdreambooth.contest.mini import CONFIG, make_mini
from jdreambooth.contest.order import stages_of
from jdreambooth.contest.probe import work_of
from jdreambooth.contest.run import make_record, make_tasks, run_contest
from jdreambooth.contest.tune import TUNED, budget_of, make_search, make_searches, tune
from jstyle.score.layout import Contest, read_contest
from jstyle.sd import files
from jstyle.sd.pipeline import StableDiffusion

FOUND = "tune"
HOW = {"trainings": 2, "candidates": 4, "counts": 1}


def configurations(root: Path) -> dict[str, ContestConfig]:
    """Title -> the configuration of a plain run."""
    config = read_config(root / CONFIG)
    base = config.values["defaults"]
    changes = {
        UNTRAINED: {"train": False, "pick": False, "refine": "none"},
        REFINED: {"refine": "styleid"},
    }
    return {
        title: make_config({**config.values, "defaults": {**base, **change}}, title, root)
        for title, change in changes.items()
    }


def painted(config: ContestConfig, root: Path, out: Path, target: Path, names, jobs: int) -> float:
    """Run a configuration, copy its submission; returns the work, in evaluations."""
    record = make_record(root, out, config)
    tasks = make_tasks(record, names)
    if not target.exists():
        done = run_contest(record, tasks, jobs=jobs, bar=progress)
        failed = [outcome.error for outcome in done if outcome.error is not None]
        if failed:
            raise RuntimeError(failed[0])
        shutil.copytree(record.out.result, target)
    return sum(work_of(stage) for task in tasks for stage in stages_of(task))


def searched(root: Path, out: Path, names, args) -> ContestConfig:
    """The configuration that the search comes to."""
    record = make_record(root, out, configurations(root)[REFINED])
    if not (out / TUNED).exists():
        how = {**HOW, "seed": args.seed}
        search = make_search(budget_of(args.budget), JudgeConfig(draws=2), None, how)
        tasks = make_searches(record, search, 6, names, "auto", args.jobs)
        done = tune(record, tasks, jobs=args.jobs, bar=progress)
        failed = [outcome.error for outcome in done if outcome.error is not None]
        if failed:
            raise RuntimeError(failed[0])
    return read_config(out / CONFIG)


def measured(contest: Contest, drawn: list[str], submissions: dict[str, Path], data: Path):
    """Title -> style -> measure -> value, and the judge's accuracy."""
    judge, accuracy = classifier.trained_on(data)
    ruler = Ruler(contest, drawn, StableDiffusion.from_pretrained("tiny"), judge)
    untrained = pictures_of(contest, submissions[UNTRAINED])
    return {title: ruler.measure(path, untrained) for title, path in submissions.items()}, accuracy


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="the training drawings")
    parser.add_argument("--prompts", type=int, default=12, help="of every style")
    parser.add_argument("--styles", help="some of them, such as 00,02")
    parser.add_argument("--budget", default="3x")
    parser.add_argument("--jobs", type=int, default=1, help="processes that train and paint")
    parser.add_argument("--seed", type=int, default=0, help="of the contest and of the search")
    args = parser.parse_args()
    root, results = args.out / "contest", args.out / "results"
    if not root.exists():
        make_mini(root, prompts=args.prompts, seed=args.seed)
    names = args.styles.split(",") if args.styles else None
    work, submissions = {}, {}
    for title, config in configurations(root).items():
        submissions[title] = results / title.replace(" ", "_")
        out = args.out / f"out {title}".replace(" ", "_")
        work[title] = painted(config, root, out, submissions[title], names, args.jobs)
    config = searched(root, args.out / FOUND, names, args)
    submissions[FOUND] = results / FOUND
    painted(config, root, args.out / FOUND, submissions[FOUND], names, args.jobs)
    told = json.loads((args.out / FOUND / TUNED).read_text())
    work[FOUND] = told["work"]
    contest = read_contest(root, names)
    drawn = [drawings.HELD_OUT_STYLES[int(style.name)] for style in contest.styles]
    styles, accuracy = measured(contest, drawn, submissions, args.data)
    means = {
        title: {m: float(np.mean([row[m] for row in rows.values()])) for m in MEASURES}
        for title, rows in styles.items()
    }
    figures = {"means": means, "styles": styles, "work": work, "search": told["means"]}
    figures |= {"judge_accuracy": accuracy, "seed": args.seed, "budget": args.budget}
    files.write_json(args.out / "figures.json", figures)
    (args.out / "table.md").write_text(as_table(means) + "\n")
    print(as_table(means))


if __name__ == "__main__":
    main()
