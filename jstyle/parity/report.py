"""What came out: parity.json and the table for the terminal."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from .compare import Jump, Row, StageRows, first_jump
from .task import Task

DRIFTING = ("inversion", "sampling", "styleid")  # stages with a latent per step


@dataclass(frozen=True)
class Report:
    """A finished comparison. ours, reference: who computed, on what; see the package's
    docstring. fault: the module that was made wrong on purpose."""

    task: Task
    stages: list[StageRows]
    ours: dict
    reference: dict
    fault: str | None = None

    @property
    def passed(self) -> bool:
        return all(stage.passed for stage in self.stages)

    @property
    def jump(self) -> Jump | None:
        return first_jump(self.stages)

    def as_text(self) -> str:
        """The table, what was not compared, the module to look at, and the verdict."""
        return _text(self)

    def to_json(self) -> dict:
        return {
            "passed": self.passed,
            "first_jump": None if self.jump is None else _finite(asdict(self.jump)),
            "injected_fault": self.fault,
            "task": asdict(self.task),
            "ours": self.ours,
            "reference": self.reference,
            "stages": {stage.name: _stage(stage) for stage in self.stages},
        }


def _stage(stage: StageRows) -> dict:
    worst = stage.worst
    return {
        "passed": stage.passed,
        "limit": stage.limit,
        "worst": None if worst is None else _row(worst),
        "seconds": stage.seconds,
        "reference_seconds": stage.their_seconds,
        "only_ours": stage.only_ours,
        "only_reference": stage.only_theirs,
        "entries": [_row(row) for row in stage.rows],
    }


def _row(row: Row) -> dict:
    values = {
        "name": row.name,
        "rel_l2": row.sums.rel_l2,
        "max_abs": row.sums.max_abs,
        "cosine": row.sums.cosine,
    }
    return _finite(values | ({"note": row.note} if row.note else {}))


def _finite(values: dict) -> dict:
    """JSON has no number for what is not finite: null, and what could not be told is wrong."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v
            for k, v in values.items()}  # fmt: skip


def drift(stage: StageRows) -> list[tuple[int, float]]:
    """(step from 0, relative L2 of the latent) of a stage that walks in steps."""
    return [(int(row.name), row.sums.rel_l2) for row in stage.rows if row.name.isdigit()]


def _text(report: Report) -> str:
    head = f"{'stage':<13} {'values':>6} {'rel. L2':>9} {'max abs':>9} {'1 - cos':>9} {'limit':>9}"
    lines = [head + f" {'ours':>8} {'theirs':>8}"]
    lines += [_line(stage) for stage in report.stages]
    for stage in report.stages:
        lines += _remarks(stage)
    if report.jump is not None:
        lines.append(told(report.jump))
    bad = [stage.name for stage in report.stages if not stage.passed]
    lines.append("all within the limits" if not bad else f"beyond the limit: {', '.join(bad)}")
    return "\n".join(lines)


def told(jump: Jump) -> str:
    """One sentence about the module to look at first."""
    before = (
        "it has no input" if jump.of_input is None else f"its input is off by {jump.of_input:.1e}"
    )
    how = "jumps" if jump.sudden else "passes the limit without a jump"
    return f"first error that {how}: {jump.module} ({before}, its output by {jump.error:.1e})"


def _line(stage: StageRows) -> str:
    worst = stage.worst
    measures = f"{'-':>9} {'-':>9} {'-':>9}"
    if worst is not None:
        apart = max(0.0, 1 - worst.sums.cosine)
        measures = f"{worst.sums.rel_l2:9.1e} {worst.sums.max_abs:9.1e} {apart:9.1e}"
    state = "" if stage.passed else f"  FAIL {'' if worst is None else worst.name}"
    seconds = f"{stage.seconds:6.1f} s {stage.their_seconds:6.1f} s"
    return f"{stage.name:<13} {len(stage.rows):>6} {measures} {stage.limit:9.1e} {seconds}{state}"


def _remarks(stage: StageRows) -> list[str]:
    """What was not compared, and why."""
    lines = [f"{stage.name}: {row.name}: {row.note}" for row in stage.rows if row.note]
    for side, names in (("ours", stage.only_ours), ("the reference", stage.only_theirs)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            lines.append(f"{stage.name}: only in {side}: {', '.join(names[:3])}{more}")
    return lines
