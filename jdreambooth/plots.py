"""The loss of a run as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jstyle.sd import files
from jstyle.sd.reading import parse_json, read_lines

LOSSES = ("loss", "instance", "prior")
SMOOTHED_OVER = 1 / 20  # of the run


def read_metrics(path: str | Path) -> dict[str, np.ndarray]:
    """Name -> values over the steps, of a metrics.jsonl; nan where a line lacks the name.

    A last line that a killed process left unfinished is ignored. Raises ValueError if there is
    nothing to read or the file cannot be.
    """
    lines = []
    for text in read_lines(path):
        try:
            lines.append(parse_json(text, path))
        except ValueError:
            break
    if not lines:
        raise ValueError(f"{path}: no steps are recorded yet")
    names = list(dict.fromkeys(name for line in lines for name in line))
    return {name: np.array([line.get(name, np.nan) for line in lines], float) for name in names}


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """The mean over the last `width` values (fewer at the start), nan left out."""
    good = np.isfinite(values)
    sums = np.cumsum(np.where(good, values, 0.0))
    counts = np.cumsum(good).astype(float)
    sums[width:], counts[width:] = sums[width:] - sums[:-width], counts[width:] - counts[:-width]
    return np.divide(sums, counts, out=np.full(len(values), np.nan), where=counts > 0)


def plot_losses(metrics: str | Path, out: str | Path, saved_at: Sequence[int] = ()) -> None:
    """Draw the losses over the steps: every value faint, the mean of a twentieth of the run bold.

    saved_at: steps that get a dashed line. Raises ValueError without any steps.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = read_metrics(metrics)
    steps = found["step"]
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for i, name in enumerate(name for name in LOSSES if name in found):
        width = max(1, round(len(steps) * SMOOTHED_OVER))
        axes.plot(steps, found[name], color=f"C{i}", alpha=0.2, linewidth=0.8)
        axes.plot(steps, smooth(found[name], width), color=f"C{i}", linewidth=1.8, label=name)
    for step in saved_at:
        axes.axvline(step, color="grey", linestyle="--", linewidth=0.8)
    axes.set(xlabel="step", ylabel="loss", xlim=(0, steps[-1] + 1))
    axes.set_ylim(bottom=0)
    axes.legend()
    with files.atomic_write(out) as part:
        figure.savefig(part, format="png")
