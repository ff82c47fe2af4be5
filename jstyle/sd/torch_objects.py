"""What a pickle of PyTorch or Jittor may ask for: tensors, storages, arrays, dictionaries, modules.

Nothing here computes; these are the places, shapes and names that torch_zip.py fills with numbers.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .pickles import Buildable, Known, Label, read_pickle

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
INTEGERS = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")
LONGEST_NAME, MOST_AXES = 1000, 16
# What trainers keep beside the weights. None of it is imported, made or called; it is left out.
BESIDE = ("pytorch_lightning", "lightning", "lightning_fabric", "omegaconf", "torchmetrics")
BESIDE_TOO = {
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("_codecs", "encode"),
    ("collections", "defaultdict"),
    ("collections", "Counter"),
    ("typing", "Any"),
    ("torch", "device"),
    ("builtins", "set"),
    ("__builtin__", "set"),
}


class TorchFileError(ValueError):
    """A file that is damaged, of another kind, or asks for more than tensors; one line."""


class Kind(NamedTuple):
    """A storage's class."""

    name: str

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(STORAGES[self.name])


class Storage(NamedTuple):
    kind: Kind
    key: str
    count: int


class Tensor(NamedTuple):
    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Ordered(dict, Buildable):
    """An OrderedDict; the attributes that it is given are none of its items."""

    @classmethod
    def make(cls, *items: list) -> Ordered:
        made = cls()
        for key, value in items[0] if items else ():
            made[name_of(key)] = value
        if items:
            items[0].clear()  # taken, not copied: it cannot be asked for again
        return made

    def build(self, state: object) -> None:
        pass


class Module(Buildable):
    """A module of the third layout."""

    def __init__(self, *_: object):
        self.attributes: dict = {}

    def build(self, state: object) -> None:
        if not isinstance(state, dict):
            raise TorchFileError(f"a module with a state of type {type(state).__name__}")
        self.attributes = state


class NumberType(Buildable):
    """NumPy's dtype: of plain numbers, little-endian."""

    def __init__(self, code: object, *_: object):
        if not isinstance(code, str) or code not in ("f2", "f4", "f8", "b1", *INTEGERS):
            raise TorchFileError("asks for an array of other things than numbers")
        self.dtype = np.dtype(code).newbyteorder("<")

    def build(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", "|"):
            raise TorchFileError("written on a machine of the other byte order")


class Array(Buildable):
    """A NumPy array inside a pickle."""

    def __init__(self, *_: object):
        self.values = np.zeros(0, np.float32)

    def build(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise TorchFileError("an array with a state of another layout")
        _, shape, kind, by_columns, data = state
        if not isinstance(kind, NumberType) or not isinstance(data, bytes):
            raise TorchFileError("asks for an array of other things than numbers")
        shape = _sizes(shape)
        if math.prod(shape) * kind.dtype.itemsize != len(data):
            raise TorchFileError(f"an array of shape {list(shape)} with {len(data)} bytes")
        self.values = np.frombuffer(data, kind.dtype).reshape(
            shape, order="F" if by_columns else "C"
        )


class Unread(dict, Buildable):
    """Something beside the tensors, such as the options of a training; nothing in it is used."""

    def build(self, state: object) -> None:
        pass


class Inert(Label):
    """A class or function that is known by name alone: whatever it would make is Unread."""

    def __init__(self, name: str):
        super().__init__(lambda *_: Unread(), name)


class Reader:
    """Knows what may be asked for, and which number type each storage has."""

    def __init__(self):
        self.kinds: dict[str, Kind] = {}
        same = Known(lambda value, *_: value)
        self.known: dict[tuple[str, str], object] = {
            ("collections", "OrderedDict"): Known(Ordered.make),
            ("torch._utils", "_rebuild_tensor"): Known(_tensor),
            ("torch._utils", "_rebuild_tensor_v2"): Known(_tensor),
            ("torch._utils", "_rebuild_parameter"): same,
            ("torch.jit._pickle", "restore_type_tag"): same,
            ("torch", "Size"): same,
            ("numpy", "dtype"): Known(NumberType),
            ("numpy", "ndarray"): None,
            ("numpy.core.multiarray", "_reconstruct"): Known(Array),
            ("numpy._core.multiarray", "_reconstruct"): Known(Array),
            ("jittor", "jittor_core.Var"): same,
        }
        self.known |= {("torch.jit._pickle", name): same for name in LISTS}
        self.known |= {("torch", name): Kind(name) for name in STORAGES}

    def load(self, file: Any) -> Any:
        return read_pickle(file, self.find, self.stored)

    def find(self, module: str, name: str) -> object:
        if (module, name) in self.known:
            return self.known[module, name]
        if module.startswith("__torch__"):  # the class of a module in the third layout
            return Known(Module)
        if module.split(".")[0] in BESIDE or (module, name) in BESIDE_TOO:
            return Inert(f"{module}.{name}")
        raise TorchFileError(f"asks for {module}.{name}; only tensors are read")

    def stored(self, pid: Any) -> Storage:
        """('storage', class, key, device, count) and, in the old layout, a view: always None"""
        word, kind, key, _, count, *view = pid
        if word != "storage" or not isinstance(kind, Kind) or (view and view != [None]):
            word = word if isinstance(word, str) else type(word).__name__
            raise TorchFileError(f"asks for a stored {word!r}; only tensors are read")
        if not isinstance(key, str | int) or not isinstance(count, int) or count < 0:
            raise TorchFileError("a storage without a name or a length")
        if self.kinds.setdefault(str(key), kind) != kind:
            raise TorchFileError(f"storage {key} has two number types")
        return Storage(kind, str(key), count)


def _tensor(storage, offset, shape, strides, *_) -> Tensor:
    if not isinstance(storage, Storage):
        raise TorchFileError("a tensor without a storage")
    (offset,) = _sizes((offset,))
    tensor = Tensor(storage, offset, _sizes(shape), _sizes(strides))
    if len(tensor.shape) != len(tensor.strides):
        raise TorchFileError(f"a tensor of shape {list(shape)} with strides {list(strides)}")
    reach = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
    if math.prod(tensor.shape) and tensor.offset + reach >= storage.count:
        raise TorchFileError(f"a tensor of shape {list(shape)} reaches past its storage")
    if math.prod(tensor.shape) > storage.count:
        raise TorchFileError(f"a tensor of shape {list(shape)} has more values than its storage")
    return tensor


def _sizes(values) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or len(values) > MOST_AXES:
        raise TorchFileError(f"a tensor of shape of type {type(values).__name__}")
    if not all(isinstance(n, int) and 0 <= n < 1 << 62 for n in values):
        raise TorchFileError("a tensor of shape, strides or offset that is none")
    return tuple(values)


def name_of(key: object) -> str:
    if not isinstance(key, str | int) or len(str(key)) > LONGEST_NAME:
        raise TorchFileError(f"a name of type {type(key).__name__} or above {LONGEST_NAME} letters")
    return str(key)
