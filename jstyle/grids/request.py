"""What is asked of a grid, and which words do not go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..sd.limits import SEED, require_whole
from ..sd.prompts import check_prompt
from ..sd.samplers.options import FIELDS, Sampling
from .axes import Axis, plain_text

DEFAULT_MODEL = "tiny"
CELL_PX = (16, 4096)


@dataclass(frozen=True)
class Request:
    """The axes' words, and what is the same in all cells, as in `jstyle generate`.

    axes: option -> words. run: a run's folder, whose last saved LoRA is put on where no axis says
    otherwise. cell_px: longer side of the pictures on the sheet; None: as they are painted.
    """

    axes: dict[str, list[str]]
    prompts: list[str] = field(default_factory=list)
    seed: int = 0
    negative: str = ""
    height: int | None = None
    width: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    model: str = DEFAULT_MODEL
    variant: str | None = None
    prediction: str | None = None
    tokenizer: str | None = None
    device: str = "auto"
    loras: list[str] = field(default_factory=list)
    run: str | None = None
    cell_px: int | None = None
    overwrite: bool = False

    @property
    def options(self) -> dict[str, object]:
        """Those that may be axes instead."""
        own = {name: getattr(self, name) for name in ("seed", "negative")}
        own |= {"prompt": self.prompts, "size": (self.height, self.width)}
        how = {name: getattr(self.sampling, name) for name in FIELDS}
        return {**how, **own}


def require_apart(request: Request, axes: Sequence[Axis]) -> None:
    """Raise ValueError for an option that is also an axis, words that need others, and options that
    cannot be."""
    _require_one_of_each(request, axes)
    names = {axis.name for axis in axes}
    if "prompt" not in names and len(request.prompts) != 1:
        many = "several prompts are an axis: --y 'prompt=FIRST|SECOND'"
        raise ValueError(many if request.prompts else "give --prompt, or an axis prompt")
    if "at" in names and request.run is None:
        raise ValueError("the axis at is about a run; give --run")
    if {"at", "lora"} <= names:
        raise ValueError("the axes at and lora both choose a LoRA; give one of them")
    own = (request.model, request.variant, request.prediction, request.tokenizer)
    if request.run is not None and own != (DEFAULT_MODEL, None, None, None):
        raise ValueError(
            "--run brings its own model; leave out --model and --variant, --prediction, --tokenizer"
        )
    movable = "lora" in names or request.run is not None or len(request.loras) == 1
    if "weight" in names and not movable:
        raise ValueError("the axis weight is about an axis lora, a --run or the one --lora")
    if request.cell_px is not None:
        require_whole("cell_px", request.cell_px, *CELL_PX)
    for text in (*request.prompts, request.negative):
        plain_text(text)
    require_whole("seed", request.seed, 0, SEED)


def require_readable(request: Request, axes: Sequence[Axis], syntax: str | None) -> None:
    """Raise PromptError for a prompt of any cell that the syntax does not admit."""
    known = {axis.name: axis.values for axis in axes}
    for text in known.get("prompt", request.prompts):
        check_prompt(text, syntax)
    for text in known.get("negative", (request.negative,)):
        check_prompt(text, syntax, negative=True)


def _require_one_of_each(request: Request, axes: Sequence[Axis]) -> None:
    asked, usual = request.options, Request(request.axes).options
    for axis in axes:
        if axis.name in asked and asked[axis.name] != usual[axis.name]:
            option = "--height and --width" if axis.name == "size" else f"--{axis.name}"
            raise ValueError(f"{option} and --{axis.option} {axis.name} exclude each other")
