"""Weights: read safetensors, rename what old files call otherwise, load strictly, save.

Every name and every shape of a checkpoint has to match the module; what is tolerated stands in
RULES with its reason. Files are memory-mapped and read tensor by tensor, so that loading needs
about one model of memory. The format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import mmap
import os
import re
import struct
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from . import half, kernels, written
from .files import InputError, atomic_write, require_file
from .limits import switched
from .number_types import FLOAT32
from .printable import listing
from .reading import kind_of, parse_json, read_object
from .startup import jt
from .torch_zip import TorchFileError, read_tensors

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4"}
DTYPES |= {"I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?"}
NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
LISTED = 20  # names per kind in an error
LONGEST_HEADER = 100_000_000  # bytes; the format's own limit
MOST_TENSORS = 20_000  # in one file; a whole SDXL checkpoint has 2,500, a LoRA for it 3,000
COPIED_AT_ONCE = 1 << 20  # numbers, by one thread of several


class WeightsError(ValueError):
    """A weights file that cannot be read or does not fit; the message says which and why."""


class Rule(NamedTuple):
    """What to do with names that match `pattern` (re.sub); `becomes` None drops the tensor."""

    pattern: str
    becomes: str | None
    why: str


_VAE_ATTENTION = r"((?:en|de)coder\.mid_block\.attentions\.0)"
RULES = (
    Rule(r"^(text_model\.)?embeddings\.position_ids$", None, "a buffer of old files: 0, 1, 2, ..."),
    Rule(r"^text_projection\.weight$", None, "CLIP's for comparing; pictures need none of it"),
    Rule(rf"^{_VAE_ATTENTION}\.query\.", r"\1.to_q.", "VAE files of old diffusers"),
    Rule(rf"^{_VAE_ATTENTION}\.key\.", r"\1.to_k.", "VAE files of old diffusers"),
    Rule(rf"^{_VAE_ATTENTION}\.value\.", r"\1.to_v.", "VAE files of old diffusers"),
    Rule(rf"^{_VAE_ATTENTION}\.proj_attn\.", r"\1.to_out.0.", "VAE files of old diffusers"),
    Rule(
        r"^(embeddings|encoder\.layers|final_layer_norm)\.",
        r"text_model.\1.",
        "text encoders saved by transformers 5 have no prefix",
    ),
)
# The VAE's attention was written with 1x1 convolutions once: (C, C, 1, 1) for a (C, C) matrix.
_ONCE_CONVOLUTIONS = re.compile(rf"^{_VAE_ATTENTION}\.to_(q|k|v|out\.0)\.weight$")


class Report(NamedTuple):
    """What a load did: tensors filled, bytes they took in the file, the file's number types, and
    the tensors that a rule leaves out."""

    count: int
    bytes: int
    dtype: str
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        told = f"{self.count} tensors, {self.bytes / 1e6:.1f} MB, {self.dtype}"
        return f"{told}; left out: {_listing(list(self.left_out))}" if self.left_out else told


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a mapped file; nothing is read until `array` is called."""

    dtype: str  # the format's name, for example "BF16"
    shape: tuple[int, ...]
    start: int
    stop: int
    file: mmap.mmap

    def array(self) -> np.ndarray:
        """The values; a read-only view where NumPy knows the type, bfloat16 widened bit by bit."""
        count = math.prod(self.shape)
        flat = np.frombuffer(self.file, DTYPES[self.dtype], count, self.start)
        if self.dtype == "BF16":
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        return flat.reshape(self.shape)

    def forget(self) -> None:
        """Give the pages that hold the values back to the system; they can be read again."""
        start = self.start // mmap.PAGESIZE * mmap.PAGESIZE
        self.file.madvise(mmap.MADV_DONTNEED, start, self.stop - start)


def read_safetensors(path: Path | str) -> dict[str, StoredTensor]:
    """Name -> tensor of one file.

    Raises WeightsError if the file is cut short or is something else, is no regular file, or has
    more than MOST_TENSORS (the environment variable JSTYLE_MOST_TENSORS asks for another limit).
    """
    path = Path(path)
    header, data, mapped = _read_header(path)
    header.pop("__metadata__", None)
    try:
        tensors = {name: _stored(entry, data, mapped) for name, entry in header.items()}
        _require_apart(tensors)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise WeightsError(f"{path}: damaged safetensors header ({error})") from error
    size, wanted = len(mapped), max((t.stop for t in tensors.values()), default=data)
    if wanted > size:
        raise WeightsError(f"{path}: cut short, {size} bytes of {wanted}")
    return tensors


def _read_header(path: Path) -> tuple[dict, int, mmap.mmap]:
    """(name -> entry, where the data begins, the mapped file). Raises WeightsError."""
    mapped = _map(path)
    length = struct.unpack("<Q", mapped[:8])[0]
    if 8 + length > len(mapped):
        raise WeightsError(f"{path}: not a safetensors file or cut short ({len(mapped)} bytes)")
    if length > LONGEST_HEADER:
        raise WeightsError(f"{path}: a header of {length} bytes; at most {LONGEST_HEADER} are read")
    text = mapped[8 : 8 + length]
    most, count = switched("JSTYLE_MOST_TENSORS", MOST_TENSORS), text.count(b'"data_offsets"')
    if count > most:
        raise WeightsError(
            f"{path}: {count} tensors; at most {most} are read (JSTYLE_MOST_TENSORS sets how many)"
        )
    try:
        header = parse_json(text, "header")
    except InputError as error:
        raise WeightsError(f"{path}: damaged safetensors header ({error})") from None
    if not isinstance(header, dict):
        raise WeightsError(f"{path}: damaged safetensors header (it is {kind_of(header)})")
    return header, 8 + length, mapped


def _map(path: Path) -> mmap.mmap:
    try:
        with open(require_file(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < 8:
                raise WeightsError(f"{path}: not a safetensors file or cut short ({size} bytes)")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except InputError as error:
        raise WeightsError(str(error)) from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error


def _stored(entry: dict, data: int, mapped: mmap.mmap) -> StoredTensor:
    dtype, shape, offsets = entry["dtype"], tuple(entry["shape"]), tuple(entry["data_offsets"])
    if not all(type(n) is int and 0 <= n < 1 << 63 for n in (*shape, *offsets)):
        raise ValueError(f"shape {entry['shape']}, offsets {entry['data_offsets']}")
    start, stop = (data + offset for offset in offsets)
    if dtype not in DTYPES:
        raise ValueError(f"number type {dtype}; known: {', '.join(DTYPES)}")
    if stop - start != math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize:
        raise ValueError(f"offsets {entry['data_offsets']} do not fit {dtype} {list(shape)}")
    return StoredTensor(dtype, shape, start, stop, mapped)


def _require_apart(tensors: Mapping[str, StoredTensor]) -> None:
    """Tensors that share bytes would take more memory than the file has."""
    end, last = 0, ""
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].stop)):
        if tensor.start < end:
            raise ValueError(f"{last} and {name} share bytes")
        end, last = tensor.stop, name


def read_metadata(path: Path | str) -> dict[str, str]:
    """The text metadata of a safetensors file, {} if it has none. Raises WeightsError."""
    metadata = _read_header(Path(path))[0].get("__metadata__", {})
    texts = [*metadata, *metadata.values()] if isinstance(metadata, dict) else [None]
    if not all(isinstance(text, str) for text in texts):
        raise WeightsError(f"{path}: damaged safetensors header (__metadata__ must hold texts)")
    return metadata


def read_weights(path: Path | str) -> Mapping[str, StoredTensor | np.ndarray]:
    """Name -> tensor of a .safetensors file, of all shards of a .safetensors.index.json, or of a
    .bin file, of which nothing but tensors is read."""
    path = Path(path)
    if path.suffix == ".bin":
        try:
            return read_tensors(path, mapped=True)
        except TorchFileError as error:
            raise WeightsError(str(error)) from None
    if path.suffix != ".json":
        return read_safetensors(path)
    places = _read_index(path)
    shards = {name: read_safetensors(path.parent / name) for name in sorted(set(places.values()))}
    lost = [f"{name} (in {shard})" for name, shard in places.items() if name not in shards[shard]]
    if lost:
        raise WeightsError(f"{path}: tensors missing in their shards: {_listing(lost)}")
    return {name: shards[shard][name] for name, shard in places.items()}


def _read_index(path: Path) -> dict[str, str]:
    """Name -> the shard beside the index that holds it. Raises WeightsError."""
    try:
        places = read_object(path).get("weight_map")
    except InputError as error:
        raise WeightsError(f"{error}; not an index of shards") from None
    if not isinstance(places, dict) or not all(isinstance(p, str) for p in places.values()):
        what = "its weight_map must be an object whose values are file names"
        raise WeightsError(f"{path}: not an index of shards; {what}")
    for shard in set(places.values()):
        if shard in ("", ".", "..") or "/" in shard or "\\" in shard:
            raise WeightsError(f"{path}: the shard {shard!r} does not lie beside its index")
    return places


def rename(name: str, rules: tuple[Rule, ...] = RULES) -> str | None:
    """The module's name for a name in a file; None if the tensor is to be dropped."""
    for rule in rules:
        if re.search(rule.pattern, name):
            if rule.becomes is None:
                return None
            name = re.sub(rule.pattern, rule.becomes, name)
    return name


def load_strict(
    module: jt.nn.Module,
    tensors: Mapping[str, StoredTensor] | Mapping[str, np.ndarray],
    rules: tuple[Rule, ...] = RULES,
    where: object = "weights",
) -> Report:
    """Fill every parameter of `module` with float32 values of `tensors`; nothing else is accepted.

    tensors: name -> StoredTensor, or NumPy array. `where` names the source in errors. Inside of
    half.kept_in weights are rounded to its number type.
    Raises WeightsError naming up to twenty missing, unexpected and misshapen tensors at once, or
    the first tensor with a value that is not finite; in the first case the module is untouched.
    """
    parameters = dict(module.state_dict())
    found: dict[str, str] = {}
    left_out: list[str] = []
    for name in tensors:
        ours = rename(name, rules)
        if ours in found:
            raise WeightsError(f"{where}: {name} and {found[ours]} are the same tensor")
        if ours is None:
            left_out.append(name)
        else:
            found[ours] = name
    shapes = {ours: tensors[name].shape for ours, name in found.items()}
    _require_match(parameters, shapes, found, where)
    count = total = 0
    dtypes = set()
    kept = half.dtypes_of(module)
    for ours, parameter in parameters.items():
        stored = tensors[found[ours]]
        values = stored.array() if isinstance(stored, StoredTensor) else np.asarray(stored)
        var, finite = to_var(values.reshape(tuple(parameter.shape)), kept[ours])
        if not finite:
            _raise_not_finite(f"{where}: {found[ours]}", values, kept[ours])
        trained = parameter.requires_grad
        parameter.assign(var)
        if not trained:
            parameter.stop_grad()
        count, total = count + 1, total + _stored_bytes(stored)
        if isinstance(stored, StoredTensor):
            dtypes.add(NAMES.get(stored.dtype, str(values.dtype)))
            stored.forget()
        else:
            dtypes.add(str(values.dtype))
    half.make_ready(module)
    return Report(count, total, "+".join(sorted(dtypes)), tuple(left_out))


def _raise_not_finite(what: str, values: np.ndarray, dtype: str) -> NoReturn:
    if _all_finite(values):
        largest = f"{np.abs(values).max():.4g}, which is too large for {dtype}"
        raise WeightsError(f"{what} holds {largest}; use --dtype bfloat16 or float32")
    raise WeightsError(f"{what} holds values that are not finite")


def _all_finite(values: np.ndarray) -> bool:
    # a sum is quick and never finite when a term is not; it may overflow, so look again then
    return bool(np.isfinite(values.sum()) or np.isfinite(values).all())


def _stored_bytes(stored: StoredTensor | np.ndarray) -> int:
    return stored.stop - stored.start if isinstance(stored, StoredTensor) else stored.nbytes


def _require_match(parameters: dict, shapes: dict, found: dict, where: object) -> None:
    missing = [name for name in parameters if name not in shapes]
    unexpected = [found[name] for name in shapes if name not in parameters]
    wrong = []
    for name, parameter in parameters.items():
        have, want = tuple(shapes.get(name, parameter.shape)), tuple(parameter.shape)
        once_convolution = have == (*want, 1, 1) and _ONCE_CONVOLUTIONS.match(name)
        if have != want and not once_convolution:
            wrong.append(f"{found[name]} {list(have)} instead of {list(want)}")
    kinds = {"missing": missing, "unexpected": unexpected, "wrong shape": wrong}
    texts = [f"{len(names)} {kind}: {_listing(names)}" for kind, names in kinds.items() if names]
    if texts:
        raise WeightsError(f"{where} does not fit the model; " + "; ".join(texts))


def _listing(names: list[str]) -> str:
    return listing(names, LISTED)


def to_var(values: np.ndarray, dtype: str = FLOAT32) -> tuple[jt.Var, bool]:
    """A Var with these values in a number type, converted on the way in, and whether all are finite
    there.

    On the CPU the Var's memory is taken first and filled in place by several threads: touching
    fresh pages takes longer than the copy itself, and goes on in parallel.
    """
    if jt.flags.use_cuda or values.size == 0:
        values = half.rounded(values, dtype)
        return jt.array(values), _all_finite(values)
    var = jt.empty(values.shape, dtype)
    var.sync(False, False)  # this Var alone, not the initial values that wait to be drawn
    memory = var.data.reshape(-1)  # .data shares the Var's memory on the CPU; bfloat16: as uint16
    plain = values.flags.c_contiguous and values.flags.aligned
    if dtype == FLOAT32 and values.dtype == np.float16 and plain and kernels.fast(var):
        return var, kernels.widen(values, memory)
    _copy(values.reshape(-1), memory, dtype)
    return var, _all_finite(memory) if dtype == FLOAT32 else _half_finite(memory)


def _half_finite(memory: np.ndarray) -> bool:
    """Of float16, or bfloat16 as uint16: an exponent of ones stands for no number."""
    ones = 0x7C00 if memory.dtype == np.float16 else 0x7F80
    return bool((memory.view(np.uint16) & 0x7FFF).max() < ones)


def _copy(values: np.ndarray, memory: np.ndarray, dtype: str) -> None:
    def part(i: int) -> None:
        j = i + COPIED_AT_ONCE
        np.copyto(memory[i:j], half.rounded(values[i:j], dtype), casting="unsafe")

    if values.size <= COPIED_AT_ONCE:
        part(0)
        return
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        list(threads.map(part, range(0, values.size, COPIED_AT_ONCE)))


def require_saved_dtype(dtype: str) -> None:
    """Raise ValueError unless weights can be written in this number type."""
    if dtype not in written.DTYPES:
        raise ValueError(f"dtype must be {' or '.join(written.DTYPES)}, got {dtype!r}")


def save(
    module: jt.nn.Module, path: Path | str, dtype: str = "float16", metadata: dict | None = None
) -> None:
    """Write all parameters under their diffusers names, one at a time, then rename the file.

    metadata: str -> str, kept in the file's header. Raises ValueError for another dtype, and
    WeightsError if a value does not fit into float16.
    """
    state = {name: var.numpy for name, var in module.state_dict().items()}
    shapes = {name: tuple(var.shape) for name, var in module.state_dict().items()}
    write_safetensors(path, state, shapes, dtype, metadata)


def write_safetensors(
    path: Path | str,
    values: Mapping[str, Callable[[], np.ndarray]],
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str = "float32",
    metadata: dict | None = None,
) -> None:
    """Write tensors given as functions that return their values, called once, in name order."""
    require_saved_dtype(dtype)
    kind, numpy_kind = written.DTYPES[dtype]
    header: dict = {"__metadata__": {"format": "pt", **(metadata or {})}}
    offset = 0
    for name in sorted(values):
        end = offset + math.prod(shapes[name]) * np.dtype(numpy_kind).itemsize
        header[name] = {"dtype": kind, "shape": list(shapes[name]), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format wants the data aligned
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(values):
            with np.errstate(over="ignore"):
                array = np.ascontiguousarray(values[name](), numpy_kind)
            if not np.isfinite(array).all():
                raise WeightsError(f"{path}: {name} is not finite as {dtype}")
            file.write(array.tobytes())
