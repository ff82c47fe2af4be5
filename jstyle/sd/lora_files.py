"""LoRA files: which factors they hold, whoever wrote them; written as diffusers or kohya do.

Alpha stands in a tensor LAYER.alpha (kohya), in the header under "lora_adapter_metadata"
(diffusers) or in adapter_config.json (peft). Without any alpha, alpha is the rank: scale 1.
No model is needed here; names meet layers in lora.py.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import printable
from .files import InputError
from .lora_kinds import refuse_other_kinds
from .lora_names import place
from .lora_source import CONFIG, FILE_NAME, Source, option, read_source, require_plain
from .reading import parse_json
from .weights import StoredTensor, WeightsError, write_safetensors
from .written import LORA_FORMATS

__all__ = ["FILE_NAME", "Factors", "LoRAFile", "listing", "read_lora", "write_lora"]

LISTED = 4  # names per kind in an error
ADAPTER_KEY = "lora_adapter_metadata"
OWN_KEY = "jstyle_lora"
BUNDLED = "bundle_emb."  # embeddings that travel in a kohya file
PLAIN_NAME = re.compile(r"[\w.]+")


class Factors(NamedTuple):
    """One layer's change, alpha / rank * up @ down.

    down: (rank, in) or (rank, in, kh, kw); up: (out, rank) or (out, rank, 1, 1); float32.
    """

    down: np.ndarray
    up: np.ndarray
    alpha: float


@dataclass(frozen=True)
class LoRAFile:
    """A file that was understood completely. `parts`: "unet" or "text_encoder" -> layer -> factors;
    layers are named as in the model. `base`: facts about the model it was made for, {} if unknown.
    `keys` were taken of `total`. `files`: all that was read. `notes`: what a user should know.
    """

    path: Path
    parts: dict[str, dict[str, Factors]]
    base: dict
    metadata: dict[str, str]
    keys: int
    total: int
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def read_lora(path: Path | str) -> LoRAFile:
    """Read a LoRA of any spelling, from a file or a folder that holds one.

    Raises WeightsError for what is no LoRA: another kind of adapter, a whole model, a key that is
    not understood, one factor without the other, values that are not finite.
    """
    source = read_source(path)
    path = source.path
    refuse_other_kinds(path, source.tensors)
    bundled = sorted({k.split(".")[1] for k in source.tensors if k.startswith(BUNDLED)})
    tensors = {k: v for k, v in source.tensors.items() if not k.startswith(BUNDLED)}
    found = _roles(path, tensors)
    adapter = {**_header(path, source.metadata, ADAPTER_KEY), **source.adapter}
    base = _header(path, source.metadata, OWN_KEY).get("base", {})
    parts: dict[str, dict[str, Factors]] = {}
    for (part, layer), roles in found.items():
        parts.setdefault(part, {})[layer] = _factors(path, roles, adapter, part, layer)
    notes = (*source.notes, *_notes(source, parts, found, bundled))
    counts = len(tensors), len(source.tensors)
    return LoRAFile(path, parts, base, source.metadata, *counts, source.files, notes)


def _roles(path: Path, tensors: Mapping) -> dict[tuple[str, str], dict[str, np.ndarray]]:
    """(part, layer) -> role -> values. Raises WeightsError for keys that do not belong to a LoRA"""
    found: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    left_over = []
    for key, stored in tensors.items():
        placed = place(key)
        if placed is None or placed.role in found.setdefault(placed[:2], {}):
            left_over.append(key)
        else:
            found[placed[:2]][placed.role] = _values(path, key, stored)
    if left_over or not tensors:
        what = f"{len(left_over)} of {len(tensors)} keys are left over: {listing(left_over)}"
        raise WeightsError(f"{path}: {what if tensors else 'no tensors'}; {_known()}")
    half = [f"{part} {layer}" for (part, layer), roles in found.items() if not _whole(roles)]
    if half:
        raise WeightsError(
            f"{path}: {len(half)} layers lack a factor or the two disagree: {listing(half)}"
        )
    return found


def _values(path: Path, key: str, stored: StoredTensor | np.ndarray) -> np.ndarray:
    values = stored.array() if isinstance(stored, StoredTensor) else stored
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise WeightsError(f"{path}: {key} holds values that are not finite")
    return values


def _whole(roles: Mapping[str, np.ndarray]) -> bool:
    """Both factors are there, are matrices or kernels, and agree about the rank."""
    down, up, mid = (roles.get(role) for role in ("down", "up", "mid"))
    if down is None or up is None or roles.get("alpha", np.zeros(1)).size != 1:
        return False
    if {down.ndim, up.ndim} - {2, 4} or up.shape[2:] not in ((), (1, 1)) or down.size == 0:
        return False
    if mid is None:
        return down.shape[0] == up.shape[1]
    inner = mid.ndim == 4 and mid.shape[:2] == (up.shape[1], down.shape[0])
    return inner and down.shape[2:] in ((), (1, 1))


def _factors(path: Path, roles: Mapping, adapter: Mapping, part: str, layer: str) -> Factors:
    down, up = roles["down"], roles["up"]
    if "mid" in roles:  # a kernel between the factors: one with the factor before it is the same
        pixel = down.reshape(down.shape[:2]).astype(np.float64)
        down = np.einsum("abhw,bi->aihw", roles["mid"].astype(np.float64), pixel)
        down = down.astype(np.float32)
    if down.ndim == 4 and up.ndim == 2:
        up = up[:, :, None, None]
    elif down.ndim == 2 and up.ndim == 4:
        down = down[:, :, None, None]
    require_plain(path, adapter, part)
    if "alpha" in roles:
        return Factors(down, up, roles["alpha"].item())
    return Factors(down, up, _told_alpha(path, adapter, part, layer, len(down)))


def _header(path: Path, metadata: Mapping[str, str], key: str) -> dict:
    try:
        value = parse_json(metadata.get(key, "{}"), f"{path}: {key} in the header")
    except InputError as error:
        raise WeightsError(str(error)) from None
    if not isinstance(value, dict):
        raise WeightsError(f"{path}: {key} in the header is not an object")
    return value


def _told_alpha(path: Path, adapter: Mapping, part: str, layer: str, rank: int) -> float:
    """Alpha by the header or peft's file, with peft's rule for exceptions; the rank if neither
    says it. With use_rslora the sum is scaled by alpha / sqrt(rank)."""
    try:
        alpha = option(adapter, part, "lora_alpha")
        for pattern, exception in (option(adapter, part, "alpha_pattern") or {}).items():
            if _matches(pattern.removeprefix("^"), layer):
                alpha = exception
                break
        alpha = float(rank if alpha is None else alpha)
        if not math.isfinite(alpha):
            raise ValueError(f"alpha {alpha}")
    except (AttributeError, TypeError, ValueError, re.error) as error:
        told = f"{ADAPTER_KEY} in the header or {CONFIG}"
        raise WeightsError(f"{path}: alpha by {told}: {error}") from error
    return alpha * math.sqrt(rank) if option(adapter, part, "use_rslora") else alpha


def _matches(pattern: str, layer: str) -> bool:
    """peft's rule: the pattern describes the end of the layer's name."""
    if PLAIN_NAME.fullmatch(pattern):
        return f".{layer}".endswith(f".{pattern}")
    if re.search(r"[)][*+{]", pattern) or len(re.findall(r"[*+{]", pattern)) > 2:
        raise ValueError(f"the pattern {pattern[:80]} can take for ever")
    return re.match(rf"(.*\.)?({pattern})$", layer) is not None


def _notes(source: Source, parts: Mapping, found: Mapping, bundled: list[str]) -> list[str]:
    notes = []
    if bundled:
        notes.append(
            f"its bundled embedding {listing(bundled)} is left out, as embeddings are not taken; "
            "the LoRA is taken"
        )
    folded = sum("mid" in roles for roles in found.values())
    if folded:
        notes.append(f"{folded} layers have a lora_mid, which is folded into their lora_down")
    endings = {layer.rpartition("attn1.")[2] for layer in parts.get("unet", {})}
    if source.pickled and {"to_q", "to_k", "to_v"} <= endings and "to_out.0" not in endings:
        notes.append(
            "to_q, to_k and to_v are there and to_out.0 is not: JDiffusion's example trains it and "
            "does not write it, so results differ from those at the end of such a training"
        )
    return notes


def listing(names: list[str]) -> str:
    """The first names, as an error shows them."""
    return printable.listing(names, LISTED)


def _known() -> str:
    return (
        f"known are {', '.join(LORA_FORMATS)} and peft files of LoRAs for the UNet and text encoder"
    )


def write_lora(
    path: Path | str,
    parts: Mapping[str, Mapping[str, Factors]],
    targets: Mapping[str, tuple[str, ...]],
    base: dict,
    format: str = "diffusers",
    dtype: str = "float32",
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write factors under the names of `format`, atomically.

    parts: part -> layer, with dots -> factors. targets: part -> name endings that select just these
    layers. base: facts about the model. metadata: more entries of the header, str -> str.
    Raises ValueError for another format or dtype, WeightsError for what does not fit into float16.
    """
    if format not in LORA_FORMATS:
        raise ValueError(f"format must be {' or '.join(LORA_FORMATS)}, got {format!r}")
    names = _diffusers_names if format == "diffusers" else _kohya_names
    tensors = {}
    for part, layers in parts.items():
        for layer, factors in layers.items():
            tensors |= names(part, layer, factors)
    configs = {part: _peft_config(layers, targets[part]) for part, layers in parts.items()}
    header = {**(metadata or {}), OWN_KEY: json.dumps({"base": base, **configs})}
    if format == "diffusers":
        flat = {f"{part}.{k}": v for part, config in configs.items() for k, v in config.items()}
        header[ADAPTER_KEY] = json.dumps(flat, sort_keys=True)
    else:
        first = next(iter(configs.values()))
        header["ss_network_module"] = "networks.lora"
        header["ss_network_dim"] = str(first["r"])
        header["ss_network_alpha"] = str(first["lora_alpha"])
    shapes = {name: values.shape for name, values in tensors.items()}
    readers = {name: values.copy for name, values in tensors.items()}
    write_safetensors(path, readers, shapes, dtype, header)


def _diffusers_names(part: str, layer: str, factors: Factors) -> dict[str, np.ndarray]:
    kind = "lora" if part == "unet" else "lora_linear_layer"
    stem = f"{part}.{layer}.{kind}"
    return {f"{stem}.down.weight": factors.down, f"{stem}.up.weight": factors.up}


def _kohya_names(part: str, layer: str, factors: Factors) -> dict[str, np.ndarray]:
    stem = ("lora_unet_" if part == "unet" else "lora_te_") + layer.replace(".", "_")
    return {
        f"{stem}.lora_down.weight": factors.down,
        f"{stem}.lora_up.weight": factors.up,
        f"{stem}.alpha": np.asarray(factors.alpha, np.float32),
    }


def _peft_config(layers: Mapping[str, Factors], targets: tuple[str, ...]) -> dict:
    """The fields of a peft.LoraConfig that describe these layers."""
    ranks = {layer: len(f.down) for layer, f in layers.items()}
    alphas = {layer: f.alpha for layer, f in layers.items()}
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    return {
        "r": rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "rank_pattern": _exceptions(ranks, rank),
        "alpha_pattern": _exceptions(alphas, alpha),
        "target_modules": list(targets),
    }


def _exceptions(values: Mapping[str, float], usual: float) -> dict[str, float]:
    # transformers 5 has no text_model. in its names; peft's rule allows for anything before them
    return {k.removeprefix("text_model."): v for k, v in values.items() if v != usual}
