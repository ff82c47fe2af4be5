"""`jstyle demo`: the shipped pictures through the shipped model, and one labelled grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from ..config import StyleConfig
from ..methods.styleid import StyleID
from ..sd import hub, image
from ..sd.files import output_folder
from . import outputs
from .inputs import Picture, Started, check_picture, find_model, start
from .pairs import Pair, combine, make_pairs, name_results
from .stylize import Summary, run_pairs

PICTURES = hub.TINY / "demo"  # content_*.png, style_*.png, PROVENANCE.md
GRID = "grid.png"


@dataclass(frozen=True)
class DemoReport:
    """Seconds: Jittor's start, loading the model, the first evaluations (which compile kernels
    on a fresh machine), and the pictures themselves."""

    grid: Path
    summary: Summary
    start_seconds: float
    load_seconds: float
    warm_up_seconds: float
    pictures_seconds: float


def demo(
    out: str,
    cfg: StyleConfig,
    bar: Callable,
    device: str = "auto",
    pictures: Path = PICTURES,
    overwrite: bool = False,
) -> DemoReport:
    """Stylise every demo content in every demo style; finished results are kept. overwrite: also
    replace files that are no results of ours.

    Raises ImageError or HubError if the installation lacks pictures or model, OSError if it
    cannot write.
    """
    contents, styles = demo_pictures("content", pictures), demo_pictures("style", pictures)
    wanted = combine(contents, styles)
    paths = name_results(wanted, out)
    summary, seconds = Summary(), (0.0, 0.0, 0.0, 0.0)
    grid, read = Path(out) / GRID, [picture.path for picture in (*contents, *styles)]
    outputs.require_free([*paths, grid], overwrite, read)
    with output_folder(out):
        found = find_model("tiny")
        pairs = make_pairs(wanted, paths, StyleID, cfg, found)
        todo = [pair for pair in pairs if not outputs.is_finished(pair.out, pair.key)]
        summary.skipped = len(pairs) - len(todo)
        if todo:
            with start(found, device) as started:
                warm = _warm_up(started, todo[0], cfg)
                before = perf_counter()
                run_pairs(started, found, todo, StyleID, cfg, bar, summary)
                pictures_seconds = perf_counter() - before
                seconds = (started.start_seconds, started.load_seconds, warm, pictures_seconds)
        made = {"command": "demo", "results": [path.name for path in paths]}
        results = {(c, s): path for (c, (s,)), path in zip(wanted, paths, strict=True)}
        image.save_png(grid, make_grid(contents, styles, results), made)
    return DemoReport(grid, summary, *seconds)


def demo_pictures(role: str, folder: Path = PICTURES) -> list[Picture]:
    """The checked demo pictures called ROLE_*.png. Raises ImageError if there are none."""
    paths = sorted(folder.glob(f"{role}_*.png"))
    if not paths:
        raise image.ImageError(f"{folder}: no {role}_*.png here; the installation is not complete")
    return [check_picture(path) for path in paths]


def _warm_up(started: Started, pair: Pair, cfg: StyleConfig) -> float:
    """Seconds of one short stylisation, after which every kernel of the real ones is compiled."""
    from dataclasses import replace

    from ..pipeline import JStyleID

    before = perf_counter()
    styler, short = JStyleID(started.sd), replace(cfg, steps=1, window=None)
    content, style = (styler.load(p.path, short) for p in (pair.content, *pair.styles))
    styler.stylize(content, style, short).sync()
    return perf_counter() - before


def make_grid(
    contents: list[Picture], styles: list[Picture], targets: dict[tuple[Picture, Picture], Path]
) -> np.ndarray:
    """uint8 (H, W, 3): the styles along the top, each content's row under them."""
    results = {pair: np.asarray(image.read_rgb(path)) for pair, path in targets.items()}
    height, width = next(iter(results.values())).shape[:2]

    def shown(picture: Picture) -> np.ndarray:
        return image.to_uint8(image.load(picture.path, (height, width)))[0]

    names = [_label(style, "style") for style in styles]
    rows = [[None, *map(shown, styles)]]
    rows += [[shown(c), *(results[c, s] for s in styles)] for c in contents]
    labels = ["style", *(_label(c, "content") for c in contents)]
    return np.asarray(image.grid(rows, ["content", *names], labels))


def _label(picture: Picture, role: str) -> str:
    return picture.path.stem.removeprefix(f"{role}_").replace("_", " ")
