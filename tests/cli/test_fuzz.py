"""Every option of every command with every hostile value, in one process.

The options come from the parsers, so a new one is tried without being named here. What stands
around the option is right, but for a model that is broken in its last file, or a device that does
not exist: whatever is allowed stops there, soon. JSTYLE_FUZZ=all tries all combinations; otherwise
a part of them does, in which every option of a command and every value comes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import random
import shutil
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from jdreambooth.cli import PROGRAM as DREAMBOOTH
from jdreambooth.cli import main as jdreambooth
from jdreambooth.config import TrainConfig
from jdreambooth.contest import plans
from jdreambooth.contest.config import PER_PROMPT, WIDE, read_config
from jdreambooth.contest.options import SECTIONS, keys_of
from jdreambooth.contest.run import make_record
from jstyle.cli import PROGRAM as STYLE
from jstyle.cli import main as jstyle
from jstyle.console.parser import Parser
from jstyle.console.program import Command, Program
from jstyle.methods import METHODS, find_method, from_noise
from jstyle.sd import files, hub
from tests.cli.conftest import make_pictures
from tests.contests import make_contest
from tests.hostile import KINDS, VALUES, fault_of, is_named, make_files

ALL = os.environ.get("JSTYLE_FUZZ") == "all"
SECONDS = 60 if ALL else 10  # of one case; some import much, and other work may be going on
PER_OPTION = 1  # values that a quick run tries with each option
NOT_VALUES = ("--help", "--verbose")  # a verbose error may take more lines
END = "broken/unet/diffusion_pytorch_model.safetensors"  # where what is allowed ends
RIGHT = {  # words with which each command comes as far as its model, in the folder of `place`
    "jstyle stylize": "--content in/hill.png --style in/lake.png --out new/one --model broken",
    "jstyle compare": "--content in/hill.png --style in/lake.png --out new/one.png --model broken",
    "jstyle reconstruct": "--image in/hill.png --out new/one.png --model broken",
    "jstyle generate": "--prompt fox --out new/one.png --model broken",
    "jstyle grid": "--prompt fox --x steps=1,2 --out new/one.png --model broken",
    "jstyle demo": "--out in/hill.png/below --size-px 24",
    "jstyle parity": "--record new/values --model broken --only unet",
    "jstyle score": "contest/result contest/root --hist-only --json new/score.json",
    "jstyle warmup": "--model broken",
    "jstyle doctor": "",
    "jdreambooth train": "--instance-dir in --instance-prompt {stem} --out new/run --model broken",
    "jdreambooth generate": "--run run --prompts fox --out new/pictures",
    "jdreambooth pick": "run --prompts fox cat",
    "jdreambooth merge": "--run run --out new/model",
    "jdreambooth export": "--run run --out new/lora.safetensors",
    "jdreambooth import": "lora.safetensors --out new/lora.safetensors",
    "jdreambooth identifiers": "--count 1",
    "jdreambooth draw": "--out new/drawn --object fox --count 1 --size-px 16",
    "jdreambooth contest run": "contest/root --out new/out --dry-run",
    "jdreambooth contest tune": "contest/root --out new/out --dry-run",
    "jdreambooth contest mini": "--out new/mini --styles 1 --references 1 --prompts 1 --size-px 16",
    "jdreambooth contest check": "contest/result --root contest/root",
    "jdreambooth contest pack": "contest/result --root contest/root --out new/one.zip",
    "jdreambooth contest grade": "contest --root contest/root --out new/g.csv --metrics hist",
    "jdreambooth contest status": "contest/out",
    "jdreambooth contest report": "contest/out --page new/page.html",
}
INSTEAD = {  # the words around one option, where those of its command would refuse any value
    ("jstyle parity", "--out"): "--against new/none --model broken",
    ("jstyle parity", "--against"): "--model broken",
    ("jstyle score", "--protocol"): "contest/result contest/root --weights folder --cache none",
    ("jstyle score", "--metrics"): "contest/result contest/root --weights folder --cache none",
    ("jstyle score", "--words"): "contest/result contest/root --weights folder --cache none",
    ("jdreambooth contest grade", "--words"): "contest --root contest/root --out new/g.csv "
    "--weights folder --cache none",
    ("jstyle score", "--cache"): "contest/result contest/root --metrics dino --weights folder",
}
OF_CONTESTS = ("jdreambooth contest run", "jdreambooth contest tune")  # --config: contest.yaml
NOTHING_RUNS = (("jstyle parity", "--record"), ("jstyle parity", "--against"))  # PyTorch, long
FROM_NOISE = "jstyle generate"  # its methods start there, and need a reference
REFUSED = "cannot write here"  # by the system


@dataclass(frozen=True)
class Case:
    """One option of one command with one value. option: a positional's name, or with dashes.
    config: what the file config.yaml holds, if it is among the words."""

    command: str
    option: str
    kind: str
    words: tuple[str, ...]
    config: str = ""


def commands(program: Program) -> Iterator[tuple[str, Callable[[], Parser]]]:
    """(its full name, its parser) of every command; one parser per method where they differ."""
    for name, command in program.commands.items():
        if isinstance(command, Program):
            yield from commands(command)
        else:
            yield f"{program.name} {name}", command


def parsers(name: str, command: Command) -> list[tuple[tuple[str, ...], Parser]]:
    if not command.varies:
        return [((), command.make_parser())]
    methods = from_noise() if name == FROM_NOISE else METHODS
    all_words = [("--method", method) for method in methods]
    return [(words, command.make_parser(words)) for words in all_words]


def words_around(name: str, option: str, more: tuple[str, ...]) -> list[str]:
    """The right words: for a method with the pictures that it needs, and no others."""
    words = INSTEAD.get((name, option), RIGHT[name]).split()
    if not more:
        return words
    if name == FROM_NOISE:
        return [*words, *more, "--reference", "in/lake.png"]
    missing = {f"--{role}" for role in ("content", "style")}
    missing -= {f"--{role}" for role in find_method(more[1]).roles}
    pairs = zip(["", *words], words, strict=False)
    return [word for before, word in pairs if not missing & {before, word}] + [*more]


def options_of(parser: Parser) -> list[tuple[str, bool]]:
    """(name, whether it is a positional) of every option that can be given."""
    found = []
    for action in parser._actions:
        names = action.option_strings
        if not names:
            found.append((action.dest, True))
        elif names[-1] not in NOT_VALUES:
            found.append((next(name for name in names if name.startswith("--")), False))
    return found


def with_option(right: list[str], parser: Parser, option: str, placed: bool, value: str):
    """The right words with the option's own replaced by this value."""
    if placed:
        names = [a.dest for a in parser._actions if not a.option_strings]
        place = names.index(option)
        return [*right[:place], value, *right[place + 1 :]]
    words = []
    for word in right:
        if word == option:
            words.append(None)
        elif not (words and words[-1] is None and not word.startswith("--")):
            words.append(word)
    return [*(w for w in words if w is not None), f"{option}={value}"]


def all_cases() -> list[Case]:
    cases = []
    for program in (STYLE, DREAMBOOTH):
        for name, command in commands(program):
            for more, parser in parsers(name, command):
                for option, placed in options_of(parser):
                    around = words_around(name, option, more)
                    for kind, value in VALUES.items():
                        if kind == "null" and (name, option) in NOTHING_RUNS:
                            continue
                        words = with_option(around, parser, option, placed, value)
                        if option != "--quiet":
                            words.append("--quiet")
                        cases.append(Case(name, option, kind, tuple(words)))
    return cases


def config_cases() -> list[Case]:
    """Every key of every --config and of the sections of contest.yaml, with every kind."""
    cases = []
    for program in (STYLE, DREAMBOOTH):
        for name, command in commands(program):
            for more, parser in parsers(name, command):
                options = [o for o, placed in options_of(parser) if not placed]
                if "--config" in options and name not in OF_CONTESTS:
                    cases += _keys(name, parser, more, options)
    words = (*RIGHT["jdreambooth contest run"].split(), "--config", "config.yaml", "--quiet")
    for above, keys in contest_keys():
        for key, (kind, value) in product(keys, KINDS.items()):
            text = above.replace("KEY", f"{key}: {value}")
            cases.append(Case("jdreambooth contest run", f"{above} {key}", kind, words, text))
    return cases


def _keys(name: str, parser: Parser, more: tuple[str, ...], options: list[str]) -> list[Case]:
    cases = []
    for option in options:
        around = words_around(name, option, more)
        words = with_option(around, parser, option, False, "")[:-1]
        words = (*words, "--config", "config.yaml", "--quiet")
        key = option.lstrip("-").replace("-", "_")
        kinds = [k for k in KINDS if k != "nothing" or (name, option) not in NOTHING_RUNS]
        cases += [Case(name, option, k, words, f"{key}: {KINDS[k]}\n") for k in kinds]
    return cases


def contest_keys() -> Iterator[tuple[str, list[str]]]:
    """What is around KEY, and what can stand there."""
    yield "{KEY}", [*WIDE, "defaults", "styles", "nonsense"]
    for above in ("defaults: {KEY}", 'styles: {"00": {KEY}}'):
        yield above, [*SECTIONS, *PER_PROMPT]
    yield "defaults: {prompts: {Cat: {KEY}}}", [*plans.KEYS, "nonsense"]
    yield "defaults: {words: {KEY}}", ["Cat", "nonsense"]
    yield "styles: {KEY}", ["00", "nonsense"]
    for section in SECTIONS:
        yield f"defaults: {{{section}: {{KEY}}}}", keys_of(section)


def some_of(cases: list[Case], seed: int = 0) -> list[Case]:
    """PER_OPTION of each option, such that the values take turns."""
    rng, chosen = random.Random(seed), []
    kinds = list(dict.fromkeys(case.kind for case in cases))
    options: dict[tuple, dict[str, Case]] = {}
    for case in cases:
        options.setdefault((case.command, case.option), {})[case.kind] = case
    turn: list[str] = []
    for found in options.values():
        for _ in range(PER_OPTION):
            turn = turn or rng.sample(kinds, len(kinds))
            chosen.append(found[turn.pop()])
    return chosen


class Hangs(BaseException):
    """A case that took too long."""


def _ring(number, frame):
    raise Hangs


def run_case(case: Case) -> tuple[object, str, str]:
    """(exit code, stderr, where a traceback ends) of the command."""
    program, *names = case.command.split()
    main = {"jstyle": jstyle, "jdreambooth": jdreambooth}[program]
    out, error, place = io.StringIO(), io.StringIO(), ""
    before = signal.signal(signal.SIGALRM, _ring)
    for handler in logging.root.handlers[:]:  # the one of the case before writes to its stderr
        logging.root.removeHandler(handler)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            code = main([*names, *case.words])
    except Hangs:
        code, place = "hangs", traceback.format_exc(limit=-3)
    except SystemExit as end:
        code = end.code  # as of --print_config
    except BaseException as fault:
        code, place = repr(fault)[:200], traceback.format_exc(limit=-3)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return code, error.getvalue(), place


def state_of(folder: Path) -> dict[str, tuple]:
    """Everything below the folder, with what would tell that it was touched."""
    found = {}
    for above, names, more in os.walk(folder):
        for name in (*names, *more):
            path = os.path.join(above, name)
            facts = os.lstat(path)
            told = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
            found[path] = told if name in more else (facts.st_ino,)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with all that RIGHT and VALUES name, and as the current one. Jittor is there: its
    start, which may wait for another process that compiles, is in no case's time."""
    from jstyle.sd.startup import jt  # noqa: F401

    folder = tmp_path_factory.mktemp("fuzz")
    make_files(folder)
    make_pictures(folder / "in", ("hill", "lake"))
    shutil.copytree(hub.TINY, folder / "broken")
    (folder / END).write_bytes(b"no weights")
    config = TrainConfig(
        instance_dir=str(folder / "in"),
        out="run",
        model=str(folder / "broken"),
        instance_prompt="{stem}",
        steps=2,
    )
    run = folder / "run"
    (run / "step-000002").mkdir(parents=True)
    (run / "step-000002" / "lora.safetensors").write_bytes(b"no weights")
    files.write_json(run / "config.json", asdict(config))
    files.write_json(run / "captions.json", {"hill.png": "hill", "lake.png": "lake"})
    (run / "metrics.jsonl").write_text("")
    factors = {"lora_A": np.ones((2, 4), np.float32), "lora_B": np.ones((4, 2), np.float32)}
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = {f"{name}.{factor}.weight": value for factor, value in factors.items()}
    save_file(tensors, folder / "lora.safetensors")
    (folder / "contest").mkdir()
    root, _ = make_contest(folder / "contest")
    (folder / "contest" / "out").mkdir()
    make_record(root, folder / "contest" / "out", read_config(None)).write()
    before = os.getcwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def tried(place: Path, cases: list[Case]) -> tuple[Counter, list[str]]:
    """How the cases ended, and a line for each that should have ended otherwise."""
    ends, faults = Counter(), []
    before = state_of(place)
    for case in cases:
        value = VALUES[case.kind] if not case.config else KINDS[case.kind]
        if case.config:
            (place / "config.yaml").write_text(case.config)
            before = state_of(place)
        code, error, traced = run_case(case)
        fault = None if listed(case, code, error) else fault_of(code, error, case.option, value)
        after = state_of(place)
        if after != before:
            changed = sorted(os.path.relpath(p, place) for p in before if after.get(p) != before[p])
            left = sorted(os.path.relpath(p, place) for p in after.keys() - before.keys())
            if changed:
                fault = fault or f"changed {changed[:3]}"
            elif code != 0:
                fault = fault or f"left {left[:3]}"
            _clear(place, left)
            before = state_of(place)
        if fault is None and code == 1 and not listed(case, code, error) and REFUSED not in error:
            fault = "exit code 1, though the system refused nothing"
        if fault is None and code == 2 and not allowed(error):
            fault = (
                None
                if is_named(error, case.option.split()[-1], value)
                else "does not name the option"
            )
        ends[str(code) if code in (0, 1, 2) else "other"] += 1
        if fault is not None:
            said = error.strip()[-300:] or traced
            faults.append(f"{case.command} {case.option} [{case.kind}]: {fault}\n    {said}")
    return ends, faults


def listed(case: Case, code: object, error: str) -> bool:
    """Whether the command has said on stdout what is wrong with a submission."""
    return code == 1 and not error and case.command.split()[-1] in ("check", "pack")


def allowed(error: str) -> bool:
    """Whether the value was taken: the command came to where it is made to stop."""
    return END in error or any(
        end in error for end in ("in/hill.png/below", "new/none", "multiple of 32, got 24")
    )


def _clear(place: Path, names: list[str]) -> None:
    for name in reversed(names):
        path = place / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def check(place: Path, cases: list[Case]) -> None:
    cases = cases if ALL else some_of(cases)
    ends, faults = tried(place, cases)
    report = f"{len(cases)} cases ended with {dict(ends)}; {len(faults)} wrongly:\n"
    print(report)
    assert not faults, report + "\n".join(faults)


def test_every_option_answers_hostile_values_with_one_line(place):
    check(place, all_cases())


def test_every_key_of_a_configuration_answers_odd_values_with_one_line(place):
    check(place, config_cases())
