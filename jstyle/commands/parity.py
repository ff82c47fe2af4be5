"""`jstyle parity`: this package against PyTorch, or against what was recorded elsewhere."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from ..parity.compare import Comparer
from ..parity.page import as_html
from ..parity.recording import Recorder, Recording, peak_mib
from ..parity.report import Report
from ..parity.task import STAGES, ParityError, Task, check_stages, draw_inputs
from ..sd import files, hub, image, parts, targets
from ..sd.config import CLIPTextConfig, ScheduleConfig, UNetConfig, VAEConfig
from ..sd.folders import filled_folder
from ..sd.limits import SAMPLING_STEPS, SEED, SIDE_PX, require_whole
from ..sd.rng import NUMPY
from ..sd.tokenizer import Tokenizer
from .demo import PICTURES
from .inputs import Model, check_picture, find_model, start

DTYPES = ("float32", "float16")
REFERENCES = ("torch",)
PACKAGES = ("torch", "diffusers", "transformers", "peft")  # what the reference needs
HOLDERS = {  # lists of modules, which compute nothing themselves
    *("down_blocks", "up_blocks", "resnets", "attentions", "downsamplers", "upsamplers"),
    *("transformer_blocks", "net", "to_out", "layers"),
}
REPORT, PAGE, OUT = "parity.json", "parity.html", "jstyle-parity"
COUNTS = (("steps", 1, SAMPLING_STEPS), ("seed", 0, SEED), ("size_px", 8, SIDE_PX))
DEFAULTS = {"steps": 10, "seed": 0, "rng": NUMPY, "prompt": "a photograph of a cat"}


@dataclass(frozen=True)
class Request:
    """What the user asked for. None: not given, so that a recording's own value may stand."""

    model: str | hub.Source = "tiny"
    variant: str | None = None
    device: str = "auto"
    reference: str | None = None
    images: tuple[str, ...] = ()
    prompt: str | None = None
    steps: int | None = None
    seed: int | None = None
    rng: str | None = None
    size_px: int | None = None
    stages: tuple[str, ...] | None = None
    dtype: str = "float32"
    slack: float = 1.0
    inject_fault: str | None = None

    def __post_init__(self):
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be {' or '.join(DTYPES)}, got {self.dtype!r}")
        if self.reference not in (None, *REFERENCES):
            allowed = ", ".join(REFERENCES)
            raise ValueError(f"reference must be {allowed}, got {self.reference!r}")
        if not 1.0 <= self.slack < float("inf"):
            raise ValueError(f"slack must be a number, at least 1, got {self.slack}")
        for name, least, most in COUNTS:
            if getattr(self, name) is not None:
                require_whole(name, getattr(self, name), least, most)
        if len(self.images) > 2:
            raise ValueError(f"{len(self.images)} images; give a content and a style")
        if self.stages is not None:
            object.__setattr__(self, "stages", check_stages(self.stages))


def compare(
    request: Request,
    out: str,
    bar: Callable,
    against: str | None = None,
    overwrite: bool = False,
) -> Report:
    """Compare ours with PyTorch, or with the recording in the folder `against`; write the report.

    overwrite: also replace files called as those of the report that are none.

    Raises ValueError for bad input, RuntimeError if the reference is not installed or fails,
    OSError if the report cannot be written.
    """
    targets.require_free([Path(out) / REPORT, Path(out) / PAGE], overwrite)
    found = find_model(request.model, request.variant)
    with ExitStack() as stack:
        found = stack.enter_context(in_a_folder(found))
        if request.inject_fault is not None:
            check_module(found, request.inject_fault)
        folder = stack.enter_context(files.output_folder(out))
        if against is None:
            require_reference()
            task, inputs = make_task(found, request)
            place = stack.enter_context(parts.unfinished(folder / "values", is_folder=True))
            task.write(place, inputs)
            progress = stack.enter_context(bar(2 * task.work))
            run_reference(place, found, progress.update)
            recording = Recording(place)
        else:
            recording = Recording(against)
            task = _recorded_task(recording, found, request)
            progress = stack.enter_context(bar(task.work))
        half = "float16" in (request.dtype, recording.facts.get("dtype"))
        sink = Comparer(recording, request.slack, half)
        ours = _run_ours(found, request, task, recording.inputs, sink, progress.update)
        report = Report(task, sink.stages, ours, recording.facts, request.inject_fault)
        files.write_json(Path(out) / REPORT, report.to_json())
        with files.atomic_write(Path(out) / PAGE) as part:
            files.write_text(part, as_html(report))
    return report


def record(request: Request, folder: str, bar: Callable, overwrite: bool = False) -> Path:
    """Write the task and the values of one side: ours, or PyTorch's if request.reference says so.
    overwrite: also into a folder whose files have these names and are of no recording.

    Raises as `compare`.
    """
    _refuse_ignored(request)
    found, place = find_model(request.model, request.variant), Path(folder)
    if request.reference is not None:
        require_reference()
    with in_a_folder(found) as found:
        task, inputs = make_task(found, request)
        written = [place / f"{name}.safetensors" for name in ("inputs", *task.stages)]
        written = [] if targets.is_ours(place / "index.json") else written
        targets.require_free([place / "index.json", place / "task.json", *written], overwrite)
        with filled_folder(place, last="index.json") as made, bar(task.work) as progress:
            task.write(made, inputs)
            if request.reference is not None:
                run_reference(made, found, progress.update)
            else:
                sink = Recorder(made)
                facts = _run_ours(found, request, task, inputs, sink, progress.update)
                sink.finish(**{k: v for k, v in facts.items() if k != "peak_mib"})
    return place


@contextmanager
def in_a_folder(model: Model) -> Iterator[Model]:
    """The model in diffusers format, which PyTorch reads: a single file is written so for a while.

    Raises as `start`, OSError if the temporary folder cannot hold it.
    """
    if not model.place.is_file:
        yield model
        return
    with tempfile.TemporaryDirectory(prefix="jstyle-") as folder:
        with start(model, "cpu") as started:
            started.sd.save_pretrained(folder, "float32")
        del started
        yield replace(model, place=hub.Source(folder))


def _refuse_ignored(request: Request) -> None:
    """Raise ValueError for an option that would change nothing in a recording."""
    if request.inject_fault is not None:
        raise ValueError("--inject-fault needs a comparison; leave out --record")
    if request.slack != 1.0:
        raise ValueError("--slack widens the limits of a comparison; leave out --record")
    if request.reference is not None:
        for option, usual in (("dtype", "float32"), ("device", "auto")):
            if getattr(request, option) != usual:
                raise ValueError(f"--{option} is for our side; leave out --reference")


def make_task(model: Model, request: Request) -> tuple[Task, dict[str, np.ndarray]]:
    """The task that the request describes, for this model. Raises ValueError."""
    unet = UNetConfig.from_json(hub.read_config(model.folder, "unet"))
    vae = VAEConfig.from_json(hub.read_config(model.folder, "vae"))
    text = CLIPTextConfig.from_json(hub.read_config(model.folder, "text_encoder"))
    schedule = ScheduleConfig.from_json(hub.read_config(model.folder, "scheduler"))
    reduction = 2 ** (len(vae.block_out_channels) - 1)
    size_px = unet.sample_size * reduction if request.size_px is None else request.size_px
    multiple = reduction * 2 ** (len(unet.block_out_channels) - 1)
    if size_px < multiple or size_px % multiple:
        raise ValueError(f"size_px must be a multiple of {multiple}, got {size_px}")
    asked: dict[str, Any] = {name: getattr(request, name) for name in DEFAULTS}
    given: dict[str, Any] = {k: DEFAULTS[k] if v is None else v for k, v in asked.items()}
    if not 1 <= given["steps"] <= schedule.num_train_timesteps:
        raise ValueError(
            f"steps must be in 1..{schedule.num_train_timesteps}, got {given['steps']}"
        )
    task = Task(
        stages=request.stages or tuple(STAGES),
        size_px=size_px,
        timestep=schedule.num_train_timesteps // 2 + 1,
        source=model.source,
        fingerprint=model.fingerprint,
        **given,
    )
    ids = Tokenizer.from_folder(model.folder / "tokenizer")([task.prompt, ""])
    latent = size_px // reduction
    inputs = draw_inputs(task, ids, latent, unet.in_channels, text.hidden_size)
    return task, inputs | _load_images(request.images, size_px)


def _load_images(paths: Sequence[str], size_px: int) -> dict[str, np.ndarray]:
    """The content and the style; what is not given comes from the shipped pictures."""
    shipped = (PICTURES / "content_cat.png", PICTURES / "style_woodcut.png")
    chosen = [*map(Path, paths), *shipped[len(paths) :]]
    for path in chosen:
        check_picture(path)
    return {
        role: image.load(path, size_px)
        for role, path in zip(("content", "style"), chosen, strict=True)
    }


def _recorded_task(recording: Recording, model: Model, request: Request) -> Task:
    """The recording's task, less what the request leaves out. Raises ValueError if they differ."""
    names = ("reference", "prompt", "steps", "seed", "rng", "size_px")
    given = [name for name in names if getattr(request, name) is not None]
    given += ["image"] if request.images else []
    if given:
        option = given[0].replace("_", "-")
        raise ValueError(f"--{option} comes from the recording; leave it out with --against")
    task = recording.task
    if task.fingerprint not in (None, model.fingerprint):
        raise ParityError(
            f"{recording.folder}: recorded with another model ({task.source}) than {model.source}"
        )
    stages = request.stages or task.stages
    lost = [stage for stage in stages if stage not in task.stages]
    if lost:
        recorded = ", ".join(task.stages)
        raise ParityError(f"{recording.folder}: has no {lost[0]}, only {recorded}")
    return replace(task, stages=stages)


def check_module(model: Model, module: str) -> None:
    """Raise ValueError, with the nearest name, unless the model has weights in this module."""
    from ..parity.ours import split_name
    from ..sd.weights import read_weights, rename

    part, name = split_name(module)
    names = read_weights(hub.weight_file(model.folder, part, model.variant))
    known = set()
    for full in filter(None, map(rename, names)):
        pieces = full.split(".")[:-1]
        known |= {".".join(pieces[:n]) for n in range(1, len(pieces) + 1)}
    known = {n for n in known if n.rpartition(".")[2] not in HOLDERS}
    if name not in known:
        near = get_close_matches(name, sorted(known), 1)
        hint = f"; did you mean {module.removesuffix(name)}{near[0]}?" if near else ""
        raise ValueError(f"{model.source}: no module is called {module!r}{hint}")


def require_reference() -> None:
    """Raise RuntimeError naming what is missing for the PyTorch side."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise RuntimeError(
            f"not installed: {', '.join(missing)}; the PyTorch reference needs "
            "pip install 'jstyle[parity]' (--record and --against work without it)"
        )


def run_reference(folder: Path, model: Model, tick: Callable[[], object]) -> None:
    """Let PyTorch answer the task in `folder`, in a process of its own."""
    command = [sys.executable, "-m", "jstyle.parity.reference_torch", str(folder.resolve())]
    command += ["--model", str(model.folder.resolve())]
    command += ["--variant", model.variant] if model.variant is not None else []
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with tempfile.TemporaryFile("w+") as errors:
        options: dict[str, Any] = {
            "stdout": subprocess.PIPE,
            "stderr": errors,
            "text": True,
            "env": env,
        }
        with subprocess.Popen(command, **options) as child:
            try:
                for line in child.stdout:
                    if line.strip() == "tick":
                        tick()
            except BaseException:
                child.terminate()
                raise
        if child.returncode:
            errors.seek(0)
            lines = errors.read().strip().splitlines() or [f"exit status {child.returncode}"]
            kind = ValueError if child.returncode == 2 else RuntimeError
            raise kind(f"PyTorch reference: {lines[-1]}")


def _run_ours(model: Model, request: Request, task: Task, inputs, sink, tick) -> dict:
    """Compute the task's stages into the sink. Returns who computed, on what."""
    with start(model, request.device) as started:
        from ..parity.ours import Ours, faulty
        from ..sd import runtime

        name = request.inject_fault
        with nullcontext() if name is None else faulty(started.sd, name):
            Ours(started.sd, task, inputs, sink, tick, request.dtype).run()
        return {
            "side": "jstyle",
            "device": started.device,
            "dtype": request.dtype,
            "versions": runtime.versions(),
            "peak_mib": peak_mib(),
        }
