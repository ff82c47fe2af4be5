"""Reading, renaming, strict loading and saving of safetensors files."""

from __future__ import annotations

import json
import os
import re
import struct
import time

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jstyle.sd import kernels, weights
from jstyle.sd.startup import jt
from jstyle.sd.weights import WeightsError, load_strict, read_safetensors, read_weights, rename

nn = jt.nn


class Part(nn.Module):
    def __init__(self):
        self.a = nn.Linear(3, 5)
        self.b = nn.LayerNorm(7)


def make_values(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"a.weight": (5, 3), "a.bias": (5,), "b.weight": (7,), "b.bias": (7,)}
    return {n: rng.standard_normal(s, dtype=np.float32) for n, s in shapes.items()}


def values_of(module):
    return {name: var.numpy() for name, var in module.state_dict().items()}


def write_raw(path, header, data):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_file_of_the_safetensors_library_fills_every_parameter(tmp_path, dtype):
    values = {n: v.astype(dtype) for n, v in make_values().items()}
    save_file(values, tmp_path / "w.safetensors", {"note": "x"})
    part = Part()
    report = load_strict(part, read_weights(tmp_path / "w.safetensors"))
    assert report == (4, 34 * np.dtype(dtype).itemsize, dtype, ())
    for name, value in values_of(part).items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, values[name].astype(np.float32))


def test_bfloat16_is_widened_bit_for_bit(tmp_path):
    bits = np.array([0x3F80, 0xC049, 0x0080, 0x7F7F, 0x8000, 0x4EAB], np.uint16)
    header = {"x": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}}
    path = write_raw(tmp_path / "w.safetensors", header, bits.tobytes())
    array = read_safetensors(path)["x"].array()
    assert array.dtype == np.float32 and array.shape == (2, 3)
    np.testing.assert_array_equal(array.view(np.uint32).ravel(), bits.astype(np.uint32) << 16)


def test_every_float16_value_survives_the_way_into_a_var():
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    bits = halves.astype(np.float32).view(np.uint32)  # so that -0 is not 0
    np.testing.assert_array_equal(weights.to_var(halves)[0].numpy().view(np.uint32), bits)
    with kernels.plain():
        np.testing.assert_array_equal(weights.to_var(halves)[0].numpy().view(np.uint32), bits)
    backwards = weights.to_var(halves[::-1])[0].numpy()  # not contiguous
    np.testing.assert_array_equal(backwards.view(np.uint32), bits[::-1])


def test_missing_unexpected_and_misshapen_names_come_in_one_error():
    part, values = Part(), make_values()
    values["a.wheight"] = values.pop("a.weight")
    values["b.bias"] = values["b.bias"][:6]
    before = values_of(part)
    with pytest.raises(WeightsError) as error:
        load_strict(part, values, where="some.safetensors")
    assert str(error.value) == (
        "some.safetensors does not fit the model; 1 missing: a.weight; 1 unexpected: a.wheight; "
        "1 wrong shape: b.bias [6] instead of [7]"
    )
    for name, value in values_of(part).items():
        np.testing.assert_array_equal(value, before[name])


def test_an_error_names_at_most_twenty_tensors():
    extra = {f"x{i}": np.zeros(1, np.float32) for i in range(23)}
    with pytest.raises(WeightsError, match=r"23 unexpected: x0, .*x19 and 3 more$"):
        load_strict(Part(), {**make_values(), **extra})


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named(bad, dtype):
    values = {name: value.astype(dtype) for name, value in make_values().items()}
    values["b.weight"][3] = bad
    with pytest.raises(WeightsError, match="w: b.weight holds values that are not finite"):
        load_strict(Part(), values, where="w")


def test_loading_leaves_frozen_parameters_frozen_and_others_trainable():
    part = Part()
    part.a.weight.stop_grad()
    load_strict(part, make_values())
    assert not part.a.weight.requires_grad
    assert part.a.bias.requires_grad


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("text_model.embeddings.position_ids", None),
        ("embeddings.position_ids", None),
        ("decoder.mid_block.attentions.0.query.bias", "decoder.mid_block.attentions.0.to_q.bias"),
        ("encoder.mid_block.attentions.0.proj_attn.x", "encoder.mid_block.attentions.0.to_out.0.x"),
        ("encoder.layers.0.mlp.fc1.bias", "text_model.encoder.layers.0.mlp.fc1.bias"),
        ("text_model.encoder.layers.0.mlp.fc1.bias",) * 2,
        ("final_layer_norm.weight", "text_model.final_layer_norm.weight"),
        ("encoder.conv_in.weight",) * 2,
    ],
)
def test_known_old_names_are_renamed_and_others_kept(old, new):
    assert rename(old) == new


def test_one_tensor_under_two_names_is_refused():
    twice = {"final_layer_norm.bias": np.zeros(2), "text_model.final_layer_norm.bias": np.zeros(2)}
    with pytest.raises(WeightsError, match="are the same tensor"):
        load_strict(Part(), twice)


BAD_HEADERS = {
    "an empty file": b"",
    "four bytes": b"abcd",
    "a web page": b"<!DOCTYPE html><html><body>not found</body></html>",
    "a header that ends early": struct.pack("<Q", 500) + b"{",
    "a header that is not JSON": struct.pack("<Q", 4) + b"{,,}",
    "a header that is a list": struct.pack("<Q", 2) + b"[]",
    "a header that is not text": struct.pack("<Q", 2) + b"\xff\xfe",
}


@pytest.mark.parametrize("content", BAD_HEADERS.values(), ids=BAD_HEADERS.keys())
def test_what_is_not_safetensors_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"w\.safetensors: ") as error:
        read_safetensors(path)
    assert "\n" not in str(error.value)


def test_a_file_cut_short_says_how_much_is_there(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(make_values(), path)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(
        WeightsError, match=f"cut short, {len(content) - 1} bytes of {len(content)}"
    ):
        read_safetensors(path)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]},
        {"dtype": "F32", "shape": [1]},
        {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": 1, "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]},
        {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1 << 62, 0], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1 << 70], "data_offsets": [0, 1 << 72]},
        {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]},
        [],
        "F32",
        None,
    ],
)
def test_an_entry_that_contradicts_itself_is_refused(tmp_path, entry):
    path = write_raw(tmp_path / "w.safetensors", {"x": entry}, b"0000")
    with pytest.raises(WeightsError, match="damaged safetensors header"):
        read_safetensors(path)


def test_tensors_that_share_bytes_are_refused(tmp_path):
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = {"x": entry, "y": {**entry, "data_offsets": [4, 8]}, "z": entry}
    with pytest.raises(WeightsError, match="x and z share bytes"):
        read_safetensors(write_raw(tmp_path / "w.safetensors", header, b"00001111"))


def test_a_header_is_bounded_before_it_is_taken_apart(tmp_path, monkeypatch):
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = {f"x{i}": {**entry, "data_offsets": [4 * i, 4 * i + 4]} for i in range(3)}
    path = write_raw(tmp_path / "w.safetensors", header, b"0" * 12)
    monkeypatch.setenv("JSTYLE_MOST_TENSORS", "2")
    with pytest.raises(WeightsError, match="3 tensors; at most 2 .*JSTYLE_MOST_TENSORS"):
        read_safetensors(path)
    monkeypatch.setenv("JSTYLE_MOST_TENSORS", "3")
    assert len(read_safetensors(path)) == 3
    monkeypatch.setenv("JSTYLE_MOST_TENSORS", "many")
    with pytest.raises(ValueError, match="JSTYLE_MOST_TENSORS must be a whole number, got 'many'"):
        read_safetensors(path)
    monkeypatch.delenv("JSTYLE_MOST_TENSORS")
    monkeypatch.setattr(weights, "LONGEST_HEADER", 50)
    with pytest.raises(WeightsError, match="a header of .* bytes; at most 50"):
        read_safetensors(path)


def test_many_tensors_are_refused_quickly(tmp_path):
    entry = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    text = ("{" + ",".join(f'"{i}":{entry}' for i in range(300_000)) + "}").encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    begun = time.monotonic()
    with pytest.raises(WeightsError, match="300000 tensors; at most 20000"):
        read_safetensors(path)
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize("inner", ["[" * 5000 + "]" * 5000, "1e400", "NaN", r'"\ud800"'])
def test_a_header_with_odd_json_is_refused_in_one_line(tmp_path, inner):
    text = b'{"__metadata__": {"a": %s}}' % inner.encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(WeightsError, match=r"w\.safetensors: damaged safetensors header"):
        read_safetensors(path)


@pytest.mark.parametrize("metadata", [{"a": 3}, [], "text", {"a": {}}])
def test_metadata_holds_texts(tmp_path, metadata):
    path = write_raw(tmp_path / "w.safetensors", {"__metadata__": metadata}, b"")
    with pytest.raises(WeightsError, match="__metadata__ must hold texts"):
        weights.read_metadata(path)


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="a pipe, not a file"):
        read_safetensors(tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="a device, not a file"):
        read_safetensors("/dev/zero")
    with pytest.raises(WeightsError, match="a folder, not a file"):
        read_safetensors(tmp_path)


@pytest.mark.parametrize(
    ("places", "told"),
    [
        (["w.safetensors"], "weight_map must be an object"),
        ({"a": 3}, "weight_map must be an object"),
        (None, "weight_map must be an object"),
        ({"a": "../w.safetensors"}, "'../w.safetensors' does not lie beside its index"),
        ({"a": "/w.safetensors"}, "'/w.safetensors' does not lie beside"),
        ({"a": ""}, "'' does not lie beside"),
        ({"a": ".."}, "'..' does not lie beside"),
        ({"a": "a\0b"}, "NUL"),
    ],
)
def test_an_index_names_files_beside_it(tmp_path, places, told):
    save_file(make_values(), tmp_path / "w.safetensors")
    (tmp_path / "folder").mkdir()
    index = tmp_path / "folder" / "w.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    with pytest.raises(WeightsError, match=r"index\.json.*" + re.escape(told)):
        read_weights(index)


def make_shards(folder):
    values = make_values()
    places = {n: f"w-0000{1 + i % 2}-of-00002.safetensors" for i, n in enumerate(values)}
    for shard in set(places.values()):
        save_file({n: v for n, v in values.items() if places[n] == shard}, folder / shard)
    index = folder / "w.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index, values


def test_shards_are_read_through_their_index(tmp_path):
    index, values = make_shards(tmp_path)
    part = Part()
    assert load_strict(part, read_weights(index)).count == 4
    np.testing.assert_array_equal(part.a.weight.numpy(), values["a.weight"])


def test_a_lost_shard_and_a_wrong_index_are_named(tmp_path):
    index, values = make_shards(tmp_path)
    places = json.loads(index.read_text())["weight_map"]
    places["c.bias"] = "w-00001-of-00002.safetensors"
    index.write_text(json.dumps({"weight_map": places}))
    with pytest.raises(WeightsError, match=r"c\.bias \(in w-00001"):
        read_weights(index)
    (tmp_path / "w-00002-of-00002.safetensors").unlink()
    with pytest.raises(WeightsError, match="w-00002-of-00002.safetensors: no such file"):
        read_weights(index)
    index.write_text("{}")
    with pytest.raises(WeightsError, match="not an index of shards"):
        read_weights(index)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_saved_weights_are_read_by_the_safetensors_library_and_by_us(tmp_path, dtype):
    part, path = Part(), tmp_path / "w.safetensors"
    load_strict(part, make_values())
    weights.save(part, path, dtype, {"made_by": "a test"})
    theirs, ours = load_file(path), read_safetensors(path)
    assert set(theirs) == set(ours) == set(values_of(part))
    for name, value in values_of(part).items():
        np.testing.assert_array_equal(theirs[name], value.astype(dtype))
        np.testing.assert_array_equal(ours[name].array(), theirs[name])
    assert weights.read_metadata(path) == {"format": "pt", "made_by": "a test"}


def test_a_value_beyond_float16_is_refused_and_nothing_is_left_behind(tmp_path):
    part = Part()
    part.b.bias.assign(jt.array(np.full(7, 1e6, np.float32)))
    with pytest.raises(WeightsError, match="b.bias is not finite as float16"):
        weights.save(part, tmp_path / "w.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_number_type_for_saving_is_refused(tmp_path):
    with pytest.raises(ValueError, match="dtype must be float16 or float32, got 'bfloat16'"):
        weights.save(Part(), tmp_path / "w.safetensors", "bfloat16")


def test_large_tensors_are_filled_in_parts_by_several_threads(monkeypatch):
    monkeypatch.setattr(weights, "COPIED_AT_ONCE", 7)
    values = np.random.default_rng(0).standard_normal((5, 9))
    assert np.array_equal(weights.to_var(values)[0].numpy(), values.astype(np.float32))
