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
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml

from tests import tiny
from tests.contests import make_contest, save
from tests.e2e.aftermath import MARKER, Found, contents, differences, examine
from tests.e2e.stages import PROBE, STACKS, stage_of

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = {"TERM": signal.SIGTERM, "INT": signal.SIGINT, "HUP": signal.SIGHUP}
SECONDS = 3.0  # in which a command has to end
TRAIN = (
    "train --instance-dir ../inputs/pictures --instance-prompt {prompt} --model ../inputs/model "
    "--size-px 32 --rank 2 --steps {steps} --save-at {saved} --learning-rate 1e-2 "
    "--checkpoint-every 2 --sample-every 4 --sample-prompts cat --sample-steps 2 --resume auto"
)
TRAIN_8 = TRAIN.format(prompt="sks", steps=8, saved=4) + " --out out"
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
    "train": Command("jdreambooth", TRAIN_8),
    "stylize": Command("jstyle", STYLIZE),
    "contest": Command("jdreambooth", CONTEST),
    "contest-jobs": Command("jdreambooth", CONTEST + " --jobs 2"),
    "pick": Command("jdreambooth", "pick out --prompts cat dog --steps 2 --draws 1", given="run"),
    "warmup": Command("jstyle", WARMUP),
    "warmup-cold": Command("jstyle", WARMUP, hidden=("jit", "tmp"), usual=12.0),
    "stylize-cold": Command("jstyle", STYLIZE, hidden=("jit", "tmp"), usual=12.0),
    "train-cold": Command("jdreambooth", TRAIN_8, hidden=("jit", "tmp"), usual=20.0),
    "warmup-ops": Command("jstyle", WARMUP, hidden=("custom_ops",), usual=12.0),
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


def draw_trials(names: list[str], count: int, seed: int) -> list[Trial]:
    """`count` trials, dealt out to the commands and signals in turn; the rest is random, the moment
    rather late than early, since a command starts longer than it works here."""
    rng, trials = random.Random(seed), []
    for number in range(count):
        kind = list(NUMBERS)[number // len(names) % 3]
        words = (
            rng.choice((1, 2)),
            rng.random() < 0.5,
            rng.triangular(0.0, 1.1, 1.0),
            rng.random(),
        )
        trials.append(Trial(names[number % len(names)], kind, *words))
    return trials


class Bench:
    """A folder with the inputs, the undisturbed results, and a folder for each trial. What is there
    from an earlier call is taken, if it is of the same sources."""

    def __init__(self, folder: Path):
        self.folder = folder / f"bench-{_sources()}"
        self.inputs, self.known = self.folder / "inputs", self.folder / "expected.json"
        self.expected: dict[str, tuple[dict, float]] = {}
        for number in NUMBERS.values():  # what is ignored here (nohup, &) would be there, too
            if signal.getsignal(number) is signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        if self.known.exists():
            self.expected = json.loads(self.known.read_text())
        else:
            self._make_inputs()

    def _make_inputs(self) -> None:
        self.inputs.mkdir(parents=True)
        for number in range(2):
            for kind in ("pictures", "styles"):
                (self.inputs / kind).mkdir(exist_ok=True)
                save(self.inputs / kind / f"{number}.png", 10 * number + len(kind))
        make_contest(self.inputs)
        tiny.make_ours("sd2").save_pretrained(self.inputs / "model", "float32")
        (self.inputs / "contest.yaml").write_text(yaml.safe_dump(CONTEST_VALUES))

    def expect(self, name: str) -> tuple[dict, float]:
        """(digests of the files, seconds) of an undisturbed run."""
        if name not in self.expected:
            command = COMMANDS[name]
            if command.given == "run" and not (self.inputs / "run").exists():
                words = TRAIN.format(prompt="sks", steps=4, saved=2) + " --out ../inputs/run"
                plain = self.make_folder(COMMANDS["train"], "run")
                self._finish(Command("jdreambooth", words), plain)
            if command.hidden:
                plain = name.partition("-")[0]
                self.expected[name] = (self.expect(plain)[0], command.usual)
            else:
                self.expected[name] = self._undisturbed(name, command)
            self.known.write_text(json.dumps(self.expected))
        return self.expected[name]

    def _undisturbed(self, name: str, command: Command) -> tuple[dict, float]:
        """Run twice, since the first time may compile."""
        for _ in range(2):
            folder = self.make_folder(command, f"{name}-undisturbed")
            started = time.monotonic()
            self._finish(command, folder)
            seconds = time.monotonic() - started
            found = contents(folder)
            shutil.rmtree(folder)
        return found, seconds

    def make_folder(self, command: Command, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        if command.given:
            shutil.copytree(self.inputs / command.given, folder / "out")
        return folder

    def start(self, command: Command, folder: Path, **how) -> subprocess.Popen:
        program, words, _, hidden, _ = command
        for below in ("tmp", "stacks"):
            (folder / below).mkdir(exist_ok=True)
        env = {**os.environ, "PYTHONPATH": f"{PROBE}:{ROOT}", MARKER: str(folder)}
        env |= {"TMPDIR": str(folder / "tmp"), STACKS: str(folder / "stacks")}
        process = subprocess.Popen(
            [*hiding(folder, hidden), sys.executable, "-m", program, *words.split()],
            cwd=folder,
            env=env,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            **how,
        )
        with suppress(OSError):  # a session is scheduled as a group, whose weight is its own
            Path(f"/proc/{process.pid}/autogroup").write_text(str(os.nice(0)))
        return process

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
            with Ending(process, found, folder / "stacks") as ending:
                ending.ask(trial, trial.at * usual)
        examine(128 + NUMBERS[trial.signal], found, folder)
        if go_on:
            try:
                self._finish(command if cold_too else command._replace(hidden=()), folder)
                found.went_on = True
                found.other += differences(files, contents(folder))
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                found.other.append(f"going on: {error}")
        if not found.faults:
            shutil.rmtree(folder)
        return found


class Ending:
    """Asks a process to end and waits for that, and ends it with all below it in any case."""

    def __init__(self, process: subprocess.Popen, found: Found, stacks: Path):
        self.process, self.found, self.stacks = process, found, stacks

    def __enter__(self) -> Ending:
        return self

    def ask(self, trial: Trial, after: float) -> None:
        number = NUMBERS[trial.signal]
        try:
            self.process.wait(after)
        except subprocess.TimeoutExpired:
            pass
        with suppress(OSError):  # it ends meanwhile
            self.found.stage, self.found.where = stage_of(self.process.pid, self.stacks)
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


def hiding(folder: Path, hidden: tuple[str, ...]) -> list[str]:
    """Words before a command to which these folders of Jittor's cache are others, at first empty.

    In a mount namespace, since the files that stay know their own paths.
    """
    if not hidden:
        return []
    core, script = _core(), ""
    for name in hidden:
        (folder / "cache" / name).mkdir(parents=True, exist_ok=True)
        script += f"mount --bind '{folder / 'cache' / name}' '{core / name}' && "
    return ["unshare", "-rm", "sh", "-c", script + 'exec "$@"', "sh"]


@cache
def _core() -> Path:
    """The folder of Jittor's core and kernels that the commands use."""
    script = "from jstyle.sd.startup import jt; print(jt.flags.cache_path)"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    told = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, check=True)
    return Path(told.stdout.decode().strip())


def can_hide() -> bool:
    """Whether this system lets a process have mounts of its own."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return not subprocess.call([*hiding(Path(folder), ("tmp",)), "true"])
        except (OSError, subprocess.CalledProcessError):
            return False


def _sources() -> str:
    """A name for what the commands do: a digest of the packages' sources."""
    digest = hashlib.sha256()
    for package in ("jstyle", "jdreambooth"):
        for path in sorted((ROOT / package).rglob("*.*")):
            if path.suffix in (".py", ".cc", ".h", ".html", ".json"):
                digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


HEADINGS = ("command", "signal", "runs", "finished", "in time", "worst s", "codes", "stderr")
HEADINGS += ("left over", "damaged", "went on", "same bytes")
FAULTS = ("late", "codes", "words", "leftovers", "damaged", "other")


def table(done: list[tuple[Trial, Found]]) -> str:
    """One row per command and signal, with the number of runs in which something was wrong; then
    how often, to whom and at what the signals came."""
    rows = [HEADINGS]
    for name in (*dict.fromkeys(trial.name for trial, _ in done), "all"):
        for kind in NUMBERS:
            some = [f for t, f in done if name in (t.name, "all") and t.signal == kind]
            if some:
                wrong = [sum(bool(getattr(f, fault)) for f in some) for fault in FAULTS]
                late, codes, words, leftovers, damaged, other = wrong
                row = (name, kind, len(some), sum(f.finished for f in some), len(some) - late)
                row += (f"{max(f.seconds for f in some):.2f}", codes, words, leftovers, damaged)
                went_on = sum(f.went_on for f in some)
                rows.append(tuple(map(str, (*row, went_on, went_on - other))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    met = [(trial, found) for trial, found in done if not found.finished]
    ways = Counter(
        f"{('once', 'twice')[t.times - 1]} to the {('process', 'group')[t.group]}" for t, _ in met
    )
    for counted in (ways, Counter(f.stage for _, f in met)):
        lines.append(", ".join(f"{word} {many}" for word, many in counted.most_common()))
    return "\n".join(lines)


def read_log(path: str) -> list[tuple[Trial, Found]]:
    """What --log wrote."""
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    return [(Trial(**trial), Found(**found)) for _, trial, found in rows]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", default=",".join(COMMANDS))
    parser.add_argument("--skip", type=int, default=0, help="trials that were run before")
    parser.add_argument("--log", help="a file to which every trial is appended as JSON")
    parser.add_argument("--table", help="run nothing, show what a log holds")
    parser.add_argument("--keep", help="a folder in which inputs and undisturbed runs stay")
    parser.add_argument("--minutes", type=float, default=1e9, help="no trial starts after these")
    parser.add_argument("--cold-too", action="store_true", help="go on with few kernels, too")
    args = parser.parse_args()
    if args.table:
        print(table(read_log(args.table)))
        return 0
    names, done, started = args.commands.split(","), [], time.monotonic()
    folder = Path(args.keep or tempfile.mkdtemp(prefix="signals-"))
    bench = Bench(folder)
    for number, trial in enumerate(draw_trials(names, args.count, args.seed)):
        if number < args.skip or time.monotonic() - started > 60 * args.minutes:
            continue
        name = f"trial-{args.seed}-{number}"
        shutil.rmtree(bench.folder / name, ignore_errors=True)
        found = bench.run(trial, name, cold_too=args.cold_too)
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
    elif not args.keep:
        shutil.rmtree(folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
