"""Where the tensors of a LoRA lie: a file of either container, or a folder as some program left it.

Contents are looked into, names are not trusted: a `.bin` is PyTorch's zip, a pickle of Jittor, or
safetensors under another name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .files import InputError, require_file
from .lora_kinds import DIFFUSERS, PEFT, WHOLE, raise_kind
from .reading import read_object
from .torch_zip import TorchFileError, read_tensors
from .weights import StoredTensor, WeightsError, read_metadata, read_safetensors

FILE_NAME = "pytorch_lora_weights.safetensors"  # inside a folder, as diffusers names it
ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")  # as peft names it
NAMES = (FILE_NAME, ADAPTERS[0], "pytorch_lora_weights.bin", ADAPTERS[1])
CONFIG = "adapter_config.json"  # beside peft's file
PARTS = ("unet", "text_encoder")  # of a StableDiffusion, those that can have LoRA
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
REFUSED = (  # options of peft that change the sum; use_dora is a kind of its own
    *("fan_in_fan_out", "lora_bias", "use_qalora", "use_bdlora", "target_parameters"),
    *("layer_replication", "arrow_config", "kasa_config", "alora_invocation_tokens"),
)
FAIR_STARTS = ("gaussian", "eva", "orthogonal")  # of peft: they leave the model's own weights alone


@dataclass(frozen=True)
class Source:
    """tensors: name -> values, with part. before those of a folder per part. adapter: options of
    peft, "part.name" or "name". files: all that was read. pickled: no safetensors."""

    path: Path
    files: tuple[Path, ...]
    tensors: Mapping[str, StoredTensor | np.ndarray]
    metadata: dict[str, str]
    adapter: dict
    pickled: bool
    notes: tuple[str, ...] = ()


def read_source(path: Path | str) -> Source:
    """Raises WeightsError for what is not there or cannot be read, one line."""
    found = _find(Path(path))
    if len(found) == 1 and found[0][0] is None:
        return _read_file(found[0][1])
    sources = {part: _read_file(file) for part, file in found}
    tensors: dict[str, StoredTensor | np.ndarray] = {}
    adapter: dict = {}
    for part, source in sources.items():
        start = "" if any(name.startswith(f"{part}.") for name in source.tensors) else f"{part}."
        tensors |= {start + name: values for name, values in source.tensors.items()}
        adapter |= {f"{part}.{name}": value for name, value in source.adapter.items()}
    each = sources.values()
    return Source(
        Path(path),
        tuple(file for source in each for file in source.files),
        tensors,
        {},
        adapter,
        any(source.pickled for source in each),
        tuple(note for source in each for note in source.notes),
    )


def _find(path: Path) -> list[tuple[str | None, Path]]:
    """(part or None, file) of a file or folder."""
    if not path.is_dir():
        return [(None, path)]
    for name in NAMES:
        if (path / name).is_file():
            return [(None, path / name)]
    parts = {p: f for p in PARTS for f in ADAPTERS[::-1] if (path / p / f).is_file()}
    if parts:
        return [(part, path / part / name) for part, name in parts.items()]
    if (path / "model_index.json").is_file():
        raise_kind(path, "a whole model", WHOLE)
    files = sorted(p.name for p in path.iterdir() if p.is_file() and p.suffix in SUFFIXES)
    if len(files) == 1:
        return [(None, path / files[0])]
    steps = sorted(p.name for p in path.glob("step-*") if (p / FILE_NAME).is_file())
    if files or steps:
        names = ", ".join([*files, *steps][:6])
        raise WeightsError(f"{path}: which one? name one of {names}")
    raise WeightsError(f"{path}: no LoRA in this folder; looked for {', '.join(NAMES)}")


def _read_file(path: Path) -> Source:
    try:
        with open(require_file(path), "rb") as file:
            head = file.read(9)
    except InputError as error:
        raise WeightsError(str(error)) from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
    pickled = _is_pickled(head)
    tensors = _unpickled(path) if pickled else read_safetensors(path)
    metadata = {} if pickled else read_metadata(path)
    config = path.with_name(CONFIG)
    if not path.name.startswith("adapter_model."):
        return Source(path, (path,), tensors, metadata, {}, pickled)
    if not config.is_file():
        note = f"no {CONFIG} beside {path.name}, so alpha is taken to be the rank"
        return Source(path, (path,), tensors, metadata, {}, pickled, (note,))
    return Source(path, (path, config), tensors, metadata, _read_config(config), pickled)


def _is_pickled(head: bytes) -> bool:
    """A zip or a pickle. Safetensors begin with a length below 4 GiB, then a brace."""
    if head[4:9] == b"\0\0\0\0{":
        return False
    return (
        head.startswith(b"PK") or head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5")
    )


def _unpickled(path: Path) -> dict[str, np.ndarray]:
    try:
        tensors = read_tensors(path)
    except TorchFileError as error:
        raise WeightsError(str(error)) from None
    start = "state_dict."
    if all(name.startswith(start) for name in tensors):
        return {name.removeprefix(start): values for name, values in tensors.items()}
    return tensors


def _read_config(path: Path) -> dict:
    try:
        config = read_object(path)
    except InputError as error:
        raise WeightsError(str(error)) from None
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise_kind(path.parent, f"an adapter of the kind {str(kind)[:40]}", PEFT)
    return config


def option(adapter: Mapping, part: str, name: str) -> Any:
    """An option of peft for a part; None if it is not told."""
    return adapter.get(f"{part}.{name}", adapter.get(name))


def require_plain(path: Path, adapter: Mapping, part: str) -> None:
    """Raise WeightsError naming an option of peft under which a file's factors mean another sum."""
    if option(adapter, part, "use_dora"):
        raise_kind(path, "a DoRA adapter (use_dora)", DIFFUSERS)
    for name in REFUSED:
        if option(adapter, part, name):
            raise WeightsError(f"{path}: {name} is not supported, only plain LoRA is; {PEFT}")
    if option(adapter, part, "bias") not in (None, "none"):
        raise WeightsError(f"{path}: biases that were trained too are not supported; {PEFT}")
    start = option(adapter, part, "init_lora_weights")
    if isinstance(start, str) and start.lower() not in FAIR_STARTS:
        raise WeightsError(
            f"{path}: init_lora_weights {start[:40]} changes the model's own weights too; convert "
            "it with peft (save_pretrained with path_initial_model_for_weight_conversion)"
        )
