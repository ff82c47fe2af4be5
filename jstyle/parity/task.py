"""What both sides are to compute, and from which inputs. Needs neither Jittor nor PyTorch."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from ..sd.files import InputError, MissingFile, atomic_write, require_file, write_json
from ..sd.noise import gaussian
from ..sd.reading import read_object

FORMAT, VERSION = "jstyle-parity", 1
STAGES = {  # name -> UNet evaluations, or other work of that size, for a number of steps
    "text_encoder": lambda steps: 1,
    "vae_encode": lambda steps: 1,
    "vae_decode": lambda steps: 1,
    "unet": lambda steps: 1,
    "step": lambda steps: 1,
    "inversion": lambda steps: steps,
    "sampling": lambda steps: steps,
    "styleid": lambda steps: 3 * steps,
    "training": lambda steps: 1,
}
MODULE_STAGES = ("text_encoder", "vae_encode", "vae_decode", "unet")
RANK, RATE, DECAY = 4, 1e-4, 0.01  # of the LoRA training step
GAMMA, TAU = 0.75, 1.5  # of the stylisation

_VAE_BLOCKS = re.compile(
    r"(encoder|decoder)\.(conv_in|conv_norm_out|conv_out|mid_block(\.(resnets|attentions)\.\d+)?"
    r"|(down|up)_blocks\.\d+(\.(resnets|downsamplers|upsamplers)\.\d+)?)|(post_)?quant_conv"
)
_BEFORE_SILU = re.compile(r"(.*\.)?(resnets\.\d+\.norm[12]|conv_norm_out)")


class ParityError(ValueError):
    """A recording that is not there, damaged or made for something else; one line."""


@dataclass(frozen=True)
class Task:
    """What task.json holds. timestep: of the stages unet and training."""

    stages: tuple[str, ...]
    steps: int
    seed: int
    rng: str  # whose noise the seed gives, see jstyle/sd/rng
    prompt: str
    size_px: int
    timestep: int
    source: str
    fingerprint: str | None  # of the model's files; None if whoever wrote the task did not know

    @property
    def work(self) -> int:
        """How often a side calls its `tick`."""
        return sum(STAGES[stage](self.steps) for stage in self.stages)

    def write(self, folder: Path, inputs: dict[str, np.ndarray]) -> None:
        with atomic_write(folder / "inputs.safetensors") as part:
            part.write_bytes(save(inputs))
        write_json(folder / "task.json", {"format": FORMAT, "version": VERSION, **asdict(self)})


def read_task(folder: Path) -> tuple[Task, dict[str, np.ndarray]]:
    """The task and its inputs. Raises ParityError if they are not there or not understood."""
    values = read_json(folder / "task.json")
    try:
        task = Task(**values)
        task = Task(**{**values, "stages": check_stages(task.stages)})
    except (TypeError, ValueError) as error:
        raise ParityError(f"{folder / 'task.json'}: not a task ({error})") from None
    try:
        return task, load_file(require_file(folder / "inputs.safetensors"))
    except InputError as error:
        raise ParityError(str(error)) from None
    except (OSError, SafetensorError) as error:
        raise ParityError(f"{folder / 'inputs.safetensors'}: cannot be read ({error})") from None


def read_json(path: Path) -> dict:
    """The object of a file of this format, without format and version. Raises ParityError."""
    try:
        values = read_object(path)
        name, version = values.pop("format"), values.pop("version")
    except MissingFile:
        raise ParityError(f"{path}: no such file; a finished recording has one") from None
    except InputError as error:
        raise ParityError(f"{error}; not of a recording") from None
    except KeyError as error:
        raise ParityError(f"{path}: not of a recording (it has no {error})") from None
    if (name, version) != (FORMAT, VERSION):
        raise ParityError(f"{path}: must be {FORMAT} {VERSION}, is {name} {version}")
    return values


def check_stages(names: Sequence[str]) -> tuple[str, ...]:
    """The stages in the order of computing. Raises ValueError for one that does not exist."""
    wrong = [name for name in names if name not in STAGES]
    if wrong or not names:
        found = repr(wrong[0]) if wrong else "none"
        raise ValueError(f"stages (--only) must be some of {', '.join(STAGES)}, got {found}")
    return tuple(name for name in STAGES if name in names)


def draw_inputs(
    task: Task, ids: np.ndarray, latent_size: int, channels: int, context_dim: int
) -> dict[str, np.ndarray]:
    """The inputs that are noise. ids: (2, tokens) of the prompt and of the empty prompt."""
    latent = (1, channels, latent_size, latent_size)
    return {
        "ids": ids[:1],
        "empty_ids": ids[1:],
        "latent": gaussian(latent, task.seed, task.rng),
        "noise": gaussian(latent, task.seed + 1, task.rng),
        "context": gaussian((1, ids.shape[1], context_dim), task.seed + 2),
    }


def lora_values(name: str, shape: Sequence[int], seed: int) -> np.ndarray:
    """A factor of the trained LoRA, called LAYER.lora_A or LAYER.lora_B. Both factors are away
    from 0, so that both get gradients: normal, of deviation 0.3 / sqrt(columns)."""
    rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
    scale = np.float32(0.3 * math.prod(shape[1:]) ** -0.5)
    return rng.standard_normal(tuple(shape), dtype=np.float32) * scale


def is_watched(stage: str, module: str) -> bool:
    """True if the module's values belong to the stage. The VAE's pictures are large: only its
    blocks."""
    if module in ("", "text_model"):  # transformers 5 has no module of this name
        return False
    if not stage.startswith("vae"):
        return True
    return _VAE_BLOCKS.fullmatch(module) is not None


def is_before_silu(module: str) -> bool:
    """True for a norm that this package computes together with the SiLU after it."""
    return _BEFORE_SILU.fullmatch(module) is not None
