"""`jstyle doctor --task`: how much memory a task takes, from the shapes of the model alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..config import FEATURE_DTYPES, StyleConfig
from ..memory.plan import PROCESS_BYTES, TASKS, TRAINED, Asked, Plan, plan
from ..methods.styleid import PARTS
from ..sd import hub, toolchain
from ..sd.limits import RANK, SAMPLING_STEPS, SIDE_PX, TOGETHER, require_whole
from ..sd.number_types import FLOAT16, FLOAT32, resolved_dtype
from .inputs import Model, find_model

ALL = "all"
TABLE_SIZES = (512, 768)
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Request:
    """What memory is planned for. Names are those of the options.

    Raises ValueError for a value that cannot be.
    """

    model: str | hub.Source = "tiny"
    task: str = "stylize"
    size_px: int | None = None
    dtype: str = "auto"
    device: str = "auto"
    batch: int = 1
    steps: int = 50
    feature_dtype: str = FLOAT32
    train: str = "lora"
    rank: int = 4
    checkpointing: bool = False
    precision: str = FLOAT32

    def __post_init__(self):
        require_whole("batch", self.batch, 1, TOGETHER)
        require_whole("steps", self.steps, 1, SAMPLING_STEPS)
        require_whole("rank", self.rank, 1, RANK)
        if self.size_px is not None:
            require_whole("size_px", self.size_px, 8, SIDE_PX)
        allowed = {
            "task": (*TASKS, ALL),
            "device": DEVICES,
            "train": TRAINED,
            "feature_dtype": FEATURE_DTYPES,
            "precision": (FLOAT32, FLOAT16),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                told = f"{', '.join(values[:-1])} or {values[-1]}"
                raise ValueError(f"{name} must be {told}, got {getattr(self, name)!r}")
        if self.precision == FLOAT16 and not self.on_cuda:
            raise ValueError("precision float16 is for a training on CUDA; give --device cuda")

    @property
    def on_cuda(self) -> bool:
        if self.device == "auto":
            return toolchain.uses_cuda()
        return self.device == "cuda"


def told(asked: Request, as_json: bool = False) -> str:
    """The plan of a task in lines or as JSON; the table of all of them.

    Raises HubError or ConfigError for the model, ValueError for what does not fit it.
    """
    model = find_model(asked.model)
    if asked.task == ALL:
        rows = list(_table(model, asked))
        return json.dumps(rows, indent=2) if as_json else _as_table(rows)
    made = plan_of(model, asked)
    if as_json:
        return json.dumps({**asdict(asked), "model": str(asked.model), **_numbers(made)}, indent=2)
    return _as_text(made, model, asked)


def plan_of(model: Model, asked: Request) -> Plan:
    """The plan of one task with this model."""
    return plan(model.configs, _asked(model, asked))


def _asked(model: Model, asked: Request) -> Asked:
    unet, vae = model.configs["unet"], model.configs["vae"]
    scale = 2 ** (len(vae.block_out_channels) - 1)
    size = asked.size_px or unet.sample_size * scale
    multiple = scale * 2 ** (len(unet.block_out_channels) - 1)
    if size % multiple:
        raise ValueError(f"size_px must be a multiple of {multiple}, got {size}")
    cuda = asked.on_cuda
    return Asked(
        asked.task,
        (size, size),
        cuda,
        resolved_dtype(asked.dtype, "cuda" if cuda else "cpu"),
        asked.batch,
        guided=asked.task == "generate",
        features=_features(model, asked, size // scale) if asked.task == "stylize" else 0,
        train=asked.train,
        rank=asked.rank,
        checkpointing=asked.checkpointing,
        half=asked.precision == FLOAT16,
    )


def _features(model: Model, asked: Request, side: int) -> int:
    """Bytes of the content's and the style's features, at StyleID's own sites."""
    from ..memory.features import feature_bytes, self_attentions
    from ..sites import resolve_sites

    config = model.configs["unet"]
    sites = resolve_sites(StyleConfig().sites, self_attentions(config))
    parts = "".join(PARTS.values())
    one = feature_bytes(config, sites, parts, asked.steps, (side, side), asked.feature_dtype)
    return one * asked.batch


def _numbers(made: Plan) -> dict[str, Any]:
    runs = {"evaluations": made.together, "libraries": made.scratch}
    return {"planned_bytes": made.peak, "held": dict(made.held), **runs, "alone": dict(made.runs)}


def _as_text(made: Plan, model: Model, asked: Request) -> str:
    each = _asked(model, asked)
    device, (side, _) = "CUDA" if each.cuda else "the CPU", each.size
    kept = f", {each.dtype}" if asked.task != "train" else ""
    lines = [
        f"{asked.task} with {asked.model} at {side} px on {device}{kept}: planned, not measured"
    ]
    lines += [f"  {name:<22}{gib(value):>11}" for name, value in made.held.items()]
    lines.append(f"  {'evaluations':<22}{gib(made.together):>11}  (most: {made.widest})")
    if made.scratch:
        lines.append(f"  {'libraries':<22}{gib(made.scratch):>11}")
    lines.append(f"  {'at most':<22}{gib(made.peak):>11}")
    more = f"about {gib(PROCESS_BYTES)} for Python, Jittor and kernels"
    if each.cuda:
        more = "the CUDA context and cuDNN's workspaces, some hundred MiB"
    return "\n".join([*lines, f"and {more}"])


def _table(model: Model, asked: Request) -> Iterator[dict[str, Any]]:
    """A row per task and number type, features and precision included, with a column per size."""
    tasks: list[tuple[str, dict[str, Any]]] = []
    for name in ("stylize", "generate"):
        tasks += [(f"{name}, {kind}", {"task": name, "dtype": kind}) for kind in (FLOAT32, FLOAT16)]
    for part in TRAINED:
        for kind in (FLOAT32, FLOAT16) if asked.on_cuda else (FLOAT32,):
            for again in (False, True):
                how: dict[str, Any] = {
                    "task": "train",
                    "train": part,
                    "precision": kind,
                    "checkpointing": again,
                }
                label = "LoRA" if part == "lora" else "full"
                tasks.append((f"train {label}, {kind}{', checkpointing' * again}", how))
    for told_as, given in tasks:
        sizes = {}
        for size in TABLE_SIZES:
            kept = given.get("dtype", FLOAT32)
            one = replace(asked, size_px=size, feature_dtype=kept, **given)
            sizes[f"{size} px"] = plan_of(model, one).peak
        yield {"task": told_as, **sizes}


def _as_table(rows: list[dict[str, Any]]) -> str:
    """In Markdown, GiB."""
    heads = list(rows[0])
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for row in rows:
        cells = [row["task"], *(f"{row[head] / 2**30:.1f}" for head in heads[1:])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", "GiB, planned from shapes, not measured."])


def gib(nbytes: int) -> str:
    return f"{nbytes / 2**30:.2f} GiB"
