"""Tensors out of PyTorch's files, without PyTorch, and without running what a pickle asks for.

Three layouts, all of which hold a pickle of names and raw numbers beside it:

    torch.save since 1.6    a zip: NAME/data.pkl, NAME/data/0, NAME/data/1, ...
    torch.save before       pickles one after the other, then length and bytes of each storage
    torch.jit.save          a zip as the first, whose pickle holds modules with attributes

A pickle is a program. The reader here knows tensors, storages, dictionaries, plain values, and the
modules of the third layout, which become dictionaries; whatever else it asks for is refused by
name before anything is done. Names of nested dictionaries and modules are joined with dots.
"""

from __future__ import annotations

import math
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

STORAGES = {  # class in `torch` -> NumPy type; bfloat16 is read as 16 bits and widened
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")
MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the old layout
LARGEST_PICKLE = 1 << 26  # bytes; of names and shapes, a real one has far less


class TorchFileError(ValueError):
    """A file that is damaged, of another kind, or asks for more than tensors; one line."""


class _Kind(NamedTuple):
    """A storage's class."""

    name: str

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(STORAGES[self.name])


class _Storage(NamedTuple):
    kind: _Kind
    key: str
    count: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Module(dict):
    """A module of the third layout: its attributes."""

    def __setstate__(self, state):
        if not isinstance(state, dict):
            raise TorchFileError(f"a module with a state of type {type(state).__name__}")
        self.update(state)


def read_tensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Name -> values of every tensor in the file; half and bfloat16 come as float16 and float32.

    Raises TorchFileError naming the file and what is wrong or refused.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            if zipfile.is_zipfile(file):
                return _read_zip(file)
            file.seek(0)
            return _read_old(file)
    except TorchFileError as error:
        raise TorchFileError(f"{path}: {error}") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise TorchFileError(f"{path}: cannot be read ({reason})") from None
    except Exception as error:  # what damaged zips and pickles raise has no common type
        reason = " ".join(str(error).split()) or type(error).__name__
        raise TorchFileError(f"{path}: not a PyTorch file, or damaged ({reason})") from None


# ---- the two containers


def _read_zip(file: BinaryIO) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        stored = [i for i in archive.infolist() if i.compress_type == zipfile.ZIP_STORED]
        sizes = {info.filename: info.file_size for info in stored}  # PyTorch compresses nothing
        pickles = [name for name in sizes if name.endswith("/data.pkl") or name == "data.pkl"]
        if len(pickles) != 1:
            raise TorchFileError(f"a zip with {len(pickles)} files data.pkl instead of one")
        folder = pickles[0].removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in sizes and archive.read(order) != b"little":
            raise TorchFileError("written on a machine of the other byte order")
        if sizes[pickles[0]] > LARGEST_PICKLE:
            raise TorchFileError(f"data.pkl has {sizes[pickles[0]]} bytes")

        def fetch(storage: _Storage) -> bytes:
            name = f"{folder}data/{storage.key}"
            wanted = storage.count * storage.kind.dtype.itemsize
            if sizes.get(name, 0) < wanted:
                raise TorchFileError(f"{name} has {sizes.get(name, 0)} bytes of {wanted}")
            with archive.open(name) as member:
                return member.read(wanted)

        with archive.open(pickles[0]) as member:
            tree = _Reader(member).load()
        return _values(_flat(tree), fetch)


def _read_old(file: BinaryIO) -> dict[str, np.ndarray]:
    """The layout of torch.save before 1.6: magic number, version, machine, names, keys, storages"""
    if _Reader(file).load() != MAGIC:
        raise TorchFileError("not a PyTorch file")
    _Reader(file).load()  # the version of the layout: there is one only
    if not _Reader(file).load().get("little_endian", True):
        raise TorchFileError("written on a machine of the other byte order")
    reader = _Reader(file)
    found = _flat(reader.load())
    places = {}
    for key in _Reader(file).load():
        (count,) = struct.unpack("<q", file.read(8))
        if key not in reader.kinds or count < 0:
            raise TorchFileError(f"storage {key} belongs to no tensor")
        places[key] = (file.tell(), count)
        file.seek(count * reader.kinds[key].dtype.itemsize, os.SEEK_CUR)

    def fetch(storage: _Storage) -> bytes:
        start, count = places[storage.key]
        if storage.count > count:
            raise TorchFileError(f"storage {storage.key} has {count} numbers of {storage.count}")
        file.seek(start)
        return file.read(storage.count * storage.kind.dtype.itemsize)

    return _values(found, fetch)


# ---- the pickle


class _Reader(pickle.Unpickler):
    """Knows only what stands in `known`, made anew for each pickle, so that none can alter it."""

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="utf-8")
        self.kinds: dict[str, _Kind] = {}
        self.known: dict[tuple[str, str], object] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor"): _Call(_tensor),
            ("torch._utils", "_rebuild_tensor_v2"): _Call(_tensor),
            ("torch._utils", "_rebuild_parameter"): _Call(lambda data, *rest: data),
            ("torch.jit._pickle", "restore_type_tag"): _Call(lambda value, tag: value),
            ("torch", "Size"): _Call(tuple),
        }
        self.known |= {("torch.jit._pickle", name): _Call(list) for name in LISTS}
        self.known |= {("torch", name): _Kind(name) for name in STORAGES}

    def find_class(self, module: str, name: str):
        if (module, name) in self.known:
            return self.known[module, name]
        if module.startswith("__torch__"):  # the class of a module in the third layout
            return type("Module", (_Module,), {})
        raise TorchFileError(f"asks for {module}.{name}; only tensors are read")

    def persistent_load(self, pid) -> _Storage:
        """('storage', class, key, device, count) and, in the old layout, a view: always None"""
        word, kind, key, _, count, *view = pid
        if word != "storage" or not isinstance(kind, _Kind) or (view and view != [None]):
            raise TorchFileError(f"asks for a stored {word!r}; only tensors are read")
        if self.kinds.setdefault(str(key), kind) != kind:
            raise TorchFileError(f"storage {key} has two number types")
        return _Storage(kind, str(key), int(count))


class _Call:
    """A function that a pickle can call and nothing else: it has no attributes to be set."""

    __slots__ = ("_run",)

    def __init__(self, run: Callable):
        object.__setattr__(self, "_run", run)

    def __call__(self, *arguments):
        return self._run(*arguments)

    def __setattr__(self, name, value):
        raise TorchFileError(f"asks to set {name}; only tensors are read")


def _tensor(storage, offset, shape, strides, *rest) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise TorchFileError("a tensor without a storage")
    tensor = _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))
    if len(tensor.shape) != len(tensor.strides) or min((0, offset, *shape, *strides)) < 0:
        raise TorchFileError(f"a tensor of shape {list(shape)} with strides {list(strides)}")
    reach = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
    if math.prod(tensor.shape) and tensor.offset + reach >= storage.count:
        raise TorchFileError(f"a tensor of shape {list(shape)} reaches past its storage")
    if math.prod(tensor.shape) > storage.count:
        raise TorchFileError(f"a tensor of shape {list(shape)} has more values than its storage")
    return tensor


# ---- tensors


def _flat(tree, prefix: str = "") -> dict[str, _Tensor]:
    """Nested dictionaries -> {"a.b.c": tensor}; values of other types are left out."""
    if not isinstance(tree, Mapping):
        raise TorchFileError(f"holds {type(tree).__name__}, not a dictionary of tensors")
    found: dict[str, _Tensor] = {}
    for name, value in tree.items():
        if isinstance(value, _Tensor):
            found[f"{prefix}{name}"] = value
        elif isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
    return found


def _values(found: dict[str, _Tensor], fetch: Callable) -> dict[str, np.ndarray]:
    """Read each storage once, all its tensors after it."""
    by_key: dict[str, list[str]] = {}
    for name, tensor in found.items():
        by_key.setdefault(tensor.storage.key, []).append(name)
    values = {}
    for names in by_key.values():
        largest = max((found[name].storage for name in names), key=lambda s: s.count)
        data = fetch(largest)
        if len(data) != largest.count * largest.kind.dtype.itemsize:
            raise TorchFileError(f"cut short in storage {largest.key}")
        flat = np.frombuffer(data or bytearray(), largest.kind.dtype)
        if largest.kind.name == "BFloat16Storage":
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        for name in names:
            values[name] = _view(flat, found[name])
    return {name: values[name] for name in found}


def _view(flat: np.ndarray, tensor: _Tensor) -> np.ndarray:
    """A read-only view where the tensor lies in one piece, a copy otherwise."""
    if not math.prod(tensor.shape):
        return np.zeros(tensor.shape, flat.dtype)
    steps = [step * flat.itemsize for step in tensor.strides]
    part = np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, steps)
    return np.ascontiguousarray(part).reshape(tensor.shape)
