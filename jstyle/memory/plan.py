"""What a task takes at most: weights, optimiser, features, and the largest of its evaluations.

    plan("stylize", configs, 512) -> Plan        plan.peak, plan.parts, str(plan)

Of the process itself nothing is counted: Python, Jittor and its kernels take PROCESS_BYTES more on
the CPU, the CUDA context and cuDNN's workspaces some hundred MB on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..sd.config import CLIPTextConfig, UNetConfig, VAEConfig
from . import networks
from .networks import FLOAT, Layers, Way
from .parameters import count_parameters
from .tape import Pool, Tape

TASKS = ("stylize", "generate", "train")
TRAINED = ("lora", "full")
HALF = 2  # bytes of a float16 or bfloat16
PROCESS_BYTES = 350 << 20  # Python, NumPy, Jittor and the kernels of one task, on Linux x86-64


@dataclass(frozen=True)
class Asked:
    """A task, as its command's options say it.

    size: (height, width) of the pictures. dtype: resolved, not "auto". together: pictures in one
    evaluation, twice as many rows where they are guided. features: bytes of what is recorded at
    once. train: of a training, what is trained; average: with a moving average; half: with
    precision = float16.
    """

    task: str
    size: tuple[int, int]
    cuda: bool = False
    dtype: str = "float32"
    together: int = 1
    guided: bool = False
    features: int = 0
    train: str = "lora"
    rank: int = 4
    checkpointing: bool = False
    average: bool = False
    half: bool = False


@dataclass(frozen=True)
class Plan:
    """Bytes. held: name -> what stays for the whole task. runs: name -> what an evaluation alone
    takes on top; together: what all of them take, one after the other, since not every block that
    one leaves fits the next; scratch: what libraries take for themselves."""

    held: Mapping[str, int]
    runs: Mapping[str, int]
    together: int
    scratch: int

    @property
    def peak(self) -> int:
        return sum(self.held.values()) + self.together + self.scratch

    @property
    def widest(self) -> str:
        """The evaluation that takes the most."""
        return max(self.runs, key=lambda name: self.runs[name])


def plan(configs: Mapping[str, Any], asked: Asked) -> Plan:
    """configs: part -> its configuration, of "unet", "vae" and "text_encoder"."""
    if asked.task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {asked.task!r}")
    return _Planner(configs, asked).plan()


class _Planner:
    def __init__(self, configs: Mapping[str, Any], asked: Asked):
        self.asked = asked
        self.unet: UNetConfig = configs["unet"]
        self.vae: VAEConfig = configs["vae"]
        self.text: CLIPTextConfig = configs["text_encoder"]
        scale = 2 ** (len(self.vae.block_out_channels) - 1)
        self.latent = asked.size[0] // scale, asked.size[1] // scale
        self.tokens = self.text.max_position_embeddings
        self.pool, self.scratch = Pool(), 0

    def plan(self) -> Plan:
        return self._training() if self.asked.task == "train" else self._painting()

    def _painting(self) -> Plan:
        asked = self.asked
        small = asked.dtype != "float32"
        widened = Way(asked.cuda, widened=small)
        way = Way(asked.cuda, HALF) if small and asked.cuda else widened
        runs = {"text encoder": self._text(way, 1)}
        rows = asked.together * (2 if asked.guided else 1)
        runs["UNet"] = self._unet(way, rows)
        if asked.task == "stylize":
            runs["VAE's encoder"] = self._vae(widened, networks.encoder, 1, asked.size)
        runs["VAE's decoder"] = self._vae(widened, networks.decoder, asked.together, self.latent)
        held = {"weights": self._weights(small)}
        if asked.features:
            held["features"] = asked.features
        return Plan(held, runs, self.pool.total, self.scratch)

    def _peak(self, way: Way, walk: Callable[[Layers], object]) -> int:
        tape = Tape()
        walk(Layers(tape, way))
        return self._played(tape)

    def _played(self, tape: Tape) -> int:
        """What it takes alone; it also goes through the task's own allocator."""
        self.scratch = max(self.scratch, tape.scratch)
        tape.peak(self.pool)
        return tape.peak()

    def _weights(self, small: bool) -> int:
        configs = (self.unet, self.vae, self.text)
        counts = [count_parameters(config) for config in configs]
        item = HALF if small else FLOAT
        return sum(c.matrices * item + c.vectors * FLOAT for c in counts)

    def _text(self, way: Way, rows: int) -> int:
        return self._peak(way, lambda layers: networks.text_encoder(layers, self.text, rows))

    def _unet(self, way: Way, rows: int) -> int:
        shape = (self.unet, rows, self.latent, self.tokens)
        return self._peak(way, lambda layers: networks.unet(layers, *shape))

    def _vae(self, way: Way, network: Callable, rows: int, size: Sequence[int]) -> int:
        return self._peak(way, lambda layers: network(layers, self.vae, rows, tuple(size)))

    def _training(self) -> Plan:
        asked = self.asked
        trained = self._trained()
        copies = 3 if asked.average else 2  # Adam's two moments
        held = {"weights": self._weights(False), "optimiser": copies * trained * FLOAT}
        if asked.train == "lora":
            held["LoRA"] = trained * FLOAT
        if asked.half:  # for the time of a step
            held["casts of the UNet"] = count_parameters(self.unet).all * HALF
        frozen = Way(asked.cuda)
        runs = {
            "text encoder": self._text(frozen, 1),
            "VAE's encoder": self._vae(frozen, networks.encoder, 1, asked.size),
            "UNet with gradients": self._step(),
        }
        return Plan(held, runs, self.pool.total, self.scratch)

    def _trained(self) -> int:
        """How many numbers are trained."""
        if self.asked.train == "full":
            return count_parameters(self.unet).all
        return count_parameters(self.unet).lora(self.asked.rank)

    def _step(self) -> int:
        asked = self.asked
        item = HALF if asked.half else FLOAT
        way = Way(asked.cuda, item, trained=asked.train, rank=asked.rank)
        tape = Tape(training=True, again=asked.checkpointing)
        layers = Layers(tape, way)
        out = networks.unet(layers, self.unet, asked.together, self.latent, self.tokens)
        tape.backward(layers.copied(out).tensor)
        return self._played(tape)
