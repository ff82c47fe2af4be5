"""The record of a check, kept as JSON while it runs, and its table."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from statistics import median

from jstyle.sd.files import write_json

from . import measure
from .preflight import Preflight

HEAD = "| check | state | side | ms | of PyTorch | first, s | GPU MiB | plan | differs by |"


class Report:
    """gpu.json and gpu.md in a folder; written anew with everything that is added."""

    def __init__(self, folder: Path, found: Preflight, command: str):
        self.folder = folder
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self.record = {"date": date, "command": command, "preflight": found.record()}
        self.record |= {"start": {}, "checks": []}

    def start(self, seconds: float | None, error: str = "") -> None:
        self.record["start"] = {"seconds": seconds, "error": error}
        self.write()

    def add(self, check: dict) -> None:
        self.record["checks"].append(check)
        self.write()
        print(line(check), flush=True)

    def write(self) -> None:
        write_json(self.folder / "gpu.json", self.record)
        (self.folder / "gpu.md").write_text(table(self.record), encoding="utf-8")

    def named(self, state: str) -> list[str]:
        return [check["check"] for check in self.record["checks"] if check["state"] == state]


def line(check: dict) -> str:
    """One line for the screen."""
    sides = check.get("sides", {})
    parts = [f"{name} {1e3 * measure.seconds(turns):.1f} ms" for name, turns in sides.items()]
    parts += [f"{error:.1e} from {name}" for name, error in check.get("agreement", {}).items()]
    parts += [f"{name} failed: {_last(why)}" for name, why in check.get("failed", {}).items()]
    return f"{check['state']:<6} {check['check']}: {', '.join(parts) or 'no time was left'}"


def table(record: dict) -> str:
    """Markdown: what ran where, then a row for every side of every check."""
    found = record["preflight"]
    cuda, torch = found["cuda"], found["torch"]
    versions = ", ".join(f"{name} {v}" for name, v in torch["versions"].items()) or "no PyTorch"
    started = record["start"].get("seconds")
    lines = [
        f"{found['gpu'] or 'GPU of unknown name'}; CUDA {cuda['version']}; {versions}; "
        f"{record['date']}; start {'failed' if started is None else f'{started:.0f} s'}",
        "",
        HEAD,
        "|" + "---|" * (HEAD.count("|") - 1),
    ]
    for check in record["checks"]:
        lines += _rows(check)
    return "\n".join(lines) + "\n"


def _rows(check: dict) -> list[str]:
    sides, failed = check.get("sides", {}), check.get("failed", {})
    title = [check["check"], check["state"]]
    found = [[name, *_figures(check, name, turns)] for name, turns in sides.items()]
    found += [[name, "failed", "", "", "", "", _last(why)] for name, why in failed.items()]
    found = found or [["-", *[""] * 6]]
    names = [title, *([["", ""]] * (len(found) - 1))]
    return ["| " + " | ".join([*t, *row]) + " |" for t, row in zip(names, found, strict=True)]


def _figures(check: dict, name: str, turns: list[dict]) -> list[str]:
    """Milliseconds, ratio to PyTorch in the same dtype, first run, memory, plan, difference."""
    seconds, who = measure.seconds(turns), name.split()
    other = check["sides"].get(" ".join(["torch", *who[1:]])) if who[0] == "ours" else None
    peaks = [turn["device_mib"] for turn in turns if turn.get("device_mib")]
    planned, error = check["plan"].get(name), check["agreement"].get(name)
    return [
        f"{1e3 * seconds:.1f}",
        f"{seconds / measure.seconds(other):.2f}" if other else "",
        f"{median(turn['first'] for turn in turns):.2f}",
        f"{max(peaks):.0f}" if peaks else "",
        f"{planned:.0f}" if planned else "",
        "" if error is None else f"{error:.1e}",
    ]


def _last(text: str) -> str:
    """The last line that says anything, fit for a cell."""
    lines = [part.strip() for part in text.splitlines() if part.strip()] or ["no reason told"]
    return lines[-1][:160].replace("|", "/")
