"""LoRA: a low-rank change of linear layers and convolutions (Hu et al., arXiv:2106.09685).

W x becomes W x + alpha / rank * B A x, by a hook around the layer. A and B are no part of the
model's `state_dict()` or `parameters()`, but of a LoRASet. Conventions and initial values are those
of peft.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .hooks import Handle, around, hooks_around
from .kernels import convolve
from .lora_files import Factors, LoRAFile, listing, read_lora, write_lora
from .lora_fit import fit, short
from .lora_source import PARTS
from .startup import jt
from .weights import WeightsError, to_var

if TYPE_CHECKING:
    from .pipeline import StableDiffusion

nn = jt.nn

_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj")
_FEED_FORWARD = ("ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "fc1", "fc2")
_CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv")
TARGETS = {  # endings of layer names, of the UNet and of the text encoder; each holds the last
    "attention": _ATTENTION,
    "feed-forward": _ATTENTION + _FEED_FORWARD,
    "convolutions": _ATTENTION + _FEED_FORWARD + _CONVOLUTIONS,
}


class Adapter:
    """The factors of one layer. lora_A: (rank, in) or (rank, in, kh, kw), a Var; lora_B: (out,
    rank) or (out, rank, 1, 1). `weight` scales the change on top of alpha / rank."""

    def __init__(self, factors: Factors, weight: float = 1.0, trained: bool = False):
        self.lora_A, self.lora_B = jt.array(factors.down), jt.array(factors.up)
        self.alpha, self.weight = factors.alpha, weight
        self.lora_A.requires_grad = self.lora_B.requires_grad = trained

    @property
    def scale(self) -> float:
        return self.weight * self.alpha / self.lora_A.shape[0]

    def on(self, layer: jt.nn.Module) -> Handle:
        """Put it on a linear layer or a convolution."""
        change = self._convolved if isinstance(layer, nn.Conv) else self._linear
        return around(layer, "execute", _Change(self, layer, change))

    def _linear(self, layer, x):
        return nn.linear(nn.linear(x, _like(self.lora_A, x)), _like(self.lora_B, x))

    def _convolved(self, layer, x):
        down, up = _like(self.lora_A, x), _like(self.lora_B, x)
        return convolve(convolve(x, down, layer.stride[0], layer.padding[0]), up)

    def factors(self) -> Factors:
        return Factors(self.lora_A.numpy(), self.lora_B.numpy(), self.alpha)

    def delta(self) -> jt.Var:
        """What the layer's weight changes by; a Var (out, in) or (out, in, kh, kw)."""
        down = self.lora_A.reshape(self.lora_A.shape[0], -1)
        up = self.lora_B.reshape(self.lora_B.shape[0], -1)
        shape = (up.shape[0], *self.lora_A.shape[1:])
        return (jt.matmul(up, down) * self.scale).reshape(shape)


@dataclass(frozen=True, eq=False)
class _Change:
    """The hook around one layer."""

    adapter: Adapter
    layer: nn.Module
    change: Callable

    def __call__(self, call, x):
        return call(x) + self.change(self.layer, x) * self.adapter.scale


def _like(var, x):
    return var if var.dtype == x.dtype else var.cast(x.dtype)


@dataclass(frozen=True, eq=False)
class LoRASet:
    """One LoRA on one module. adapters: layer name -> its factors. targets: the name endings that
    select just these layers."""

    module: nn.Module
    adapters: dict[str, Adapter]
    targets: tuple[str, ...]

    def parameters(self) -> dict[str, jt.Var]:
        """Name, such as "LAYER.lora_A" -> Var, the very ones that the layers use."""
        return {
            f"{name}.{factor}": getattr(adapter, factor)
            for name, adapter in self.adapters.items()
            for factor in ("lora_A", "lora_B")
        }


def add_lora(
    module: nn.Module,
    rank: int = 4,
    alpha: float | None = None,
    targets: str | tuple[str, ...] = "attention",
    seed: int = 0,
) -> LoRASet:
    """Give every targeted layer of `module` a new LoRA, which changes nothing yet (B = 0).

    alpha: None for the rank. targets: a name of TARGETS, or endings of layer names such as "to_q".
    A is drawn from (seed, layer name), uniform as in peft. The new Vars take gradients; those of
    the module are left as they are. Raises ValueError for a rank or alpha below or at 0, or if a
    target names no layer.
    """
    if int(rank) != rank or rank < 1:
        raise ValueError(f"rank must be an integer, at least 1, got {rank}")
    alpha = float(rank if alpha is None else alpha)
    if not (math.isfinite(alpha) and alpha > 0):
        raise ValueError(f"alpha must be a number above 0, got {alpha}")
    chosen, targets = select_layers(module, targets)
    adapters = {}
    for name, layer in chosen.items():
        adapters[name] = Adapter(
            _initial_factors(name, layer, int(rank), alpha, seed), trained=True
        )
    return _attach(module, adapters, targets)


def select_layers(
    module: nn.Module, targets: str | tuple[str, ...]
) -> tuple[dict[str, nn.Module], tuple[str, ...]]:
    """(layer name -> layer, the targets that name one). Raises ValueError if one names nothing."""
    layers = linear_layers(module)
    preset = isinstance(targets, str)
    if preset and targets not in TARGETS:
        raise ValueError(f"targets must be one of {', '.join(TARGETS)}, got {targets!r}")
    endings = TARGETS[str(targets)] if preset else tuple(targets)
    hits = {e: {n for n in layers if f".{n}".endswith(f".{e}")} for e in endings}
    lost = [ending for ending in endings if not hits[ending]]
    if len(lost) == len(endings) or (lost and not preset):  # presets are for two kinds of model
        raise ValueError(f"no layer's name ends in {listing(lost)}; there is {listing([*layers])}")
    chosen = set().union(*hits.values())
    named = tuple(ending for ending in endings if hits[ending])
    return {name: layer for name, layer in layers.items() if name in chosen}, named


def linear_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Name -> linear layer or convolution, in the order of the module's parameters."""
    return {n: m for n, m in module.named_modules() if isinstance(m, (nn.Linear, nn.Conv))}


def _initial_factors(name: str, layer, rank: int, alpha: float, seed: int) -> Factors:
    out, *inner = layer.weight.shape
    bound = math.prod(inner) ** -0.5  # kaiming_uniform with a = sqrt(5)
    rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
    down = rng.uniform(-bound, bound, (rank, *inner)).astype(np.float32)
    return Factors(down, np.zeros((out, rank) + (1,) * (len(inner) - 1), np.float32), alpha)


def _attach(module: nn.Module, adapters: dict[str, Adapter], targets: tuple[str, ...]) -> LoRASet:
    modules = dict(module.named_modules())
    for name, adapter in adapters.items():
        adapter.on(modules[name])
    return LoRASet(module, adapters, targets)


def _changes(module: nn.Module) -> Iterator[tuple[str, nn.Module, _Change]]:
    for name, layer in module.named_modules():
        for hook in hooks_around(layer):
            if isinstance(hook, _Change):
                yield name, layer, hook


def adapters_on(module: nn.Module) -> dict[str, list[Adapter]]:
    """Layer name -> the LoRAs on it, the first one first; layers without any are left out."""
    found: dict[str, list[Adapter]] = {}
    for name, _, change in _changes(module):
        found.setdefault(name, []).append(change.adapter)
    return found


def remove_lora(module: nn.Module, lora: LoRASet | None = None) -> None:
    """Take off one LoRA, or all of them. Raises ValueError if `lora` is not on the module."""
    changes = list(_changes(module))
    if lora is not None:
        wanted = {id(adapter) for adapter in lora.adapters.values()}
        changes = [found for found in changes if id(found[2].adapter) in wanted]
        if len(changes) < len(wanted):
            raise ValueError("this LoRA is not on the module")
    for _, layer, change in changes:
        Handle(layer, "execute", change).remove()


def merge_lora(module: nn.Module) -> None:
    """Add every LoRA to the weights it changes, in float32, and take it off."""
    modules = dict(module.named_modules())
    for name, adapters in adapters_on(module).items():
        weight = modules[name].weight
        trained = weight.requires_grad
        with jt.no_grad():
            changed = weight.float32()
            for adapter in adapters:
                changed = changed + adapter.delta()
            if weight.dtype != "float32":
                changed = _narrowed(changed, str(weight.dtype), name)
            changed.sync()
        weight.assign(changed)
        weight.requires_grad = trained  # assign took it from `changed`
    remove_lora(module)


def _narrowed(changed: jt.Var, dtype: str, name: str) -> jt.Var:
    var, finite = to_var(changed.numpy(), dtype)
    if not finite:
        raise WeightsError(f"{name} with its LoRA is too large for {dtype}; use --dtype float32")
    return var


def lora_parameters(module: nn.Module) -> dict[str, jt.Var]:
    """Name, such as "LAYER.lora_A" -> Var, for a module with one LoRA; {} without any.

    Raises ValueError if a layer has several: LoRASet.parameters() then tells them apart.
    """
    layers = adapters_on(module)
    several = [name for name, adapters in layers.items() if len(adapters) > 1]
    if several:
        raise ValueError(f"several LoRAs on {listing(several)}")
    return LoRASet(
        module, {name: adapters[0] for name, adapters in layers.items()}, ()
    ).parameters()


class LoRAReport(NamedTuple):
    """What a load did: keys applied, of how many in the file, the LoRA of each part, and lines
    about what was left out or is not as it seems."""

    applied: int
    total: int
    loras: dict[str, LoRASet]
    notes: tuple[str, ...] = ()

    def told(self, path: Path, weight: float | None = None) -> list[str]:
        """The lines for a user; weight: where it is to be said."""
        more = "" if weight is None else f", weight {weight:g}"
        counts = f"{self.applied} of {self.total} keys applied{more}"
        return [f"lora {path}: {line}" for line in (counts, *self.notes)]


def load_lora(
    sd: StableDiffusion, source: Path | str | LoRAFile, weight: float = 1.0
) -> LoRAReport:
    """Add a LoRA of any format to a StableDiffusion, on top of those that are there.

    source: a file, a folder with one, or what `read_lora` gave. weight: scales the change.
    Raises WeightsError, leaving the model alone, if the file is damaged, was made for another
    model, or holds anything that finds no place in this one.
    """
    if not math.isfinite(weight):
        raise ValueError(f"the weight of a LoRA must be a number, got {weight}")
    file = source if isinstance(source, LoRAFile) else read_lora(source)
    _require_base(file, base_facts(sd))
    placed = {}
    for part in file.parts:
        layers = linear_layers(getattr(sd, part))
        shapes = {name: tuple(layer.weight.shape) for name, layer in layers.items()}
        placed[part] = fit(file, part, shapes)
    loras = {}
    for part, factors in placed.items():
        adapters = {name: Adapter(f, weight) for name, f in factors.items()}
        loras[part] = _attach(getattr(sd, part), adapters, tuple(short(n) for n in adapters))
    return LoRAReport(file.keys, file.total, loras, file.notes)


def _require_base(file: LoRAFile, here: dict) -> None:
    for name, value in here.items():
        made_for = file.base.get(name, value)
        if name != "name" and made_for != value:
            raise WeightsError(
                f"{file.path}: made for another model, {file.base.get('name', 'unknown')}: "
                f"{name} {made_for}, but {here['name']} has {value}"
            )


def save_lora(
    path: Path | str,
    sd: StableDiffusion,
    loras: Mapping[str, LoRASet],
    format: str = "diffusers",
    dtype: str = "float32",
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write the LoRA of the parts "unet" and "text_encoder" of a StableDiffusion to one file.

    format: diffusers or kohya. dtype: float32 or float16. metadata: more for the header, str ->
    str; rank, alpha, targets and facts about the model are written in any case. The weight with
    which a LoRA was loaded is not part of it.
    Raises ValueError for another part, format or dtype, or if there is nothing to write.
    """
    if not loras or any(part not in PARTS or not lora.adapters for part, lora in loras.items()):
        raise ValueError(f"loras must hold LoRAs of {' or '.join(PARTS)}, got {[*loras]}")
    parts = {
        part: {name: adapter.factors() for name, adapter in lora.adapters.items()}
        for part, lora in loras.items()
    }
    targets = {part: lora.targets for part, lora in loras.items()}
    write_lora(path, parts, targets, base_facts(sd), format, dtype, metadata)


def base_facts(sd: StableDiffusion) -> dict:
    """What a LoRA needs to agree with, besides its layers' widths; and the model's name."""
    unet = sd.unet.config
    return {
        "name": sd.name,
        "block_out_channels": list(unet.block_out_channels),
        "cross_attention_dim": unet.cross_attention_dim,
        "num_heads": list(unet.num_heads),
        "use_linear_projection": unet.use_linear_projection,
        "prediction_type": sd.schedule.kind.value,
    }
