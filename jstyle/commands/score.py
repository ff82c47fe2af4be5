"""`jstyle score`: how good a submission, or a folder of stylisations, is by published measures."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from ..score import run, weights
from ..score.cache import default_folder as default_cache
from ..score.layout import read_contest
from ..score.scorers import SCORERS, WORDS
from ..score.total import ARTFID, PROTOCOLS
from ..sd.files import output_folder, write_json
from ..sd.targets import is_stream, require_free

ARTFID_NEEDS = {  # the same as in score/metrics/artfid.py, which starts Jittor
    "fid": ("art-inception",),
    "lpips": ("alexnet", "lpips-alex"),
    "cfsd": ("vgg19",),
}
DEVICES = ("auto", "cpu", "cuda")
NO_CACHE = "none"


@dataclass(frozen=True)
class Request:
    """What is to be judged, by which measures. Names are those of the options."""

    result: str | None = None
    root: str | None = None
    protocol: str = "contest"
    metrics: str | None = None
    hist_only: bool = False
    corrected: bool = False
    styles: str | None = None
    content: str | None = None
    style: str | None = None
    weights: str | None = None
    words: str | None = None
    cache: str | None = None
    json: str | None = None
    device: str = "auto"

    @property
    def weights_folder(self) -> Path:
        return Path(self.weights) if self.weights else weights.default_folder()


def score(request: Request, bar: Callable, overwrite: bool = False) -> dict:
    """The report, written to the JSON file as well. overwrite: also over one that is no report.

    Raises ContestError, WordsError, WeightsError, ImageError, and ValueError for words that do not
    go together.
    """
    if request.device not in DEVICES:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}, got {request.device!r}")
    judge = _stylisations if request.protocol == ARTFID else _contest
    if request.json is None:
        return judge(request, bar)
    require_free([request.json], overwrite)  # before the work, not after it
    folder = nullcontext() if is_stream(request.json) else output_folder(Path(request.json).parent)
    with folder:
        report = judge(request, bar)
        write_json(request.json, report)
    return report


def _contest(request: Request, bar: Callable) -> dict:
    if request.result is None or request.root is None:
        raise ValueError("two folders are needed: RESULT, and the contest's ROOT")
    if request.content or request.style:
        raise ValueError(f"--content and --style go with --protocol {ARTFID}")
    if request.hist_only and (request.metrics is not None or request.protocol != "contest"):
        raise ValueError("--hist-only goes with neither --metrics nor --protocol")
    metrics = "hist" if request.hist_only else request.metrics
    how = (request.corrected, request.weights, request.words, request.cache, request.device)
    settings = settings_of(metrics, *how, protocol=request.protocol)
    styles = None if request.styles is None else request.styles.replace(" ", "").split(",")
    return run.score(read_contest(request.root, styles), request.result, settings, bar)


def settings_of(
    metrics: str | None,
    corrected: bool,
    weights_folder: str | None,
    words: str | None,
    cache: str | None,
    device: str,
    protocol: str = "contest",
) -> run.Settings:
    """The settings that options of these names stand for, None for what was not given.

    Raises MetricError.
    """
    return run.Settings(
        metrics=run.choose(metrics, protocol),
        corrected=corrected,
        weights=Path(weights_folder) if weights_folder else weights.default_folder(),
        words=Path(words) if words else None,
        cache=_cache(cache),
        device=device,
    )


def _cache(words: str | None) -> Path | None:
    if words == NO_CACHE:
        return None
    return Path(words) if words else default_cache()


def _stylisations(request: Request, bar: Callable) -> dict:
    """FID, LPIPS, ArtFID and CFSD of CONTENT_stylized_STYLE.png for all contents and styles."""
    if request.result is None or request.root is not None:
        raise ValueError("one folder is needed: RESULT, with --content and --style")
    if not (request.content and request.style):
        raise ValueError(f"--protocol {ARTFID} needs --content and --style, folders or pictures")
    given = ("metrics", "hist_only", "corrected", "styles", "words", "cache")
    if odd := [name for name in given if getattr(request, name)]:
        raise ValueError(f"--{odd[0].replace('_', '-')} does not go with --protocol {ARTFID}")
    with run.on_device(request.device):
        from ..score.metrics.artfid import find_pairs, score_stylisations

        pairs = find_pairs(request.result, request.content, request.style)
        with bar(len(pairs) * _count_ready(request.weights_folder)) as progress:
            found = score_stylisations(pairs, request.weights_folder, progress.update)
    why = found.pop("missing")
    return {**found, "missing": list(why), "why": why, "images": len(pairs)}


def _count_ready(folder: Path) -> int:
    """How many of ARTFID_NEEDS are there."""
    known = weights.REGISTRY
    return sum(not any(known[n].lacking(folder) for n in need) for need in ARTFID_NEEDS.values())


def as_text(report: dict) -> str:
    """The values of the report as lines, the total of the six metrics as the last."""
    about = ("total", "missing", "why", "corrected", "images", "styles")
    lines = []
    for name, value in report.items():
        if name not in about:
            reason = f"missing: {report['why'].get(name, 'needs fid and lpips')}"
            lines.append(f"{name:<12} " + (reason if value is None else f"{value:.6f}"))
    if set(PROTOCOLS["contest"]) <= report.keys():
        total = report["total"]
        lines.append("total        " + ("none" if total is None else f"{total:.6f}"))
    return "\n".join(lines)


def where(request: Request) -> str:
    """For each metric of each protocol the files it needs, and whether they are there."""
    folder = request.weights_folder
    needs = {name: SCORERS[name].needs for names in PROTOCOLS.values() for name in names}
    needs |= {f"{ARTFID} {name}": names for name, names in ARTFID_NEEDS.items()}
    words = Path(request.words or folder / WORDS)
    told = f"{words}  [there]" if words.is_file() else "the organiser's 215 words, shipped"
    if request.words and not words.is_file():
        told = f"{words}  [missing]"
    return f"{weights.where(needs, folder)}\nclip_r words: {told}"
