"""What the reader of PyTorch's files refuses: everything that is not a tensor."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from jstyle.sd.torch_zip import TorchFileError, read_tensors

# opcodes by hand, https://github.com/python/cpython/blob/3.11/Lib/pickletools.py
STORAGE = b"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI%d\ntQ"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n(%sI%d\n(%st(%stI00\nccollections\nOrderedDict\n)RtR"


def tensor(count=6, offset=0, shape=(2, 3), strides=(3, 1)) -> bytes:
    """The pickled call that makes a tensor of a storage with `count` numbers."""
    shape, strides = (b"".join(b"I%d\n" % n for n in values) for values in (shape, strides))
    return TENSOR % (STORAGE % count, offset, shape, strides)


def dictionary(value: bytes) -> bytes:
    return b"}Vx\n" + value + b"s."


def write(folder, pickled: bytes, numbers: int = 6, compress=zipfile.ZIP_STORED, **more):
    path = folder / "t.pt"
    values = np.arange(numbers, dtype=np.float32)
    with zipfile.ZipFile(path, "w", compress) as archive:
        archive.writestr("t/data.pkl", pickled)
        archive.writestr("t/data/0", values.tobytes())
        for name, text in more.items():
            archive.writestr(f"t/{name}", text)
    return path


def refusal(path) -> str:
    with pytest.raises(TorchFileError) as caught:
        read_tensors(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    return text


def test_a_tensor_made_by_hand_is_read(tmp_path):
    path = write(tmp_path, dictionary(tensor()), byteorder="little")
    assert read_tensors(path)["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    path = write(tmp_path, dictionary(tensor(offset=1, shape=(2,), strides=(2,))))
    assert read_tensors(path)["x"].tolist() == [1, 3]


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_code_is_refused_by_name_and_not_run(tmp_path):
    mark = tmp_path / "ran"
    for pickled in (pickle.dumps({"x": Evil(mark)}), pickle.dumps({"x": Evil(mark)}, 0)):
        assert "asks for posix.mkdir; only tensors are read" in refusal(write(tmp_path, pickled))
        old = tmp_path / "old.pth"
        first = (pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2))
        old.write_bytes(b"".join([*first, pickle.dumps({"little_endian": True}, 2), pickled]))
        assert "asks for posix.mkdir" in refusal(old)
    assert not mark.exists()


@pytest.mark.parametrize(
    "name",
    ["builtins\neval", "builtins\ngetattr", "torch\nload", "collections\nOrderedDict.fromkeys"],
)
def test_nothing_outside_the_list_is_known(tmp_path, name):
    asked = name.replace("\n", ".")
    assert f"asks for {asked}" in refusal(write(tmp_path, b"c%s\n." % name.encode()))


def test_a_pickle_cannot_change_the_functions_it_may_call(tmp_path):
    # BUILD with a state of (None, {name: value}) sets attributes
    for target in (b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n"):
        refusal(write(tmp_path, target + b"(N}V_run\nVx\nstb."))
    assert read_tensors(write(tmp_path, dictionary(tensor())))["x"].shape == (2, 3)
    assert OrderedDict().__class__.__name__ == "OrderedDict"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (tensor(offset=1), "reaches past its storage"),
        (tensor(offset=-1), "a tensor of shape"),
        (tensor(strides=(-3, 1)), "a tensor of shape"),
        (tensor(shape=(9, 9), strides=(0, 0)), "has more values than its storage"),
        (tensor(shape=(2,)), "a tensor of shape"),
        (tensor(count=9), "t/data/0 has 24 bytes of 36"),
        (tensor().replace(b"FloatStorage", b"QuantStorage"), "asks for torch.QuantStorage"),
        (tensor().replace(b"Vstorage", b"Vmodule"), "asks for a stored 'module'"),
        (tensor().replace(b"V0\n", b"V../../x\n"), "t/data/../../x has 0 bytes"),
    ],
)
def test_tensors_that_do_not_fit_their_storage(tmp_path, value, words):
    assert words in refusal(write(tmp_path, dictionary(value)))


def test_files_of_other_kinds(tmp_path):
    for name, data in (("empty", b""), ("text", b"hello"), ("zip", None), ("number", b"I7\n.")):
        path = tmp_path / name
        if data is None:
            zipfile.ZipFile(path, "w").close()
        else:
            path.write_bytes(data)
        refusal(path)
    assert "holds list" in refusal(write(tmp_path, b"(l."))
    assert "no such file" in refusal(tmp_path / "nowhere")
    assert "other byte order" in refusal(write(tmp_path, b"}.", byteorder="big"))
    assert "0 files data.pkl" in refusal(write(tmp_path, b"}.", compress=zipfile.ZIP_DEFLATED))
