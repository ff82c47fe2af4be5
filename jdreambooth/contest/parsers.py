"""The options of each command of `jdreambooth contest`."""

from __future__ import annotations

from jstyle.console.parser import Parser, make_parser
from jstyle.console.shared_options import (
    add_device,
    add_dtype,
    add_overwrite,
    add_single_file,
)
from jstyle.methods import DEFAULT
from jstyle.score.total import METRICS
from jstyle.sd import number_types

from .. import drawings
from .engines import ENGINES
from .judging import BY
from .plans import NONE


def _parser(command: str, description: str, examples: str) -> Parser:
    return make_parser(f"jdreambooth contest {command}", description, examples)


def _add_styles(parser: Parser) -> None:
    parser.add_argument(
        "--styles", type=str | None, default=None, help="some of them, such as 00,05,11"
    )


def _add_submission(parser: Parser) -> None:
    parser.add_argument("result", type=str, help="the submission: RESULT/SS/PROMPT.png")
    parser.add_argument("--root", type=str, required=True, help="the folder of the contest")


def _add_engine(parser: Parser) -> None:
    parser.add_argument(
        "--jobs",
        type=int | None,
        default=None,
        help="styles that are worked on at once (default: 1; with ray one per GPU)",
    )
    parser.add_argument(
        "--engine", type=str, default=ENGINES[0], help="local, or ray: on a Ray cluster"
    )


def _add_model(parser: Parser) -> None:
    parser.add_argument(
        "--model", type=str | None, default=None, help="instead of the configuration's model"
    )
    add_single_file(parser)
    told = f"{number_types.HELP} (the configuration's, or auto); trainings have their own"
    add_dtype(parser, told, None)


def run() -> Parser:
    parser = _parser(
        "run",
        "Train, choose a count, paint and refine every style of a contest. What is finished stays: "
        "a second run does only what is missing or changed, and one that was killed goes on. The "
        "submission is OUT/result. Exit code 1 if a style failed.\n\n"
        "A configuration is YAML: model, variant, prediction, tokenizer, size_px and dtype for "
        "all styles; defaults, and under styles what differs for one. They hold the sections "
        "train, pick, generate (the options of "
        'these commands) and refine ("styleid", or the options of jstyle stylize with style_image '
        "or style_seed). candidates in generate paints several pictures per prompt, of which the "
        "judge (section choose) takes the best; prompts and words hold what differs for single "
        "prompts: at, seed, text, negative, strength, init, style_image (rotate, nearest, seed or "
        'a name), method. "{style}" in a text stands for the style\'s name.',
        "  jdreambooth contest run data/B --out out --config contest.yaml\n"
        "  jdreambooth contest run data/B --out out --config contest.yaml --dry-run\n"
        "  jdreambooth contest run data/B --out out --styles 00,05,11 --jobs 2 --model sd21\n",
    )
    parser.add_argument("root", type=str, help="the contest: ROOT/SS/images, ROOT/SS/prompt.json")
    parser.add_argument("--out", type=str, required=True, help="folder for everything that is made")
    parser.add_argument(
        "--config", type=str | None, default=None, help="a YAML file (default: all at defaults)"
    )
    _add_styles(parser)
    _add_engine(parser)
    _add_model(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="print what there is to do, and an estimate"
    )
    add_device(parser)
    return parser


def tune() -> Parser:
    parser = _parser(
        "tune",
        "Search every style for the count, rate, rank, prior weight, template, start, sampler, "
        "method and its strength that score best, then its prompts for seeds, counts and words, "
        "and write OUT/contest.yaml, which `contest run` repeats. Trials paint other prompts with "
        "other seeds than those that are reported; OUT/tune.json tells them all, and how the best "
        "one does where no trial has looked. A search that was killed goes on. Needs Optuna "
        "(pip install 'jstyle[tune]').",
        "  jdreambooth contest tune data/B --out out --budget 2h\n"
        "  jdreambooth contest tune data/B --out out --budget 40 --config contest.yaml --by hist\n"
        "  jdreambooth contest run data/B --out out --config out/contest.yaml\n",
    )
    parser.add_argument("root", type=str, help="the contest: ROOT/SS/images, ROOT/SS/prompt.json")
    parser.add_argument("--out", type=str, required=True, help="folder for everything that is made")
    parser.add_argument(
        "--budget",
        type=str,
        default="2h",
        help="time for all styles together (90m, 2h), counted as what the work took; how many "
        "trials every style gets (40); or the work of so many runs of the configuration (3x), in "
        "evaluations of the network",
    )
    parser.add_argument(
        "--config", type=str | None, default=None, help="a contest.yaml to begin with"
    )
    parser.add_argument(
        "--by",
        type=str,
        default=BY[0],
        help="score: the contest's formula where all its weights are there, else HIST times what "
        "the untrained model recognises; full: the formula or nothing; hist; recognised",
    )
    parser.add_argument("--draws", type=int, default=2, help="noises per picture in recognition")
    parser.add_argument("--prompts", type=int, default=6, help="that every trial paints")
    parser.add_argument("--trainings", type=int, default=2, help="of every style, at most")
    parser.add_argument(
        "--candidates", type=int, default=4, help="seeds that every prompt has to choose from"
    )
    parser.add_argument("--counts", type=int, default=2, help="saved counts it has to choose from")
    parser.add_argument(
        "--methods",
        type=str,
        default=f"{NONE},{DEFAULT}",
        help="of refine, tried beside the configuration's own: names of jstyle's methods, and none",
    )
    parser.add_argument(
        "--words",
        type=str | None,
        default=None,
        help='a YAML file of words to try for prompts, "Ring: [gold ring, jewel]"',
    )
    parser.add_argument("--seed", type=int, default=0, help="of the search")
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be tried, and with which prompts"
    )
    _add_styles(parser)
    _add_engine(parser)
    _add_model(parser)
    add_device(parser)
    return parser


def mini() -> Parser:
    parser = _parser(
        "mini",
        "Write a small contest in the contest's format, drawn in styles that the shipped model "
        "does not know, and a contest.yaml to begin with.",
        "  jdreambooth contest mini --out small\n"
        "  jdreambooth contest run small --out out --config small/contest.yaml\n",
    )
    parser.add_argument("--out", type=str, required=True, help="folder for the contest")
    most = len(drawings.HELD_OUT_STYLES)
    parser.add_argument("--styles", type=int, default=most, help="how many")
    parser.add_argument("--references", type=int, default=3, help="pictures per style")
    parser.add_argument("--prompts", type=int, default=8, help="per style")
    parser.add_argument("--size-px", type=int, default=128, help="side of the references")
    parser.add_argument("--seed", type=int, default=0, help="another one draws other pictures")
    return parser


def check() -> Parser:
    parser = _parser(
        "check",
        "Is a submission complete: every style and prompt once, names verbatim, RGB, one size, "
        "nothing else, readable. Prints every problem; exit code 1 if there are any.",
        "  jdreambooth contest check out/result --root data/B\n",
    )
    _add_submission(parser)
    _add_styles(parser)
    return parser


def pack() -> Parser:
    parser = _parser(
        "pack",
        "Write a submission as a zip file. Refuses what check refuses. The same pictures give the "
        "same bytes.",
        "  jdreambooth contest pack out/result --root data/B --out submission.zip\n",
    )
    _add_submission(parser)
    _add_styles(parser)
    parser.add_argument("--out", type=str, required=True, help="a .zip file")
    parser.add_argument(
        "--inside", type=str, default="", help="a folder in the zip that holds the styles"
    )
    add_overwrite(parser)
    return parser


def grade() -> Parser:
    parser = _parser(
        "grade",
        "Grade many submissions: every zip and folder in a folder is checked, scored and ranked. "
        "OUT.csv gets a row for each, OUT-lines.csv a row for each problem, and "
        "OUT-submissions/NAME.json all values. What is wrong with one stops no other; zips are "
        "read without unpacking what they should not hold. A grading that was stopped goes on, "
        "and one whose submissions changed does only those.",
        "  jdreambooth contest grade handed-in --root data/B --out grades.csv\n"
        "  jdreambooth contest grade handed-in --root data/B --out grades.csv --metrics hist\n",
    )
    parser.add_argument("submissions", type=str, help="a folder of zip files and folders")
    parser.add_argument("--root", type=str, required=True, help="the folder of the contest")
    parser.add_argument("--out", type=str, required=True, help="a .csv file")
    _add_styles(parser)
    for name, told in {
        "--metrics": "some of " + ",".join(METRICS) + " (all whose weights are there)",
        "--by": "what ranks are taken from: total, or a metric (total where it is known)",
        "--weights": "the folder of the networks' files (JSTYLE_WEIGHTS, or the user's cache)",
        "--words": "clip_r's words, one per line",
        "--cache": "folder where features of pictures are kept, or none (the user's cache)",
    }.items():
        parser.add_argument(name, type=str | None, default=None, help=told)
    parser.add_argument(
        "--corrected", action="store_true", help="without the checker's quirks (hist, clip_iqa)"
    )
    add_device(parser)
    add_overwrite(parser)
    return parser


def status() -> Parser:
    parser = _parser(
        "status",
        "How far a run is: a line per style, what is left, and an estimate.",
        "  jdreambooth contest status out\n",
    )
    parser.add_argument("out", type=str, help="the --out of a run")
    parser.add_argument("--json", action="store_true", help="print every stage as JSON")
    return parser


def report() -> Parser:
    parser = _parser(
        "report",
        "One page of a run that opens without a network: per style its references, the plan and "
        "why, the pictures with prompts, seeds, scores, candidates and the nearest reference, the "
        "loss, the table of pick. Of several runs: their pictures side by side, what differs in "
        "the configurations, and what each change bought in the total.",
        "  jdreambooth contest report out\n"
        "  jdreambooth contest report out --page b.html --scores scores.json --size-px 128\n"
        "  jdreambooth contest report before after --scores before.json --scores after.json\n",
    )
    parser.add_argument("out", type=str, nargs="+", help="the --out of a run, or of several")
    parser.add_argument(
        "--page",
        type=str | None,
        default=None,
        help="where to write it (default: report.html, or comparison.html in the last OUT)",
    )
    parser.add_argument(
        "--scores",
        action="append",
        default=[],
        metavar="FILE",
        help="what `jstyle score --json` wrote, for each of the runs in their order (default: HIST "
        "alone, computed here)",
    )
    parser.add_argument("--size-px", type=int, default=224, help="longer side of the thumbnails")
    add_overwrite(parser)
    return parser
