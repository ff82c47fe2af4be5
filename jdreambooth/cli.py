"""The command `jdreambooth`: words -> dataclasses and plain arguments -> a command -> words.

The only file that prints, with jstyle/console/program.py, which has the exit codes and the errors.
"""

from __future__ import annotations

import logging
from dataclasses import fields
from pathlib import Path

from jsonargparse import Namespace

from jstyle.console.parser import UsageError
from jstyle.console.program import Command, Program
from jstyle.console.words import count, progress_bar, say

from . import __version__, options
from .config import TrainConfig
from .contest.cli import PROGRAM as CONTEST
from .make_drawings import CAPTIONS, make_drawings
from .mpirun import speak_in_turn
from .names import read_prompts
from .recipe import Recipe
from .runs import CONFIG
from .verdict import PickConfig

USAGE = """\
usage: jdreambooth COMMAND [options]      (jdreambooth COMMAND --help shows options and examples)

teach Stable Diffusion a style or a subject (DreamBooth, arXiv:2208.12242)

{commands}

options:
  -h, --help     show this help and exit
  --version      show the version and exit

first steps:
  jdreambooth draw --out foxes --object fox --style knitted
  jdreambooth train --instance-dir foxes --instance-prompt "a fox in knitted style" --out run
  jdreambooth generate --run run --prompts "a cup in knitted style" --out pictures
"""


def _build(config: type, args: Namespace):
    return config(**{field.name: args[field.name] for field in fields(config)})


def _run_of(configs: list | None) -> str:
    """The folder of the run whose config.json was given. Raises UsageError if none was."""
    for path in map(str, reversed(configs or [])):
        if Path(path).name == CONFIG and Path(path).is_file():
            return str(Path(path).parent)
    raise UsageError(f"out is required, or --config RUN/{CONFIG} of a run that is to go on")


def _train(args: Namespace) -> int:
    args.out = args.out or _run_of(args.config)
    cfg = _build(TrainConfig, args)
    from .session import PLOT, Session

    report = Session(cfg, progress_bar(args, "step")).run()
    trained = f"{count(report.tensors, 'tensor')} with {count(report.parameters, 'number')}"
    say(args, f"trained {trained} for {report.steps} steps in {report.seconds:.1f} s")
    for step, folder in report.results.items():
        say(args, f"step {step}: {folder}")
    say(args, f"loss {report.loss:.4f} at the last step; all of them: {report.folder / PLOT}")
    return 0


def _generate(args: Namespace) -> int:
    from .generate import MANIFEST, generate

    prompts, recipe = read_prompts(args.prompts), _build(Recipe, args)
    bar = progress_bar(args, "eval")
    words = (args.run, prompts, args.out, recipe, args.at, args.device, bar)
    paths = generate(*words, overwrite=args.overwrite)
    say(args, f"wrote {count(len(paths), 'picture')} and {MANIFEST} to {args.out}")
    return 0


def _pick(args: Namespace) -> int:
    from .pick import pick
    from .verdict import table

    prompts = None if args.prompts is None else read_prompts(args.prompts)
    cfg, bar = _build(PickConfig, args), progress_bar(args, "eval")
    done = pick(args.run, prompts, cfg, args.device, bar)
    print(table(done.measured, done.verdict))
    say(args, f"look at {done.grid}")
    return 0


def _merge(args: Namespace) -> int:
    from .merge import merge

    words = (args.run, args.out, args.at, args.weight, args.dtype, args.device, args.overwrite)
    say(args, f"wrote {merge(*words, format=args.format)}")
    return 0


def _export(args: Namespace) -> int:
    from .merge import export

    words = (args.run, args.out, args.at, args.format, args.dtype, args.device)
    path = export(*words, overwrite=args.overwrite)
    say(args, f"wrote {path}")
    return 0


def _import(args: Namespace) -> int:
    from .merge import import_lora

    done = import_lora(args.source, args.out, args.format, args.dtype, args.overwrite)
    for line in done.lines:
        say(args, line)
    say(args, f"wrote {done.path}")
    return 0


def _identifiers(args: Namespace) -> int:
    from .identifiers import find_identifiers

    for word, token in find_identifiers(args.model, args.count, args.tokenizer):
        print(f"{word:<6} token {token}")
    return 0


def _draw(args: Namespace) -> int:
    drawn = (args.object, args.style, args.count, args.seed, args.size_px)
    paths = make_drawings(args.out, *drawn, overwrite=args.overwrite)
    say(args, f"wrote {count(len(paths), 'picture')} and {CAPTIONS} to {Path(args.out)}")
    return 0


PROGRAM = Program(
    name="jdreambooth",
    version=__version__,
    usage=USAGE,
    commands={
        "train": Command("learn a style or a subject from pictures", options.train, _train),
        "generate": Command("pictures of a run from prompts", options.generate, _generate),
        "pick": Command("after how many steps to stop", options.pick, _pick),
        "merge": Command("a run's LoRA folded into its model", options.merge, _merge),
        "export": Command("a run's LoRA as one file", options.export, _export),
        "import": Command("a LoRA of another program as our file", options.import_, _import),
        "identifiers": Command("rare words to name a style by", options.identifiers, _identifiers),
        "draw": Command("drawings of an object in a style", options.draw, _draw),
        "contest": CONTEST,
    },
    short_of_memory="a smaller --batch or --size-px, or --gradient-checkpointing true, needs less",
    level=logging.INFO,
)


def main(argv: list[str] | None = None) -> int:
    """Run `jdreambooth` with these words (default: sys.argv) and return the exit code."""
    return speak_in_turn(PROGRAM, argv)
