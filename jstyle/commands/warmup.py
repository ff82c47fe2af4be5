"""`jstyle warmup`: do every task once, briefly, so that all that it needs is compiled afterwards.

Jittor compiles a kernel when it first meets an operation: a kind of operation on a number of
dimensions, not a size. Those of one evaluation are compiled together, in parallel. So each stage
here is a real one on the real model, as short as it can be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np

from ..config import StyleConfig
from ..sd import hub
from .inputs import Started, find_model, start

TASKS = ("stylize", "generate")


@dataclass
class Warmth:
    """What a warm-up did. Kernels are the files in Jittor's cache; seconds by stage."""

    kernels_before: int = 0
    kernels_after: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def compiled(self) -> int:
        return self.kernels_after - self.kernels_before


def warm_up(
    cfg: StyleConfig,
    bar: Callable,
    tasks: tuple[str, ...] = TASKS,
    model: str | hub.Source = "tiny",
    device: str = "auto",
) -> Warmth:
    """Compile what `tasks` need with this model and these options. bar(total): a tqdm-like bar.

    Raises HubError or ConfigError for the model, ValueError for a task or size that cannot be.
    """
    for task in tasks:
        if task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    done = Warmth()
    with start(find_model(model), device) as started:
        done.kernels_before = count_kernels()
        done.seconds = {"start": started.start_seconds, "load": started.load_seconds}
        stages = [stage for task in tasks for stage in STAGES[task](started, cfg)]
        with bar(len(stages)) as progress:
            for name, run in stages:
                progress.set_postfix_str(name, refresh=False)
                before = perf_counter()
                run()
                done.seconds[name] = perf_counter() - before
                progress.update()
        done.kernels_after = count_kernels()
    return done


def count_kernels() -> int:
    """Compiled kernels in the cache of this installation of Jittor."""
    from ..sd.startup import jt

    return sum(1 for _ in (Path(jt.flags.cache_path) / "jit").glob("*.so"))


Stages = list[tuple[str, Callable[[], object]]]


def _stylize(started: Started, cfg: StyleConfig) -> Stages:
    """One step of each part of a stylisation, for one result and for several in a batch."""
    from dataclasses import replace

    from ..pipeline import JStyleID

    styler, short = JStyleID(started.sd), replace(cfg, steps=1, window=None)
    size = cfg.size_px or started.sd.picture_size
    started.sd.check_size(size, size)
    pictures = [_picture(size, seed) for seed in (0, 1)]
    inverted = {}

    def invert(role: str, picture: np.ndarray, parts: str):
        inverted[role] = styler.invert(picture, short, parts if cfg.inject else "")

    def inject():
        _finish(styler.transfer(inverted["content"], inverted["style"], short))

    return [
        ("content", lambda: invert("content", pictures[0], "q")),
        ("style", lambda: invert("style", pictures[1], "kv")),
        ("injection", inject),
        ("style, batch of 2", lambda: invert("style", np.concatenate(pictures), "kv")),
        ("injection, batch of 2", inject),
    ]


def _generate(started: Started, cfg: StyleConfig) -> Stages:
    def run(prompts: list[str], guidance: float):
        size = cfg.size_px
        made = started.sd.generate(prompts, num_steps=1, guidance=guidance, height=size, width=size)
        _finish(made)

    return [
        ("one prompt", lambda: run([""], 1.0)),
        ("one prompt, guidance", lambda: run([""], 7.5)),
        ("two prompts, guidance", lambda: run(["", ""], 7.5)),
    ]


STAGES = {"stylize": _stylize, "generate": _generate}


def _picture(size: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (1, 3, size, size)).astype(np.float32)


def _finish(pixels) -> None:
    """As the commands do with a result."""
    from ..sd import image

    image.to_uint8(pixels)
