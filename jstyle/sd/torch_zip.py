"""Tensors out of PyTorch's files, without PyTorch, and without running what a pickle asks for.

Four layouts, all of which hold a pickle of names, with raw numbers beside or inside it:

    torch.save since 1.6    a zip: NAME/data.pkl, NAME/data/0, NAME/data/1, ...
    torch.save before       pickles one after the other, then length and bytes of each storage
    torch.jit.save          a zip as the first, whose pickle holds modules with attributes
    jittor.save             a zip as the first, or one pickle with NumPy arrays inside

A pickle is a program; pickles.py runs the harmless part of it. Known here are tensors, storages,
arrays, dictionaries, plain values, and the modules of the third layout, which become dictionaries;
whatever else is asked for is refused by name before anything is done. Names of nested dictionaries
and modules are joined with dots.
"""

from __future__ import annotations

import hashlib
import io
import math
import mmap
import os
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .files import InputError, require_file
from .pickles import PickleError
from .torch_objects import Array, Module, Reader, Storage, Tensor, TorchFileError, Unread, name_of

__all__ = ["TorchFileError", "read_tensors"]

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the old layout
JITTOR_END = b"HCAJSLHD"  # after the pickle of jittor.save and the SHA-1 of that
LARGEST_PICKLE = 1 << 26  # bytes; of names and shapes, a real one has far less
MOST_TENSORS, DEEPEST = 1 << 17, 64
OVERLAP = 8  # times the file's size that its tensors may take: some stand there under two names


def read_tensors(path: str | os.PathLike, mapped: bool = False) -> dict[str, np.ndarray]:
    """Name -> values of every tensor in the file; half and bfloat16 come as float16 and float32.

    mapped: leave the numbers of a zip in the file until they are looked at, without its checksums;
    for models, which are large.
    Raises TorchFileError naming the file and what is wrong or refused.
    """
    path = Path(path)
    try:
        with open(require_file(path), "rb") as file:
            if zipfile.is_zipfile(file):
                return _read_zip(file, mapped)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
                return _read_old(whole)
    except InputError as error:
        raise TorchFileError(str(error)) from None
    except (TorchFileError, PickleError) as error:
        raise TorchFileError(f"{path}: {_plain(str(error))}") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise TorchFileError(f"{path}: cannot be read ({reason})") from None
    except Exception as error:  # what damaged zips and pickles raise has no common type
        reason = _plain(str(error)) or type(error).__name__
        raise TorchFileError(f"{path}: not a PyTorch file, or damaged ({reason})") from None


def _plain(text: str) -> str:
    """One short line: names in a file may hold anything."""
    text = "".join(c if c.isprintable() else " " for c in text[:400])
    return " ".join(text.split())


# ---- the containers


def _read_zip(file: BinaryIO, mapped: bool) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        members = _members(archive, os.fstat(file.fileno()).st_size)
        pickles = [name for name in members if name.endswith("/data.pkl") or name == "data.pkl"]
        if len(pickles) != 1:
            raise TorchFileError(f"a zip with {len(pickles)} files data.pkl instead of one")
        folder = pickles[0].removesuffix("data.pkl")

        def content(name: str) -> bytes:
            with archive.open(members[name]) as member:
                return member.read()

        order = f"{folder}byteorder"
        if order in members and content(order) != b"little":
            raise TorchFileError("written on a machine of the other byte order")
        if members[pickles[0]].file_size > LARGEST_PICKLE:
            raise TorchFileError(f"data.pkl has {members[pickles[0]].file_size} bytes")

        place = _placed(file) if mapped else None

        def fetch(storage: Storage) -> bytes | memoryview:
            name = f"{folder}data/{storage.key}"
            wanted = storage.count * storage.kind.dtype.itemsize
            found = members[name].file_size if name in members else 0
            if found != wanted:
                raise TorchFileError(f"{name} has {found} bytes of {wanted}")
            return content(name) if place is None else place(members[name])

        tree = Reader().load(io.BytesIO(content(pickles[0])))
        return _values(_flat(tree), fetch, os.fstat(file.fileno()).st_size)


def _placed(file: BinaryIO) -> Callable[[zipfile.ZipInfo], memoryview]:
    """The bytes of a stored member, in the mapped file. Raises TorchFileError."""
    whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def place(info: zipfile.ZipInfo) -> memoryview:
        head = whole[info.header_offset : info.header_offset + 30]
        if len(head) < 30 or head[:4] != b"PK\3\4":
            raise TorchFileError(f"a damaged zip ({info.filename})")
        start = info.header_offset + 30 + sum(struct.unpack("<HH", head[26:30]))
        if start + info.file_size > len(whole):
            raise TorchFileError(f"cut short in {info.filename}")
        return whole[start : start + info.file_size]

    return place


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Name -> place of what is stored as it is, as PyTorch stores all. Jittor's writer leaves
    checksums at 0; any other is checked. Raises TorchFileError for members that share bytes."""
    members: dict[str, zipfile.ZipInfo] = {}
    end = 0
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        if info.header_offset < end or info.filename in members:
            raise TorchFileError(f"a zip whose members overlap ({info.filename})")
        end = info.header_offset + 30 + len(info.filename) + info.compress_size
        if end > size:
            raise TorchFileError(f"{info.filename} has {info.compress_size} bytes, the file {size}")
        if info.compress_type == zipfile.ZIP_STORED and info.file_size == info.compress_size:
            if info.CRC == 0:
                info.CRC = None  # type: ignore[assignment]  # zipfile checks none then
            members[info.filename] = info
    return members


def _read_old(file: mmap.mmap) -> dict[str, np.ndarray]:
    """The layout of torch.save before 1.6: magic number, version, machine, names, keys, storages;
    or a single pickle with arrays."""
    first = Reader().load(file)
    if isinstance(first, Mapping):
        return _read_arrays(first, file)
    if first != MAGIC:
        raise TorchFileError("not a PyTorch file")
    Reader().load(file)  # the version of the layout: there is one only
    if not Reader().load(file).get("little_endian", True):
        raise TorchFileError("written on a machine of the other byte order")
    reader = Reader()
    found = _flat(reader.load(file))
    places = {}
    for key in Reader().load(file):
        (count,) = struct.unpack("<q", file.read(8))
        if key not in reader.kinds or count < 0:
            raise TorchFileError(f"storage {str(key)[:40]} belongs to no tensor")
        places[key] = (file.tell(), count)
        file.seek(count * reader.kinds[key].dtype.itemsize, os.SEEK_CUR)

    def fetch(storage: Storage) -> bytes:
        start, count = places[storage.key]
        if storage.count > count:
            raise TorchFileError(f"storage {storage.key} has {count} numbers of {storage.count}")
        file.seek(start)
        return file.read(storage.count * storage.kind.dtype.itemsize)

    return _values(found, fetch, file.size())


def _read_arrays(tree: Mapping, file: mmap.mmap) -> dict[str, np.ndarray]:
    end = file.tell()
    rest = file[end : end + 28]
    if rest.endswith(JITTOR_END) and hashlib.sha1(file[:end]).digest() != rest[:20]:
        raise TorchFileError("damaged (its checksum is another)")
    found = _flat(tree)
    arrays = {name: value.values for name, value in found.items() if isinstance(value, Array)}
    if len(arrays) < len(found):
        raise TorchFileError("a pickle of tensors without their numbers")
    _require_size(sum(values.nbytes for values in arrays.values()), file.size())
    return arrays


# ---- tensors


def _flat(tree) -> dict[str, Tensor | Array]:
    """Nested dictionaries -> {"a.b.c": tensor}; values of other types are left out."""
    tree = tree.attributes if isinstance(tree, Module) else tree
    if not isinstance(tree, Mapping):
        raise TorchFileError(f"holds {type(tree).__name__}, not a dictionary of tensors")
    found: dict[str, Tensor | Array] = {}
    waiting = [("", iter(tree.items()))]
    seen = 0
    while waiting:
        prefix, items = waiting[-1]
        for name, value in items:
            seen += 1
            if seen > MOST_TENSORS or len(waiting) > DEEPEST:
                raise TorchFileError(f"more than {MOST_TENSORS} names, or {DEEPEST} within another")
            value = value.attributes if isinstance(value, Module) else value
            if isinstance(value, Tensor | Array):
                if found.setdefault(prefix + name_of(name), value) is not value:
                    raise TorchFileError(f"two tensors of the name {prefix}{name}")
            elif isinstance(value, Mapping) and not isinstance(value, Unread):
                waiting.append((f"{prefix}{name_of(name)}.", iter(value.items())))
                break
        else:
            waiting.pop()
    return found


def _require_size(wanted: int, size: int) -> None:
    if wanted > OVERLAP * size:
        raise TorchFileError(f"tensors of {wanted} bytes in a file of {size}")


def _values(found: dict, fetch: Callable, size: int) -> dict[str, np.ndarray]:
    """Read each storage once, all its tensors after it. size: of the file, in bytes."""
    if not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise TorchFileError("arrays among tensors")
    wanted = sum(math.prod(t.shape) * t.storage.kind.dtype.itemsize for t in found.values())
    _require_size(wanted, size)
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


def _view(flat: np.ndarray, tensor: Tensor) -> np.ndarray:
    """A read-only view where the tensor lies in one piece, a copy otherwise."""
    if not math.prod(tensor.shape):
        return np.zeros(tensor.shape, flat.dtype)
    steps = [step * flat.itemsize for step in tensor.strides]
    part = np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, steps)
    return np.ascontiguousarray(part).reshape(tensor.shape)
