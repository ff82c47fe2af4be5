"""PyTorch's files, written by PyTorch, read without it."""

from __future__ import annotations

import numpy as np
import pytest

from jstyle.sd.torch_zip import TorchFileError, read_tensors


def tensors():
    """Every number type, and every way in which a tensor can lie in its storage."""
    import torch

    torch.manual_seed(0)
    plain = torch.randn(4, 6)
    found = {
        "plain": plain,
        "turned": plain.t(),
        "part": plain[1:3, ::2],
        "same": plain,
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "scalar": torch.tensor(7.5),
        "nothing": torch.zeros(0, 3),
        "nested": {"deep": {"er": torch.arange(5)}},
    }
    for dtype in ("float64", "float16", "bfloat16", "int32", "int16", "int8", "uint8", "bool"):
        found[dtype] = (torch.randn(5) * 9).to(getattr(torch, dtype))
    return found


def flat(values, prefix=""):
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def same(ours, theirs):
    import torch

    wanted = theirs.detach().float() if theirs.dtype == torch.bfloat16 else theirs.detach()
    assert ours.shape == tuple(wanted.shape) and ours.dtype == wanted.numpy().dtype
    np.testing.assert_array_equal(ours, wanted.numpy())


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_a_saved_dictionary_has_all_its_tensors(tmp_path, zipped):
    import torch

    saved = {**tensors(), "epoch": 3, "name": "x", "list": [1, 2.5, None]}
    torch.save(saved, tmp_path / "t.pth", _use_new_zipfile_serialization=zipped)
    found = read_tensors(tmp_path / "t.pth")
    wanted = dict(flat(tensors()))
    assert list(found) == list(wanted)
    for name, values in found.items():
        same(values, wanted[name])


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")
@pytest.mark.parametrize("kind", ["state", "script"])
def test_a_module_gives_the_names_of_its_state_dict(tmp_path, kind):
    import torch

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
            self.sizes = [3, 4]
            self.register_buffer("mean", torch.randn(2))

        def forward(self, x):
            return self.layers(x) * float(self.sizes[0]) + self.mean.sum()

    block = Block().eval().half()
    if kind == "state":
        torch.save(block.state_dict(), tmp_path / "t.pt")
    else:
        torch.jit.script(block).save(str(tmp_path / "t.pt"))
    found, wanted = read_tensors(tmp_path / "t.pt"), block.state_dict()
    assert set(found) == set(wanted)
    for name, values in found.items():
        same(values, wanted[name])


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_a_whole_saved_module_is_refused_by_name(tmp_path, zipped):
    import torch

    path = tmp_path / "t.pth"
    torch.save(torch.nn.Linear(2, 2), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        TorchFileError, match=r"t\.pth: asks for torch\.nn\.modules\.linear\.Linear"
    ):
        read_tensors(path)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_a_file_cut_short_is_refused(tmp_path, zipped):
    import torch

    path = tmp_path / "t.pth"
    torch.save({"a": torch.randn(1000)}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(TorchFileError, match=r"t\.pth: "):
        read_tensors(path)
