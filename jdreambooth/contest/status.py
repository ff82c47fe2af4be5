"""`jdreambooth contest status`: a line per style, a column per stage."""

from __future__ import annotations

from .folders import read_record
from .manifest import read_manifest
from .plan import Plan, Row, State, make_plan
from .run import make_tasks

STAGES = ("prior", "train", "pick", "generate", "refine", "choose")
CELLS = {State.MISSING: "to do", State.WAITING: "to do"}  # the others say their own name


def status(folder: str) -> tuple[Plan, str]:
    """The plan of what is left, and a table. Raises OutError, or what a run would raise."""
    record = read_record(folder)
    plan = make_plan(make_tasks(record))
    picked = {}
    for row in plan.rows:
        if row.stage == "pick" and row.is_done:
            found = read_manifest(record.out.stage(row.style, "pick"))
            picked[row.style] = f"step {found.facts['step']}"
    return plan, table(plan, picked)


def table(plan: Plan, picked: dict[str, str]) -> str:
    """The styles and their stages as text. picked: style -> what to show of a finished pick."""
    used = [stage for stage in STAGES if any(row.stage == stage for row in plan.rows)]
    cells = {(row.style, row.stage): _cell(row, picked) for row in plan.rows}
    lines = [["style", *used]]
    for style in dict.fromkeys(row.style for row in plan.rows):
        lines.append([style, *(cells.get((style, stage), "") for stage in used)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )
    return "\n".join(line.rstrip() for line in padded)


def _cell(row: Row, picked: dict[str, str]) -> str:
    if row.is_done and row.stage == "pick":
        return picked.get(row.style, State.DONE.value)
    if row.state is State.INTERRUPTED:
        return f"{row.share:.0%}"
    return CELLS.get(row.state, row.state.value)
