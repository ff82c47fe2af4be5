"""The commands of `jdreambooth contest`: words -> plain arguments -> words."""

from __future__ import annotations

import logging
from functools import partial

from jsonargparse import Namespace

from jstyle.console.program import Command, Program
from jstyle.console.words import count, progress_bar, say
from jstyle.sd.printable import error_line

from .. import __version__
from . import parsers

USAGE = """\
usage: jdreambooth contest COMMAND [options]      (... COMMAND --help shows options and examples)

every style of a contest, from references and prompts to a checked submission

{commands}

first steps:
  jdreambooth contest mini --out small
  jdreambooth contest run small --out out --config small/contest.yaml
  jdreambooth contest check out/result --root small
"""


def _names(styles: str | None) -> list[str] | None:
    return None if styles is None else [name.strip() for name in styles.split(",") if name.strip()]


def _run(args: Namespace) -> int:
    from .config import read_config
    from .engines import check_engine
    from .plan import make_plan, plan_text
    from .run import make_record, make_tasks, run_contest

    check_engine(args.engine, args.jobs)
    config = read_config(args.config).with_model(args.model, args.prediction, args.tokenizer)
    record = make_record(args.root, args.out, config)
    tasks = make_tasks(record, _names(args.styles), args.device)
    if args.dry_run:
        print(plan_text(make_plan(tasks), args.jobs or 1))
        return 0
    bar = progress_bar(args, "step")
    done = run_contest(record, tasks, args.engine, args.jobs, partial(say, args), bar)
    failed = [outcome.style for outcome in done if outcome.error is not None]
    made = sum(len(outcome.made) for outcome in done)
    say(args, f"{count(made, 'stage')} of {count(len(done), 'style')} done; {record.out.result}")
    if failed:
        raise RuntimeError(f"{count(len(failed), 'style')} failed: {', '.join(failed)}")
    return 0


def _tune(args: Namespace) -> int:
    from .config import read_config
    from .engines import check_engine
    from .judging import JudgeConfig
    from .tune import budget_of, make_record, make_search, make_searches, told, tune

    check_engine(args.engine, args.jobs)
    budget = budget_of(args.budget)
    config = read_config(args.config).with_model(args.model, args.prediction, args.tokenizer)
    record = make_record(args.root, args.out, config)
    names = ("trainings", "candidates", "counts", "seed")
    judge = JudgeConfig(by=args.by, draws=args.draws)
    more = {name: args[name] for name in names}
    search = make_search(budget, judge, args.words, more, args.methods)
    tasks = make_searches(record, search, args.prompts, _names(args.styles), args.device, args.jobs)
    if args.dry_run:
        print("\n".join(map(told, tasks)))
        return 0
    bar = progress_bar(args, "step")
    done = tune(record, tasks, args.engine, args.jobs, partial(say, args), bar)
    failed = [outcome.style for outcome in done if outcome.error is not None]
    if failed:
        raise RuntimeError(f"{count(len(failed), 'style')} failed: {', '.join(failed)}")
    say(args, f"wrote {record.out.folder / 'contest.yaml'}")
    return 0


def _mini(args: Namespace) -> int:
    from .mini import make_mini

    names = ("out", "styles", "references", "prompts", "size_px", "seed")
    for number, style in enumerate(make_mini(**{name: args[name] for name in names})):
        say(args, f"{number:02d}  {style}")
    say(args, f"wrote {args.out}")
    return 0


def _checked(args: Namespace):
    """The contest, or None after printing every problem of the submission."""
    from jstyle.score.layout import check_result, read_contest

    contest = read_contest(args.root, _names(args.styles))
    problems = check_result(args.result, contest)
    for problem in problems:
        print(error_line(problem))
    if problems:
        wanted = count(contest.num_prompts, "picture")
        say(args, f"{count(len(problems), 'problem')}; wanted are {wanted}")
    return None if problems else contest


def _check(args: Namespace) -> int:
    contest = _checked(args)
    if contest is None:
        return 1
    pictures, styles = count(contest.num_prompts, "picture"), count(len(contest.styles), "style")
    say(args, f"{args.result}: {pictures} of {styles}, all right")
    return 0


def _pack(args: Namespace) -> int:
    from .pack import pack

    contest = _checked(args)
    if contest is None:
        return 1
    names = pack(args.result, contest, args.out, args.inside, args.overwrite)
    say(args, f"wrote {args.out} with {count(len(names), 'picture')}")
    return 0


def _grade(args: Namespace) -> int:
    from jstyle.commands.score import settings_of

    from .grading.grade import grade
    from .grading.tables import GRADED

    settings = settings_of(
        args.metrics, args.corrected, args.weights, args.words, args.cache, args.device
    )
    found = grade(
        args.submissions,
        args.root,
        args.out,
        settings,
        _names(args.styles),
        args.by,
        partial(say, args),
        progress_bar(args, "submission"),
        args.overwrite,
    )
    good = sum(one["state"] == GRADED for one in found)
    say(args, f"{good} of {count(len(found), 'submission')} graded; wrote {args.out}")
    return 0


def _status(args: Namespace) -> int:
    from .plan import as_json, plan_text
    from .status import status

    plan, table = status(args.out)
    print(as_json(plan) if args.json else f"{table}\n{plan_text(plan).splitlines()[-1]}")
    return 0


def _report(args: Namespace) -> int:
    from .comparison import write_comparison
    from .report import write_report

    how = (args.size_px, progress_bar(args, "style"), args.overwrite)
    if len(args.out) > 1:
        page = write_comparison(args.out, args.page, args.scores, *how)
    else:
        if len(args.scores) > 1:
            raise ValueError(f"scores: {len(args.scores)} files for one run")
        page = write_report(args.out[0], args.page, (args.scores or [None])[0], *how)
    say(args, f"wrote {page}")
    return 0


PROGRAM = Program(
    name="jdreambooth contest",
    version=__version__,
    usage=USAGE,
    commands={
        "run": Command("train and paint every style", parsers.run, _run),
        "tune": Command("search every style for what scores best", parsers.tune, _tune),
        "mini": Command("write a small contest to try things on", parsers.mini, _mini),
        "check": Command("is a submission complete and right", parsers.check, _check),
        "pack": Command("a submission as a zip file", parsers.pack, _pack),
        "grade": Command("many submissions, checked, scored and ranked", parsers.grade, _grade),
        "status": Command("how far a run is", parsers.status, _status),
        "report": Command("a run, or several, as one page to look at", parsers.report, _report),
    },
    short_of_memory="a smaller size_px or batch, or gradient_checkpointing: true, needs less",
    level=logging.INFO,
    told="every style of a contest: run, check, pack, grade",
)
