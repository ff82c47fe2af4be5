"""The arithmetic of a comparison, the limits, and which module is to blame."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import perf_counter

import numpy as np

from .recording import Recording
from .task import MODULE_STAGES

CHUNK = 1 << 20  # values that are widened to float64 at a time
JUMP = 10.0  # a module whose error is so many times that of its input has made it

# Relative L2 for float32 on both sides: at least nine times the largest error of 2026-11-20 (the
# shipped model, tiny ones of both generations, and SD 2.1's size with random weights; CPU).
LIMITS = {
    "text_encoder": 1e-5,
    "vae_encode": 6e-5,
    "vae_decode": 6e-5,
    "unet": 5e-5,
    "step": 5e-5,
    "inversion": 2e-4,
    "sampling": 2e-4,
    "styleid": 5e-4,
    "training": 2e-4,
}
# Where the UNet of one side computes in float16; unet: six times what the shipped model showed on
# the CPU; the others, which build on it, are not measured yet.
HALF_LIMITS = {"unet": 5e-2, "step": 5e-2, "inversion": 5e-2, "sampling": 5e-2, "styleid": 1e-1}


@dataclass(frozen=True)
class Sums:
    """What the measures of a pair of tensors are made from; sums of several pairs add up."""

    difference: float = 0.0  # sum of (a - b)^2
    own: float = 0.0  # sum of a^2
    reference: float = 0.0  # sum of b^2
    product: float = 0.0  # sum of a b
    max_abs: float = 0.0

    @classmethod
    def of(cls, a: np.ndarray, b: np.ndarray) -> Sums:
        """a: ours, b: the reference, of one shape; in float64, a chunk at a time."""
        a, b, total = a.reshape(-1), b.reshape(-1), cls()
        for start in range(0, a.size, CHUNK):
            x, y = (v[start : start + CHUNK].astype(np.float64) for v in (a, b))
            d = x - y
            most = float(np.abs(d).max())
            total += cls(float(d @ d), float(x @ x), float(y @ y), float(x @ y), most)
        return total

    def __add__(self, other: Sums) -> Sums:
        most = max(self.max_abs, other.max_abs)
        if math.isnan(self.max_abs + other.max_abs):  # max() would drop it
            most = math.nan
        return Sums(
            self.difference + other.difference,
            self.own + other.own,
            self.reference + other.reference,
            self.product + other.product,
            most,
        )

    @property
    def rel_l2(self) -> float:
        """|a - b| / |b|; infinite where a value is not finite, or b is 0 and a is not."""
        if not math.isfinite(self.difference):
            return math.inf
        if self.reference == 0.0:
            return math.inf if self.difference else 0.0
        return math.sqrt(self.difference / self.reference)

    @property
    def cosine(self) -> float:
        """Of the angle between a and b: 1 for equal ones, 0 where a value is not finite."""
        if not math.isfinite(self.difference):
            return 0.0
        if self.own == 0.0 or self.reference == 0.0:
            return float(self.own == self.reference)
        return self.product / math.sqrt(self.own * self.reference)


@dataclass(frozen=True)
class Row:
    """One entry of a stage, compared. note: why it could not be, then its error is infinite."""

    name: str
    sums: Sums
    note: str = ""


WRONG_SHAPE = Sums(difference=math.inf, max_abs=math.inf)


@dataclass
class StageRows:
    """A stage's rows in the order of computing, and the entries that only one side has."""

    name: str
    limit: float
    rows: list[Row] = field(default_factory=list)
    only_ours: list[str] = field(default_factory=list)
    only_theirs: list[str] = field(default_factory=list)
    seconds: float = 0.0
    their_seconds: float = 0.0

    @property
    def judged(self) -> list[Row]:
        """The rows that have to keep the limit. A training step's tensors of a kind count as one,
        since a gradient next to nothing is all rounding."""
        if self.name != "training":
            return self.rows
        joint: dict[str, Row] = {}
        for row in self.rows:
            kind = row.name.partition("/")[0]
            before = joint.get(kind, Row(kind, Sums()))
            joint[kind] = replace(before, sums=before.sums + row.sums, note=before.note or row.note)
        return list(joint.values())

    @property
    def worst(self) -> Row | None:
        return max(self.judged, key=lambda row: row.sums.rel_l2, default=None)

    @property
    def passed(self) -> bool:
        """False also if nothing was compared: a stage without a common name proves nothing."""
        return bool(self.rows) and self.worst.sums.rel_l2 <= self.limit


class Comparer:
    """A sink like Recorder that compares every value with a recording at once and forgets it."""

    def __init__(self, reference: Recording, slack: float = 1.0, half: bool = False):
        """slack: what the limits are multiplied with. half: a UNet computes in float16."""
        self.reference, self.slack = reference, slack
        self.limits = LIMITS | HALF_LIMITS if half else LIMITS
        self.stages: list[StageRows] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        found = StageRows(name, self.limits[name] * self.slack)
        found.their_seconds = self.reference.seconds(name)
        self._rows, self._left = found, self.reference.entries(name)
        started = perf_counter()
        with self.reference.open(name) as self._read:
            yield
        found.seconds = round(perf_counter() - started, 3)
        found.only_theirs = list(self._left)
        self.stages.append(found)

    def put(self, name: str, values: np.ndarray) -> None:
        stored = self._left.pop(name, None)
        if stored is None:
            self._rows.only_ours.append(name)
            return
        wanted = self._read(stored)
        if values.shape != wanted.shape:
            note = f"shape {list(values.shape)}, the reference has {list(wanted.shape)}"
            self._rows.rows.append(Row(name, WRONG_SHAPE, note))
            return
        self._rows.rows.append(Row(name, Sums.of(values, wanted)))


@dataclass(frozen=True)
class Jump:
    """The module to look at first. Errors are relative L2; of_input is None where it has none."""

    module: str
    stage: str
    of_input: float | None
    error: float
    sudden: bool  # False: above the limit, but its input was about as far off


def first_jump(stages: list[StageRows]) -> Jump | None:
    """The first module, in the order in which modules finish, that is above its stage's limit and
    JUMP times as far off as its input; else the first above the limit; else None."""
    gradual = None
    for stage in stages:
        if stage.name not in MODULE_STAGES:
            continue
        errors = {row.name: row.sums.rel_l2 for row in stage.rows}
        for name, error in errors.items():
            module, _, side = name.rpartition(".")
            if side != "out" or not module or error <= stage.limit:
                continue
            of_input = errors.get(f"{module}.in")
            sudden = of_input is None or error > JUMP * of_input
            jump = Jump(full_name(stage.name, module), stage.name, of_input, error, sudden)
            if sudden:
                return jump
            gradual = gradual or jump
    return gradual


def full_name(stage: str, module: str) -> str:
    """The name by which a user calls a module: those of the UNet as they are, others with their
    part before."""
    part = {"vae_encode": "vae.", "vae_decode": "vae.", "text_encoder": "text_encoder."}
    return part.get(stage, "") + module
