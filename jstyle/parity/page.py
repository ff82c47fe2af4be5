"""The report as one HTML page that needs nothing else: a table and two plots in SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from ..sd.targets import GENERATOR
from .compare import JUMP, full_name
from .report import DRIFTING, Report, drift, told
from .task import MODULE_STAGES

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 960, 340, 64, 16, 16, 40
FLOOR = 1e-9  # what is drawn for an error of 0
POLICY = (  # nothing runs and nothing is fetched, whatever a prompt or a name holds
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
)
COLOURS = ("#1f77b4", "#d95f02", "#2a9d5c", "#8e5bb5")
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; margin: 2rem auto; max-width: 1040px; }
table { border-collapse: collapse; font-size: 14px; }
th, td { padding: .2rem .6rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } tr { border-bottom: 1px solid #ddd; }
.ok { color: #2a7d46; } .bad { color: #b3261e; font-weight: 600; }
svg { width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: #444; }
code { font-size: .92em; } pre { white-space: pre-wrap; color: #555; }
"""


class Point(NamedTuple):
    x: float
    error: float
    label: str
    marked: bool = False


class Series(NamedTuple):
    name: str
    points: list[Point]
    joined: bool
    limit: float


def as_html(report: Report) -> str:
    verdict = ("ok", "within the limits") if report.passed else ("bad", "beyond the limits")
    jump = "" if report.jump is None else f"<p class=bad>{escape(told(report.jump))}</p>"
    fault = ""
    if report.fault is not None:
        fault = f"<p>Made wrong on purpose: <code>{escape(report.fault)}</code></p>"
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8>{POLICY}{GENERATOR}",
        f"<title>Parity of {escape(report.task.source)}</title><style>{STYLE}</style>",
        f"<h1>Parity of {escape(report.task.source)}</h1>",
        f"<p class={verdict[0]}>{verdict[1]}</p>{jump}{fault}",
        _sides(report),
        _table(report),
        f"<h2>Error per module</h2><p>Outputs in the order of computing; a module is named when "
        f"its error is {JUMP:g} times that of its input and beyond the limit (dashed).</p>",
        _plot(_modules(report), "module", COLOURS),
        "<h2>Drift per step</h2><p>Relative L2 of the latent after each step.</p>",
        _plot(_drifts(report), "step", COLOURS),
    ]
    return "\n".join(parts) + "\n</html>\n"


def _sides(report: Report) -> str:
    told_ = []
    for role, facts in (("compared", report.ours), ("reference", report.reference)):
        versions = ", ".join(f"{k} {v}" for k, v in facts.get("versions", {}).items())
        told_.append(
            f"{role}: {facts.get('side')} on {facts.get('device')}, {facts.get('dtype')}, "
            f"peak {facts.get('peak_mib')} MiB ({versions})"
        )
    task = report.task
    told_.append(f"{task.steps} steps, {task.size_px} px, seed {task.seed}, {task.prompt!r}")
    return f"<pre>{escape(chr(10).join(told_))}</pre>"


def _table(report: Report) -> str:
    names = ("stage", "values", "worst", "rel. L2", "max abs", "cosine", "limit", "s", "theirs", "")
    rows = ["<tr>" + "".join(f"<th>{name}" for name in names)]
    for stage in report.stages:
        worst = stage.worst
        cells = [stage.name, len(stage.rows), "-", "-", "-", "-"]
        if worst is not None:
            sums = worst.sums
            cells[2:] = [
                worst.name,
                _short(sums.rel_l2),
                _short(sums.max_abs),
                f"{sums.cosine:.9f}",
            ]
        cells += [_short(stage.limit), f"{stage.seconds:.1f}", f"{stage.their_seconds:.1f}"]
        mark = "<td class=ok>ok" if stage.passed else "<td class=bad>FAIL"
        rows.append("<tr>" + "".join(f"<td>{escape(str(cell))}" for cell in cells) + mark)
    return f"<table>{''.join(rows)}</table>"


def _modules(report: Report) -> list[Series]:
    series, at = [], 0
    culprit = None if report.jump is None else report.jump.module
    for stage in report.stages:
        if stage.name not in MODULE_STAGES:
            continue
        points = []
        for row in stage.rows:
            module, _, side = row.name.rpartition(".")
            if side == "out" and module:
                name = full_name(stage.name, module)
                at += 1
                error = row.sums.rel_l2
                points.append(Point(at, error, f"{name}: {_short(error)}", name == culprit))
        series.append(Series(stage.name, points, False, stage.limit))
    return series


def _drifts(report: Report) -> list[Series]:
    series = []
    for stage in report.stages:
        if stage.name in DRIFTING:
            label = "{}, step {}: {}".format
            points = [Point(i + 1, e, label(stage.name, i + 1, _short(e))) for i, e in drift(stage)]
            series.append(Series(stage.name, points, True, stage.limit))
    return series


def _plot(series: Sequence[Series], unit: str, colours: Sequence[str]) -> str:
    """Errors on a logarithmic axis; pointing at one tells its name."""
    series = [s for s in series if s.points]
    if not series:
        return "<p>not computed</p>"
    values = [_drawn(p.error) for s in series for p in s.points] + [s.limit for s in series]
    low, high = (f(math.log10(e(values))) for f, e in ((math.floor, min), (math.ceil, max)))
    xs = [p.x for s in series for p in s.points]
    first, span = min(xs), max(max(xs) - min(xs), 1)

    def across(x: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (x - first) / span, 1)

    def down(error: float) -> float:
        share = (high - math.log10(_drawn(error))) / max(high - low, 1)
        return round(TOP + (HEIGHT - TOP - BOTTOM) * share, 1)

    shapes = [_grid(low, high, down)]
    for i, (one, colour) in enumerate(zip(series, colours, strict=False)):
        shapes += _shapes(one, colour, across, down)
        x = LEFT + 8 + 150 * i
        shapes.append(f'<rect x="{x}" y="{HEIGHT - 14}" width="10" height="10" fill="{colour}"/>')
        shapes.append(f'<text x="{x + 14}" y="{HEIGHT - 5}">{one.name}</text>')
    ends = f"{unit} {first:g} to {max(xs):g}"
    shapes.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 5}" text-anchor="end">{ends}</text>')
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(shapes)}</svg>'


def _drawn(error: float) -> float:
    return min(max(error, FLOOR), 1e3)  # what is not finite is drawn at the top


def _grid(low: int, high: int, down) -> str:
    lines = []
    for power in range(low, high + 1):
        y = down(10.0**power)
        lines.append(f'<path d="M{LEFT} {y}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        lines.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">1e{power}</text>')
    return "".join(lines)


def _shapes(series: Series, colour: str, across, down) -> list[str]:
    xs = [across(p.x) for p in series.points]
    limit = f"M{min(xs)} {down(series.limit)}H{max(max(xs), min(xs) + 12)}"
    shapes = [f'<path d="{limit}" stroke="{colour}" stroke-dasharray="5 4"/>']
    if series.joined:
        line = " ".join(f"{across(p.x)},{down(p.error)}" for p in series.points)
        shapes.append(f'<polyline points="{line}" fill="none" stroke="{colour}"/>')
    for point in series.points:
        at, title = f'cx="{across(point.x)}" cy="{down(point.error)}"', escape(point.label)
        shapes.append(f'<circle {at} r="2.6" fill="{colour}"><title>{title}</title></circle>')
        if point.marked:
            shapes.append(f'<circle {at} r="7" fill="none" stroke="#b3261e" stroke-width="2"/>')
    return shapes


def _short(value: float) -> str:
    return f"{value:.1e}"
