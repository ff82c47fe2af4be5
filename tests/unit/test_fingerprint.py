"""A model is known by its files' bytes, also by those in the middle of a big one."""

from __future__ import annotations

import shutil

import pytest

from jstyle.sd import hub
from jstyle.sd.fingerprint import WHOLE_BYTES, of_folder, of_model


@pytest.fixture
def model(tmp_path):
    """The shipped model with a sparse UNet of many samples."""
    shutil.copytree(hub.TINY, tmp_path / "model")
    with weights(tmp_path / "model").open("r+b") as file:
        file.truncate(3 * WHOLE_BYTES + 12345)
    return tmp_path / "model"


def weights(folder):
    return hub.weight_file(folder, "unet", None)


def test_it_stays_where_the_files_are_copied_and_changes_with_a_tensor_in_the_middle(
    model, tmp_path
):
    shutil.copytree(model, tmp_path / "copy")
    known = of_folder(model)
    assert of_folder(tmp_path / "copy") == known == of_model(hub.Source(str(model)))
    with weights(model).open("r+b") as file:
        file.seek(WHOLE_BYTES + 54321)
        file.write(b"\x01" * (1 << 18))  # a matrix of 256 x 256
    assert of_folder(model) != known


@pytest.mark.parametrize("part", [f"vae/{hub.STEMS['vae']}.safetensors", "tokenizer/merges.txt"])
def test_one_byte_in_the_middle_of_a_small_file_is_seen(model, part):
    known = of_folder(model)
    data = bytearray((model / part).read_bytes())
    data[len(data) // 2] ^= 1
    (model / part).write_bytes(data)
    assert of_folder(model) != known
