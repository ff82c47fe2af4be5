"""`jstyle reconstruct`: an image to noise and back, and what that costs in PSNR."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from ..config import StyleConfig
from ..sd import hub, image
from ..sd.files import output_folder
from . import outputs
from .inputs import check_picture, find_model, start


@dataclass(frozen=True)
class Reconstruction:
    """Where the result is and how near it came, in dB of PSNR (infinite for equal pictures)."""

    out: Path
    psnr_to_round_trip_db: float  # against the VAE's own round trip: what the inversion loses
    psnr_to_input_db: float  # against the input: what inversion and VAE lose together
    psnr_round_trip_db: float  # of the round trip against the input: what the VAE loses
    seconds: float


@dataclass(frozen=True)
class Request:
    """What is asked of `reconstruct`. picture: a file; out: a PNG's name. overwrite: also replace
    a file that is no result of ours."""

    picture: str
    out: str
    cfg: StyleConfig
    model: str | hub.Source = "tiny"
    device: str = "auto"
    overwrite: bool = False


def reconstruct(asked: Request, bar: Callable) -> Reconstruction:
    """Invert and sample back without style; write the result and its record. `bar(total)` makes a
    tqdm-like progress bar.

    Raises ImageError, HubError or ValueError for bad input, OSError if it cannot write.
    """
    source, path, cfg = check_picture(asked.picture), outputs.picture_path(asked.out), asked.cfg
    outputs.require_free([path], asked.overwrite, [source.path])
    with ExitStack() as stack:
        stack.enter_context(output_folder(path.parent))
        found = find_model(asked.model)
        started = stack.enter_context(start(found, asked.device))
        from ..pipeline import JStyleID
        from ..sd import runtime
        from ..sd.startup import jt

        styler = JStyleID(started.sd)
        pixels = styler.load(source.path, cfg)
        before = perf_counter()
        with bar(2 * cfg.steps) as progress:
            result = styler.reconstruct(pixels, cfg, lambda *_: progress.update()).numpy()
        seconds = perf_counter() - before
        sd = started.sd
        round_trip = sd.decode(sd.encode_image(jt.array(pixels))).numpy()
        done = Reconstruction(
            path,
            round(psnr_db(result, round_trip), 3),
            round(psnr_db(result, pixels), 3),
            round(psnr_db(round_trip, pixels), 3),
            round(seconds, 3),
        )
        record = {
            "command": "reconstruct",
            "image": source.facts,
            "config": {"steps": cfg.steps, "size_px": cfg.size_px},
            "model": found.facts,
            "device": started.device,
            "versions": runtime.versions(),
            "seconds": {"load": round(started.load_seconds, 3), "reconstruct": done.seconds},
            "psnr_to_round_trip_db": done.psnr_to_round_trip_db,
            "psnr_to_input_db": done.psnr_to_input_db,
            "psnr_round_trip_db": done.psnr_round_trip_db,
        }
        outputs.write_result(path, image.to_uint8(result)[0], record)
    return done


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two pictures in [-1, 1] (peak to peak 2), in dB."""
    mse = float(np.mean((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2))
    return float("inf") if mse == 0 else float(10 * np.log10(4.0 / mse))
