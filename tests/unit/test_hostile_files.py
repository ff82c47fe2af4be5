"""Files that were made to harm the one who reads them: nothing runs, nothing grows, one line."""

from __future__ import annotations

import os
import pickle
import struct
import time
import tracemalloc
import zipfile

import numpy as np
import pytest

from jstyle.sd import pickles
from jstyle.sd.lora_files import read_lora
from jstyle.sd.torch_zip import TorchFileError, read_tensors
from jstyle.sd.weights import WeightsError

from .test_torch_zip import STORAGE, TENSOR, dictionary, tensor, write

SECONDS, BYTES = 5, 100 << 20


def refusal(path, traced=True) -> str:
    """What both readers say, in the time and memory that a small file may take."""
    start = time.monotonic()
    if traced:  # which takes its time
        tracemalloc.start()
    try:
        with pytest.raises(TorchFileError) as caught:
            read_tensors(path)
        with pytest.raises(WeightsError) as again:
            read_lora(path)
        assert not traced or tracemalloc.get_traced_memory()[1] < BYTES
    finally:
        tracemalloc.stop()
    assert time.monotonic() - start < SECONDS
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and text.isprintable() and len(text) < 600
    assert str(again.value) == text
    return text


class Runs:
    def __init__(self, call, *arguments):
        self.made = call, arguments

    def __reduce__(self):
        return self.made


@pytest.mark.parametrize("protocol", range(6))
def test_a_command_in_a_pickle_leaves_no_trace(tmp_path, protocol):
    mark = tmp_path / "ran"
    for call in (Runs(os.system, f"touch {mark}"), Runs(exec, f"open({str(mark)!r}, 'w')")):
        inner = pickle.dumps(call, protocol)
        for value in ({"x": call}, {"x": Runs(pickle.loads, inner)}, call):
            data = pickle.dumps(value, protocol)
            (tmp_path / "bare.bin").write_bytes(data)
            assert "asks for " in refusal(write(tmp_path, data))
            with pytest.raises(ValueError, match="bare.bin"):  # protocol 0 looks like nothing
                read_lora(tmp_path / "bare.bin")
    assert not mark.exists()


MEMO_OF_DICTS = b"}q\0" + b"".join(
    b"}(Va\nh%cVb\nh%cuq%c" % (i, i, i + 1) for i in range(60)
)  # each holds the one before it twice
TUPLES = b"(tq\0" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60))
HUGE = struct.pack("<Q", 1 << 60)


@pytest.mark.parametrize(
    ("pickled", "words"),
    [
        (b"\x80\4\x8d" + HUGE + b"a.", ""),
        (b"\x80\4\x8e" + HUGE + b"a.", ""),
        (b"\x80\4\x95" + HUGE + b"N.", "holds NoneType"),
        (b"\x80\5\x96" + HUGE + b"a.", "damaged"),
        (b"\x80\2\x8b" + struct.pack("<i", (1 << 31) - 1) + b"a.", ""),
        (b"\x80\2I" + b"9" * 100_000 + b"\n.", "damaged"),
        (b"\x80\2}r\xff\xff\xff\xffN.", "holds NoneType"),
        (b"\x80\2" + b"]" * 20_000 + b"a" * 19_999 + b".", "holds list"),
        (b"\x80\2" + b"(" * 20_000 + b"t" * 20_000 + b".", "holds tuple"),
        (b"\x80\2" + b"}Va\n" * 5000 + b"}" + b"s" * 5000 + b".", "names, or 64 within another"),
        (b"\x80\2" + TUPLES + b"}q\xffh\x3cNs.", "a key of type tuple"),
        (b"\x80\2" + TUPLES + dictionary(tensor().replace(b"V0\n", b"h\x3c")), "a name or"),
        (b"\x80\2" + TUPLES + b"(h\x3cNNNNtQ.", "asks for a stored 'tuple'"),
        (b"\x80\2cbuiltins\nlist\n.", "asks for builtins.list"),
        (b"\x80\2(ibuiltins\nlist\n.", "the operation INST"),
        (b"\x80\2\x82\1.", "the operation EXT1"),
        (b"\x80\2Pabc\n.", "the operation PERSID"),
        (b"\x80\2}(Va\nNu(Va\x1b[2J\nNub.", ""),
        (b"\x80\4\x8c\4os\n\x1b\x8c\3a\nb\x93.", "asks for os .a b"),
        (b"\x80\2cjittor\njittor_core.Var\n.", "holds Known"),
        (b"\x80\2}}bN.", "asks to set attributes of a dict"),
        (b"\x80\2N)R.", "calls a NoneType"),
        (b"\x80\2R.", "values are missing"),
        (b"\x80\2u.", ""),
        (b"\x80\2N", ""),
        (b"\x80\2" + dictionary(TENSOR % (STORAGE % 6, 0, b"I1\n" * 17, b"I1\n" * 17)), "shape"),
        (b"\x80\2" + dictionary(tensor(shape=(1 << 40,), strides=(0,))), "more values"),
        (b"\x80\2" + dictionary(tensor(count=1 << 60)), "bytes of"),
    ],
)
def test_pickles_that_would_grow_or_hang_are_one_line(tmp_path, pickled, words):
    assert words in refusal(write(tmp_path, pickled))
    bare = tmp_path / "bare.bin"
    bare.write_bytes(pickled)
    refusal(bare)


def test_dictionaries_that_hold_each_other_twice_are_not_counted_out(tmp_path):
    path = write(tmp_path, b"\x80\2" + MEMO_OF_DICTS + b".")
    assert "more than 131072 names" in refusal(path, traced=False)


def test_lists_that_are_asked_for_again_and_again_are_not_copied(tmp_path):
    numbers = b"](" + b"K\1" * 20_000 + b"e" + b"q\1"
    copies = b"ctorch.jit._pickle\nbuild_intlist\nq\0" + b"h\0h\1\x85R" * 5_000
    assert "holds list" in refusal(write(tmp_path, b"\x80\2" + numbers + copies + b"."))


def test_more_operations_than_any_model_takes(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "MOST_OPCODES", 1000)
    assert "more than 1000 operations" in refusal(write(tmp_path, b"\x80\2" + b"N0" * 500 + b"."))


def test_tensors_that_add_up_to_more_than_the_file_can_hold(tmp_path):
    names = b"".join(b"Vx%d\n" % i + tensor() for i in range(500))
    shared = names.replace(tensor(count=6), b"h\0")
    pickled = b"\x80\2" + tensor(60_000, shape=(60_000,), strides=(1,)) + b"q\0}(" + shared + b"u."
    assert "tensors of 120000000 bytes in a file of" in refusal(write(tmp_path, pickled, 60_000))
    array = pickle.dumps(np.zeros(60_000, np.float32), 4)[:-1]
    (tmp_path / "a.bin").write_bytes(array + b"q\0}(" + shared + b"u.")
    assert "tensors of 120000000 bytes in a file of" in refusal(tmp_path / "a.bin")


def test_an_array_with_a_state_of_another_layout(tmp_path):
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR"
    (tmp_path / "a.bin").write_bytes(b"\x80\3}Vx\n" + made + b"K\1bs.")
    assert "a state of another layout" in refusal(tmp_path / "a.bin")


def test_two_tensors_of_one_name(tmp_path):
    pickled = b"\x80\2}Va.b\n" + tensor() + b"sVa\n}Vb\n" + tensor() + b"ss."
    assert "two tensors of the name a.b" in refusal(write(tmp_path, pickled))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (((2, 2), "f4", False, b"1234"), "an array of shape [2, 2] with 4 bytes"),
        (((1,), "O8", False, b"12345678"), "other things than numbers"),
        (((1,), "f4", False, [1]), "other things than numbers"),
        (((-4,), "f4", False, b"1234"), "a tensor of shape"),
        (((1 << 40, 1 << 40), "f4", False, b""), "an array of shape"),
    ],
)
def test_arrays_that_are_not_what_they_say(tmp_path, state, words):
    """numpy's own pickle of an array, with another state."""
    shape, code, _, data = state
    dtype = b"cnumpy\ndtype\n(V%s\nI00\nI01\ntR" % code.encode()
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR"
    shape, raw = (pickle.dumps(value, 3)[2:-1] for value in (shape, data))
    path = tmp_path / "a.bin"
    path.write_bytes(b"\x80\3}Vx\n" + made + b"(K\1" + shape + dtype + b"I00\n" + raw + b"tbs.")
    assert words in refusal(path)


# ---- zips


def patched(path, change):
    """The file after change(bytes) -> bytes."""
    path.write_bytes(change(bytearray(path.read_bytes())))
    return path


def directory_entry(data: bytes, name: bytes) -> int:
    return data.rindex(name, 0, len(data)) - 46


def test_members_that_share_bytes_or_names(tmp_path):
    def onto_the_first(data):
        at = directory_entry(data, b"t/data/0")
        data[at + 42 : at + 46] = struct.pack("<I", 0)
        return data

    pickled = dictionary(tensor())
    assert "members overlap" in refusal(patched(write(tmp_path, pickled), onto_the_first))
    path = write(tmp_path, pickled)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("t/data/0", bytes(24))
    assert "members overlap (t/data/0)" in refusal(path)


@pytest.mark.parametrize("declared", [0, 23, 25, 1 << 31, 0xFFFFFFFE])
def test_members_that_lie_about_their_length(tmp_path, declared):
    def lie(data):
        at = directory_entry(data, b"t/data/0")
        data[at + 20 : at + 28] = struct.pack("<II", declared, declared)
        return data

    path = patched(write(tmp_path, dictionary(tensor())), lie)
    words = f"t/data/0 has {declared} bytes"
    assert words in refusal(path)


def test_a_bomb_of_zeros_is_not_unpacked(tmp_path):
    path = tmp_path / "t.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t/data.pkl", dictionary(tensor(1 << 26, shape=(1 << 26,), strides=(1,))))
        archive.writestr("t/data/0", bytes(1 << 28))
    assert "0 files data.pkl" in refusal(path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr("u/data.pkl", dictionary(tensor(1 << 26, shape=(1 << 26,), strides=(1,))))
        archive.writestr("u/data/1", b"")
    assert "tensors of 268435456 bytes in a file of" in refusal(path)


def test_checksums_are_checked_where_there_is_one(tmp_path):
    path = write(tmp_path, dictionary(tensor()))
    assert read_tensors(path)["x"].shape == (2, 3)

    def other(data):
        at = directory_entry(data, b"t/data/0")
        data[at + 16 : at + 20] = struct.pack("<I", 77)
        return data

    def none(data):
        at = directory_entry(data, b"t/data/0")
        data[at + 16 : at + 20] = bytes(4)
        return data

    assert "Bad CRC-32" in refusal(patched(path, other))
    assert read_tensors(patched(path, none))["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
