"""LoRA files: which names they use for which factors, in the formats of diffusers and kohya.

diffusers: unet.LAYER.lora.down.weight and text_encoder.LAYER.lora_linear_layer.down.weight (older
files and peft say lora_A and lora_B), alpha in the header under "lora_adapter_metadata".
kohya: lora_unet_LAYER.lora_down.weight with the dots of LAYER as underscores, lora_te_LAYER for the
text encoder, alpha in a tensor LAYER.alpha. Without any alpha, alpha is the rank: scale 1.
No model is needed here; names meet layers in lora.py.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .files import InputError
from .reading import parse_json
from .weights import (
    Rule,
    StoredTensor,
    WeightsError,
    read_metadata,
    read_safetensors,
    rename,
    write_safetensors,
)

FILE_NAME = "pytorch_lora_weights.safetensors"  # inside a folder, as diffusers names it
FORMATS = ("diffusers", "kohya")
LISTED = 4  # names per kind in an error
ADAPTER_KEY = "lora_adapter_metadata"
OWN_KEY = "jstyle_lora"
PREFIXES = {
    "unet.": "unet",
    "text_encoder.": "text_encoder",
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
}
SUFFIXES = {
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".alpha": "alpha",
}
RULES = (
    Rule(r"^(?=(down_blocks|mid_block|up_blocks)\.)", "unet.", "files of a UNet alone"),
    Rule(r"\.processor\.to_(q|k|v)_lora\.", r".to_\1.lora.", "attention processors, early 2023"),
    Rule(r"\.processor\.to_out_lora\.", ".to_out.0.lora.", "attention processors, early 2023"),
)
REFUSED = ("use_dora", "use_rslora", "fan_in_fan_out", "lora_bias")  # peft options that change sums


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
    layers are named as in the file. `base`: facts about the model it was made for, {} if unknown.
    """

    path: Path
    parts: dict[str, dict[str, Factors]]
    base: dict
    metadata: dict[str, str]
    keys: int


def read_lora(path: Path | str) -> LoRAFile:
    """Read a file of either format, or FILE_NAME in a folder.

    Raises WeightsError for what is no LoRA: another format, a key that is not understood, one
    factor without the other, values that are not finite.
    """
    path = Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    tensors, metadata = read_safetensors(path), read_metadata(path)
    found: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    left_over = []
    for key, stored in tensors.items():
        part, layer, role = _place(rename(key, RULES))
        if part is None or role in found.setdefault((part, layer), {}):
            left_over.append(key)
        else:
            found[part, layer][role] = _values(path, key, stored)
    if left_over or not tensors:
        what = f"{len(left_over)} of {len(tensors)} keys are left over: {listing(left_over)}"
        raise WeightsError(f"{path}: {what if tensors else 'no tensors'}; {_known()}")
    half = [f"{part} {layer}" for (part, layer), roles in found.items() if not _whole(roles)]
    if half:
        raise WeightsError(
            f"{path}: {len(half)} layers lack a factor or the two disagree: {listing(half)}"
        )
    adapter, own = (_header(path, metadata, key) for key in (ADAPTER_KEY, OWN_KEY))
    parts: dict[str, dict[str, Factors]] = {}
    for (part, layer), roles in found.items():
        down, up = roles["down"], roles["up"]
        if "alpha" in roles:
            alpha = roles["alpha"].item()
        else:
            alpha = _header_alpha(path, adapter, part, layer, len(down))
        parts.setdefault(part, {})[layer] = Factors(down, up, alpha)
    return LoRAFile(path, parts, own.get("base", {}), metadata, len(tensors))


def _place(key: str) -> tuple[str | None, str, str]:
    """(part, layer, role) that a key speaks of; (None, "", "") if it is not understood."""
    prefix = next((p for p in PREFIXES if key.startswith(p)), None)
    suffix = next((s for s in SUFFIXES if key.endswith(s)), None)
    if prefix is None or suffix is None:
        return None, "", ""
    return PREFIXES[prefix], key[len(prefix) : -len(suffix)], SUFFIXES[suffix]


def _values(path: Path, key: str, stored: StoredTensor) -> np.ndarray:
    values = stored.array().astype(np.float32)
    if not np.isfinite(values).all():
        raise WeightsError(f"{path}: {key} holds values that are not finite")
    return values


def _whole(roles: Mapping[str, np.ndarray]) -> bool:
    """Both factors are there, are matrices or kernels, and agree about the rank."""
    down, up = roles.get("down"), roles.get("up")
    if down is None or up is None or roles.get("alpha", np.zeros(1)).size != 1:
        return False
    return down.ndim == up.ndim and down.ndim in (2, 4) and down.shape[0] == up.shape[1] > 0


def _header(path: Path, metadata: Mapping[str, str], key: str) -> dict:
    try:
        value = parse_json(metadata.get(key, "{}"), f"{path}: {key} in the header")
    except InputError as error:
        raise WeightsError(str(error)) from None
    if not isinstance(value, dict):
        raise WeightsError(f"{path}: {key} in the header is not an object")
    return value


def _header_alpha(path: Path, adapter: dict, part: str, layer: str, rank: int) -> float:
    """Alpha by the header, with peft's rule for exceptions; the rank if it says nothing."""

    def option(name: str):
        return adapter.get(f"{part}.{name}", adapter.get(name))

    for name in REFUSED:
        if option(name):
            raise WeightsError(f"{path}: {name} is not supported; only plain LoRA is")
    try:
        for pattern, alpha in (option("alpha_pattern") or {}).items():
            if re.match(rf"(.*\.)?({pattern.removeprefix('^')})$", layer):
                return float(alpha)
        return float(rank if option("lora_alpha") is None else option("lora_alpha"))
    except (AttributeError, TypeError, ValueError, re.error) as error:
        raise WeightsError(f"{path}: {ADAPTER_KEY} in the header: {error}") from error


def listing(names: list[str]) -> str:
    rest = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {rest} more" if rest > 0 else "")


def _known() -> str:
    return f"known are {' and '.join(FORMATS)} files of LoRAs for the UNet and the text encoder"


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
    if format not in FORMATS:
        raise ValueError(f"format must be {' or '.join(FORMATS)}, got {format!r}")
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
        f"{stem}.alpha": np.float32(factors.alpha),
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
