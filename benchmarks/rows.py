"""One row of the results: how it was measured, and the figures drawn from its times.

Ours and the reference run in turns, each time in a process of its own. A round is one turn of each;
times of one round were taken within minutes of one another, so ratios are formed within a round,
and the row's ratio is the median over the rounds.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from jstyle.sd.files import write_json


@dataclass(frozen=True)
class Turn:
    """What one process measured. Seconds; `first` is the first run, compiling included."""

    side: str
    round: int
    first: float
    times: list[float]
    peak_mib: float
    ready_mib: float  # resident memory before the first run
    device_mib: float | None = None  # held by the GPU's allocator


@dataclass
class Row:
    """A work at one size on one device. facts: commit, versions, machine, command, date."""

    work: str
    size: str
    device: str
    flops: float = 0.0  # of the whole work
    units: int = 1  # the times are divided by: UNet evaluations of a pair
    agreement: float | None = None  # relative L2 between the two sides' results
    turns: list[Turn] = field(default_factory=list)
    facts: dict = field(default_factory=dict)

    def sides(self) -> list[str]:
        return list(dict.fromkeys(turn.side for turn in self.turns))

    def of(self, side: str) -> list[Turn]:
        return [turn for turn in self.turns if turn.side == side]

    def seconds(self, side: str) -> float:
        """The median over all runs but the first of each process, per unit."""
        return median(t for turn in self.of(side) for t in turn.times) / self.units

    def first_seconds(self, side: str) -> float:
        return median(turn.first for turn in self.of(side)) / self.units

    def spread(self, side: str) -> float:
        """(largest - smallest) / median of the times."""
        times = [t for turn in self.of(side) for t in turn.times]
        return (max(times) - min(times)) / median(times)

    def peak_mib(self, side: str) -> float:
        return median(turn.peak_mib for turn in self.of(side))

    def ratios(self, a: str = "ours", b: str = "torch") -> list[float]:
        """Median of a over median of b, for every round that has both."""
        medians = {(t.side, t.round): median(t.times) for t in self.turns}
        rounds = sorted({r for side, r in medians if side == a and (b, r) in medians})
        return [medians[a, r] / medians[b, r] for r in rounds]

    def limit_seconds(self, rate: float) -> float:
        """What the counted operations take at `rate` operations per second, per unit."""
        return self.flops / self.units / rate

    def save(self, path: Path) -> None:
        values = asdict(self) | {"summary": self.summary()}
        write_json(path, values)

    def summary(self) -> dict:
        """The figures of the row, for people and the table."""
        figures = {
            side: {
                "seconds": self.seconds(side),
                "spread": self.spread(side),
                "first_seconds": self.first_seconds(side),
                "peak_mib": self.peak_mib(side),
            }
            for side in self.sides()
        }
        ratios = self.ratios()
        if ratios:
            figures["ratio"] = {"median": median(ratios), "low": min(ratios), "high": max(ratios)}
            figures["peak_ratio"] = self.peak_mib("ours") / self.peak_mib("torch")
        return figures


def load(path: Path) -> Row:
    values = json.loads(path.read_text(encoding="utf-8"))
    values.pop("summary")
    turns = [Turn(**turn) for turn in values.pop("turns")]
    return Row(**values, turns=turns)


def relative_l2(a, b) -> float:
    """|a - b| / |b| over all elements in float64."""
    import numpy as np

    a, b = (np.asarray(x, np.float64).ravel() for x in (a, b))
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30))
