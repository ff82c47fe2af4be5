"""The command `jstyle`: words -> dataclass and plain arguments -> a command -> words.

The only file that prints, with console/program.py, which has the exit codes and the errors.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path

from jsonargparse import Namespace

from . import __version__, options
from .config import StyleConfig
from .console.program import Command, Program
from .console.shared_options import model_source
from .console.words import count, progress_bar, say
from .methods import find_method, from_noise

USAGE = """\
usage: jstyle COMMAND [options]      (jstyle COMMAND --help shows the options and examples)

style transfer with Stable Diffusion, without training (StyleID, arXiv:2312.09008)

{commands}

options:
  -h, --help     show this help and exit
  --version      show the version and exit

first steps:
  jstyle doctor                      is everything here that is needed?
  jstyle demo                        the shipped pictures through the shipped model
  jstyle stylize --content photo.jpg --style painting.jpg --out result.png
"""


def _style_config(args: Namespace, config: type = StyleConfig, skip: tuple[str, ...] = ()):
    """The options of a method among those of a command."""
    names = [
        field.name for field in fields(config) if field.name in args and field.name not in skip
    ]
    return config(**{name: args[name] for name in names})


def _several(value) -> list[str]:
    """An option that may be given several times; in a YAML file a list, or one alone."""
    return list(map(str, value if isinstance(value, list) else [value]))


def _stylize(args: Namespace) -> int:
    from .commands.stylize import Request, stylize

    names = ("content", "style", "out", "style_choice", "method", "batch", "device", "overwrite")
    given = {"style": None, **{name: args[name] for name in names if name in args}}
    given |= {"model": model_source(args), "loras": _several(args.lora)}
    cfg = _style_config(args, find_method(args.method).Config)
    done = stylize(Request(cfg=cfg, **given), progress_bar(args, "eval"), partial(say, args))
    if done.skipped:
        say(args, f"skipped {count(done.skipped, 'finished result')}")
    if done.written:
        parts = ", ".join(f"{name} {value:.1f} s" for name, value in done.seconds.items())
        where = done.written[0] if len(done.written) == 1 else done.written[0].parent
        say(args, f"wrote {count(len(done.written), 'picture')}: {where} ({parts})")
    return 0


def _compare(args: Namespace) -> int:
    from .commands.compare import Request, compare

    names = ("content", "style", "out", "csv", "cell_px", "device", "overwrite")
    given = {"model": model_source(args), **{name: args[name] for name in names}}
    given |= {"methods": args.methods.replace(" ", "").split(","), "loras": _several(args.lora)}
    wanted = {name: args[name] for name in (o.replace("-", "_") for o in options.COMPARED)}
    request = Request(options=wanted, **given)
    path = compare(request, progress_bar(args, "eval"), partial(say, args))
    say(args, f"wrote {path}")
    return 0


def _reconstruct(args: Namespace) -> int:
    from .commands.reconstruct import Request, reconstruct

    names = ("out", "device", "overwrite")
    given = {"model": model_source(args), **{name: args[name] for name in names}}
    request = Request(args.image, cfg=_style_config(args), **given)
    done = reconstruct(request, progress_bar(args, "eval"))
    if args.json:
        print(json.dumps({**asdict(done), "out": str(done.out)}))
        return 0
    say(args, f"wrote {done.out} in {done.seconds:.1f} s")
    say(args, f"against the VAE's round trip  {done.psnr_to_round_trip_db:6.2f} dB")
    say(args, f"against the input             {done.psnr_to_input_db:6.2f} dB")
    say(args, f"VAE's round trip alone        {done.psnr_round_trip_db:6.2f} dB")
    return 0


def _generate(args: Namespace) -> int:
    from .commands.generate import After, Request, generate
    from .sd.samplers.options import FIELDS, Sampling

    names = ("out", "seed", "negative", "height", "width", "device", "overwrite")
    names += ("wildcards", "count")
    given = {"model": model_source(args), **{name: args[name] for name in names}}
    given |= {"prompts": _several(args.prompt), "loras": _several(args.lora)}
    given["listed"] = args.prompts
    how, references = {name: args[name] for name in FIELDS}, _several(args.reference)
    if args.method is not None:
        cfg = _style_config(args, find_method(args.method).Config, skip=("prompt",))
        given["after"] = After(args.method, cfg, tuple(references))
    elif references:
        raise ValueError(f"--reference needs --method, one of {', '.join(from_noise())}")
    request = Request(how=Sampling(**how), **given)
    done = generate(request, progress_bar(args, "eval"), partial(say, args))
    if done.skipped:
        say(args, f"skipped {count(done.skipped, 'finished result')}")
    for path in done.written:
        say(args, f"wrote {path}")
    return 0


def _grid(args: Namespace) -> int:
    from .commands.grid import grid
    from .grids.request import Request
    from .sd.samplers.options import FIELDS, Sampling

    names = ("seed", "negative", "height", "width", "model", "variant", "device", "overwrite")
    names += ("prediction", "tokenizer", "run", "cell_px")
    given = {name: args[name] for name in names}
    given |= {"prompts": _several(args.prompt), "loras": _several(args.lora)}
    given["sampling"] = Sampling(**{name: args[name] for name in FIELDS})
    request = Request({option: _several(args[option]) for option in "xyz"}, **given)
    done = grid(request, args.out, progress_bar(args, "eval"), partial(say, args))
    there = done.cells - done.empty - done.painted
    reused = f", {there} taken from what was there" if there else ""
    say(args, f"{count(done.cells, 'cell')}: {done.painted} painted{reused}")
    say(args, f"wrote {done.sheet} and {done.page}")
    return 0


def _demo(args: Namespace) -> int:
    from .commands.demo import demo

    words = (args.out, _style_config(args), progress_bar(args, "eval"), args.device)
    done = demo(*words, overwrite=args.overwrite)
    if done.summary.skipped:
        say(args, f"skipped {count(done.summary.skipped, 'finished result')}")
    if done.summary.written:
        apart = done.start_seconds + done.load_seconds + done.warm_up_seconds
        say(
            args,
            f"{count(len(done.summary.written), 'picture')} in {done.pictures_seconds:.1f} s; "
            f"apart from that {apart:.1f} s: Jittor's start {done.start_seconds:.1f}, model "
            f"{done.load_seconds:.1f}, first evaluation and compiling {done.warm_up_seconds:.1f}",
        )
    say(args, f"look at {done.grid}")
    return 0


def _parity(args: Namespace) -> int:
    from .commands import parity

    same = ("device", "reference", "prompt", "steps", "seed", "rng", "size_px")
    same += ("dtype", "slack", "inject_fault")
    stages = None if args.only is None else tuple(args.only.replace(" ", "").split(","))
    given = {"model": model_source(args), **{name: args[name] for name in same}}
    request = parity.Request(images=tuple(_several(args.image)), stages=stages, **given)
    bar = progress_bar(args, "eval")
    if args.record is not None:
        if args.against is not None:
            raise ValueError("--record and --against exclude each other")
        if args.out is not None:
            raise ValueError("--out is for the report of a comparison; leave out --record")
        say(args, f"recorded in {parity.record(request, args.record, bar, args.overwrite)}")
        return 0
    out = args.out or parity.OUT
    report = parity.compare(request, out, bar, args.against, args.overwrite)
    say(args, report.as_text())
    say(args, f"look at {Path(out) / parity.PAGE}")
    return 0 if report.passed else 1


def _score(args: Namespace) -> int:
    from .commands import score

    names = [field.name for field in fields(score.Request)]
    request = score.Request(**{name: args[name] for name in names})
    if args.where:
        say(args, score.where(request))
        return 0
    report = score.score(request, progress_bar(args, "image"), args.overwrite)
    say(args, score.as_text(report))
    return 0


def _warmup(args: Namespace) -> int:
    from .commands.warmup import TASKS, warm_up

    tasks = TASKS if args.task == "all" else (args.task,)
    model, bar = (model_source(args), args.device), progress_bar(args, "stage")
    done = warm_up(_style_config(args), bar, tasks, *model)
    say(
        args,
        f"compiled {count(done.compiled, 'kernel')} in {sum(done.seconds.values()):.1f} s; "
        f"{done.kernels_after} are in the cache",
    )
    return 0


def _doctor(args: Namespace) -> int:
    from .commands import doctor

    if args.fix_cuda:
        doctor.fix_cuda()
    checks = doctor.examine()
    say(args, doctor.as_json(checks) if args.json else doctor.as_text(checks))
    return 0 if doctor.can_run(checks) else 1


COMMANDS = {
    "stylize": Command(
        "content images in the style of style images", options.stylize, _stylize, varies=True
    ),
    "compare": Command("the same pictures through several methods", options.compare, _compare),
    "reconstruct": Command(
        "inversion and back: how much is lost", options.reconstruct, _reconstruct
    ),
    "generate": Command("pictures from prompts", options.generate, _generate, varies=True),
    "grid": Command("one sheet over samplers, steps, prompts, LoRAs, ...", options.grid, _grid),
    "demo": Command("the shipped pictures through the shipped model", options.demo, _demo),
    "parity": Command("this package against PyTorch, layer by layer", options.parity, _parity),
    "score": Command("how good a contest's submission is", options.score, _score),
    "warmup": Command("compile now what a model and a task need later", options.warmup, _warmup),
    "doctor": Command(
        "what works on this machine, and how to mend the rest", options.doctor, _doctor
    ),
}


PROGRAM = Program(
    name="jstyle",
    version=__version__,
    usage=USAGE,
    commands=COMMANDS,
    short_of_memory="fewer or smaller images, or --feature-dtype float16, need less",
)


def main(argv: list[str] | None = None) -> int:
    """Run `jstyle` with these words (default: sys.argv) and return the exit code."""
    return PROGRAM.main(argv)
