"""Signals at random moments of real commands, and what they leave behind.

    python -m tests.e2e.signals --count 300 --seed 0 [--commands train,stylize,...]

Each trial starts a command in a session of its own, ends it by TERM, INT or HUP, once or twice, to
the process or to its group, at a moment between its start and a bit after its usual end, and looks
at how it ended; then the same command runs to its end, and its files are compared with those of a
run that nobody disturbed. The commands called NAME-cold find Jittor's core but none of its kernels,
so that compilers run below them; those called NAME-ops, none of its own operators either, which it
compiles in processes of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import yaml
from PIL import Image
from safetensors import safe_open

from jstyle.sd import toolchain
from tests import tiny
from tests.contests import make_contest, save

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = {"TERM": signal.SIGTERM, "INT": signal.SIGINT, "HUP": signal.SIGHUP}
SECONDS = 3.0  # in which a command has to end
MARKER = "JSTYLE_SIGNALS_TRIAL"
TRAIN = (
    "train --instance-dir ../inputs/pictures --instance-prompt {prompt} --model ../inputs/model "
    "--size-px 32 --rank 2 --steps {steps} --save-at {saved} --learning-rate 1e-2 "
    "--checkpoint-every 2 --sample-every 4 --sample-prompts cat --sample-steps 2 --resume auto"
)
CONTEST = "contest run ../inputs/root --config ../inputs/contest.yaml --out out"
STYLIZE = (
    "stylize --content ../inputs/pictures --style ../inputs/styles --model ../inputs/model "
    "--size-px 32 --steps 3 --out out"
)
WARMUP = "warmup --model ../inputs/model --size-px 32"


class Command(NamedTuple):
    """`words` run in a folder beside the inputs; `given` is an input that they write into."""

    program: str
    words: str
    given: str | None = None
    hidden: tuple[str, ...] = ()  # folders of Jittor's cache
    usual: float = 0.0  # seconds, for those


COMMANDS = {
    "train": Command("jdreambooth", TRAIN.format(prompt="sks", steps=8, saved=4) + " --out out"),
    "stylize": Command("jstyle", STYLIZE),
    "contest": Command("jdreambooth", CONTEST),
    "contest-jobs": Command("jdreambooth", CONTEST + " --jobs 2"),
    "pick": Command("jdreambooth", "pick out --prompts cat --steps 2 --draws 1", given="run"),
    "warmup": Command("jstyle", WARMUP),
    "warmup-cold": Command("jstyle", WARMUP, hidden=("jit", "tmp"), usual=15.0),
    "stylize-cold": Command("jstyle", STYLIZE, hidden=("jit", "tmp"), usual=15.0),
    "warmup-ops": Command("jstyle", WARMUP, hidden=("custom_ops",), usual=15.0),
}
CONTEST_VALUES = {
    "size_px": 32,
    "model": "../inputs/model",
    "defaults": {
        "train": {"steps": 3, "save_at": "2", "rank": 2, "checkpoint_every": 1},
        "generate": {"steps": 2, "guidance": 1.0, "seed": 7},
        "pick": {"prompts": 2, "steps": 1, "guidance": 1.0, "draws": 1},
    },
}


class Trial(NamedTuple):
    """What is done to a command."""

    name: str
    signal: str
    times: int
    group: bool
    at: float  # as a share of the command's usual duration
    apart: float  # seconds between the first signal and the second


@dataclass
class Found:
    """What came of it; the lists name faults."""

    seconds: float = 0.0
    code: int = 0
    finished: bool = False  # before the signal came, or as it came
    at_once: bool = False  # by the system, since Python had not begun
    late: list[str] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    @property
    def faults(self) -> dict[str, list[str]]:
        kinds = ("late", "codes", "words", "leftovers", "damaged", "other")
        return {kind: getattr(self, kind) for kind in kinds if getattr(self, kind)}


def draw_trials(names: list[str], count: int, seed: int) -> list[Trial]:
    """`count` trials, dealt out to the commands and signals in turn; the rest is random."""
    rng, trials = random.Random(seed), []
    for number in range(count):
        kind = list(NUMBERS)[number // len(names) % 3]
        words = (rng.choice((1, 2)), rng.random() < 0.5, rng.uniform(0.0, 1.1), rng.random())
        trials.append(Trial(names[number % len(names)], kind, *words))
    return trials


class Bench:
    """A folder with the inputs, the undisturbed results, and a folder for each trial."""

    def __init__(self, folder: Path):
        self.folder, self.inputs = folder, folder / "inputs"
        self.expected: dict[str, tuple[dict, float]] = {}
        self.inputs.mkdir(parents=True)
        for number in range(2):
            for kind in ("pictures", "styles"):
                (self.inputs / kind).mkdir(exist_ok=True)
                save(self.inputs / kind / f"{number}.png", 10 * number + len(kind))
        make_contest(self.inputs)
        tiny.make_ours("sd2").save_pretrained(self.inputs / "model", "float32")
        (self.inputs / "contest.yaml").write_text(yaml.safe_dump(CONTEST_VALUES))

    def expect(self, name: str) -> tuple[dict, float]:
        """(digest of the files, seconds) of an undisturbed run."""
        if name not in self.expected:
            command = COMMANDS[name]
            if command.given == "run" and not (self.inputs / "run").exists():
                words = TRAIN.format(prompt="sks", steps=4, saved=2) + " --out ../inputs/run"
                plain = self.make_folder(COMMANDS["train"], "run")
                self._finish(Command("jdreambooth", words), plain)
            if command.hidden:
                plain = name.partition("-")[0]
                self.expected[name] = (self.expect(plain)[0], command.usual)
                return self.expected[name]
            for _ in range(2):  # the first one may compile; the second is as long as usual
                folder = self.make_folder(command, f"{name}-undisturbed")
                started = time.monotonic()
                self._finish(command, folder)
                seconds = time.monotonic() - started
                self.expected[name] = (contents(folder), seconds)
                shutil.rmtree(folder)
        return self.expected[name]

    def make_folder(self, command: Command, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        if command.given:
            shutil.copytree(self.inputs / command.given, folder / "out")
        return folder

    def start(self, command: Command, folder: Path, **how) -> subprocess.Popen:
        program, words, _, hidden, _ = command
        (folder / "tmp").mkdir(exist_ok=True)
        env = {**os.environ, "PYTHONPATH": str(ROOT), MARKER: str(folder)}
        env["TMPDIR"] = str(folder / "tmp")
        return subprocess.Popen(
            [*hiding(folder, hidden), sys.executable, "-m", program, *words.split()],
            cwd=folder,
            env=env,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            **how,
        )

    def _finish(self, command: Command, folder: Path) -> None:
        process = self.start(command, folder, stderr=subprocess.PIPE)
        _, errors = process.communicate(timeout=600)
        if process.returncode != 0:
            text = errors.decode(errors="replace")
            raise RuntimeError(f"{command.words}: {process.returncode}: {text[-3000:]}")

    def run(self, trial: Trial, name: str, go_on: bool = True, cold_too: bool = False) -> Found:
        """One trial; its folder stays only if something was wrong. cold_too: what is compiled when
        a command goes on is compiled beside what was there when it ended, which takes minutes."""
        files, usual = self.expect(trial.name)
        command, found = COMMANDS[trial.name], Found()
        folder = self.make_folder(command, name)
        with (folder / "stderr").open("wb") as stderr:
            process = self.start(command, folder, stderr=stderr)
            with Ending(process, found) as ending:
                ending.ask(trial, trial.at * usual)
        examine(trial, found, folder)
        if go_on:
            try:
                self._finish(command if cold_too else command._replace(hidden=()), folder)
                found.other += differences(files, contents(folder))
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                found.other.append(f"going on: {error}")
        if not found.faults:
            shutil.rmtree(folder)
        return found


class Ending:
    """Asks a process to end and waits for that, and ends it with all below it in any case."""

    def __init__(self, process: subprocess.Popen, found: Found):
        self.process, self.found = process, found

    def __enter__(self) -> Ending:
        return self

    def ask(self, trial: Trial, after: float) -> None:
        number = NUMBERS[trial.signal]
        try:
            self.process.wait(after)
        except subprocess.TimeoutExpired:
            pass
        asked = time.monotonic()
        self._send(number, trial.group)
        if trial.times == 2:
            try:
                self.process.wait(trial.apart)
            except subprocess.TimeoutExpired:
                self._send(number, trial.group)
        try:
            self.process.wait(max(asked + SECONDS + 30 - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            self.found.late.append("not within 33 s")
            return
        self.found.seconds, code = time.monotonic() - asked, self.process.returncode
        self.found.code = code if code >= 0 else 128 - code
        self.found.at_once = code < 0
        if self.found.seconds > SECONDS:
            self.found.late.append(f"after {self.found.seconds:.2f} s")

    def _send(self, number: int, group: bool) -> None:
        if self.process.poll() is None:
            (os.killpg if group else os.kill)(self.process.pid, number)

    def __exit__(self, *_) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def examine(trial: Trial, found: Found, folder: Path) -> None:
    """Look at what a command left behind when it had ended."""
    for pid, told in below(f"{MARKER}={folder}"):
        found.leftovers.append(f"process {pid}: {told}")
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    text = (folder / "stderr").read_bytes().decode(errors="replace")
    lines = shown(text)
    found.finished = found.code == 0
    wanted = 128 + NUMBERS[trial.signal]
    if found.code not in (0, wanted):
        found.codes.append(f"{found.code}, wanted {wanted}")
    ours = [line for line in lines if ": error: " in line and "finished results stay" in line]
    if "Traceback" in text or len(lines) > 1 or len(ours) + found.at_once != (found.code != 0):
        found.words.append(" | ".join(lines) or "nothing was told")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if name.parts[0] == "cache":
            continue
        if path.name.startswith(".jstyle-") or (name.parts[0] == "tmp" and len(name.parts) == 2):
            found.leftovers.append(f"{name}")
        elif path.is_file() and (fault := damage(path)):
            found.damaged.append(f"{name}: {fault}")


BARS = r"\d+%\||^Compiling Operators\(|^(jstyle|jdream\w+): (?!error: )"


def shown(text: str) -> list[str]:
    """The lines on stderr that are neither bars nor what a first start is told."""
    lines = [line.split("\r")[-1].strip() for line in text.splitlines()]
    return [line for line in lines if line and not re.search(BARS, line)]


def below(marker: str) -> Iterator[tuple[int, str]]:
    """(number, command) of the processes that have the marker in their environment."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if marker.encode() in path.read_bytes().split(b"\0"):
                told = (path.parent / "cmdline").read_bytes().replace(b"\0", b" ")
                if told:
                    yield int(path.parent.name), told.decode(errors="replace")[:200]
        except OSError:  # gone meanwhile
            continue


def damage(path: Path) -> str | None:
    """Why a file is not whole, or None."""
    try:
        if path.suffix == ".png":
            Image.open(path).load()
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".jsonl":
            [json.loads(line) for line in path.read_text().splitlines()]
        elif path.suffix == ".safetensors":
            with safe_open(path, "np") as tensors:
                [tensors.get_tensor(name) for name in tensors.keys()]  # noqa: SIM118
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


TIMES = {"seconds", "time", "started", "finished", "step_seconds"}  # differ from run to run
TIMES |= {"measured"}  # how long a stage took, for how much of it


def contents(folder: Path) -> dict[str, bytes]:
    """Relative path -> bytes of the results, without what is told of times."""
    found = {}
    for path in sorted((folder / "out").rglob("*")) if (folder / "out").is_dir() else ():
        if path.is_file() and "tfevents" not in path.name:
            found[str(path.relative_to(folder))] = without_times(path)
    return found


def without_times(path: Path) -> bytes:
    if path.suffix == ".json":
        return json.dumps(_timeless(json.loads(path.read_text()))).encode()
    if path.suffix == ".jsonl":
        lines = map(json.loads, path.read_text().splitlines())
        return json.dumps([_timeless(line) for line in lines]).encode()
    return path.read_bytes()


def _timeless(value):
    if isinstance(value, dict):
        return {name: _timeless(one) for name, one in value.items() if name not in TIMES}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def differences(expected: dict[str, bytes], found: dict[str, bytes]) -> list[str]:
    lines = [f"missing {name}" for name in expected if name not in found]
    lines += [f"unexpected {name}" for name in found if name not in expected]
    both = set(expected) & set(found)
    return lines + [f"other bytes in {n}" for n in sorted(both) if expected[n] != found[n]]


def hiding(folder: Path, hidden: tuple[str, ...]) -> list[str]:
    """Words before a command to which these folders of Jittor's cache are others, at first empty.

    In a mount namespace, since the files that stay know their own paths.
    """
    if not hidden:
        return []
    core = next(toolchain.cache_root().glob("jt*/**/gen")).parent
    script = ""
    for name in hidden:
        (folder / "cache" / name).mkdir(parents=True, exist_ok=True)
        script += f"mount --bind '{folder / 'cache' / name}' '{core / name}' && "
    return ["unshare", "-rm", "sh", "-c", script + 'exec "$@"', "sh"]


def can_hide() -> bool:
    """Whether this system lets a process have mounts of its own."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return not subprocess.call([*hiding(Path(folder), ("tmp",)), "true"])
        except (OSError, StopIteration):
            return False


HEADINGS = ("command", "signal", "runs", "finished", "in time", "worst s", "codes", "stderr")
HEADINGS += ("left over", "damaged", "same bytes")


def table(done: list[tuple[Trial, Found]]) -> str:
    """One row per command and signal, with the number of runs in which something was wrong."""
    rows = [HEADINGS]
    for name in (*dict.fromkeys(trial.name for trial, _ in done), "all"):
        for kind in NUMBERS:
            some = [f for t, f in done if name in (t.name, "all") and t.signal == kind]
            if some:
                wrong = [sum(bool(getattr(f, k)) for f in some) for k in Found.__annotations__]
                late, codes, words, leftovers, damaged, other = wrong[4:]
                row = (name, kind, len(some), sum(f.finished for f in some), len(some) - late)
                row += (f"{max(f.seconds for f in some):.2f}", codes, words, leftovers, damaged)
                rows.append(tuple(map(str, (*row, len(some) - other))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", default=",".join(COMMANDS))
    parser.add_argument("--skip", type=int, default=0, help="trials that were run before")
    parser.add_argument("--log", help="a file to which every trial is appended as JSON")
    parser.add_argument("--minutes", type=float, default=1e9, help="no trial starts after these")
    parser.add_argument("--cold-too", action="store_true", help="go on with few kernels, too")
    args = parser.parse_args()
    names, done, started = args.commands.split(","), [], time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="signals-"))
    bench = Bench(folder / "bench")
    for number, trial in enumerate(draw_trials(names, args.count, args.seed)):
        if number < args.skip or time.monotonic() - started > 60 * args.minutes:
            continue
        found = bench.run(trial, f"trial-{number}", cold_too=args.cold_too)
        done.append((trial, found))
        if args.log:
            with open(args.log, "a") as log:
                log.write(json.dumps([number, trial._asdict(), found.__dict__]) + "\n")
        for kind, faults in found.faults.items():
            print(f"{number} {trial}: {kind}: {faults}", flush=True)
    print(table(done))
    wrong = sum(bool(found.faults) for _, found in done)
    if wrong:
        print(f"{wrong} of {len(done)} went wrong; their folders are in {bench.folder}")
    else:
        shutil.rmtree(folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
