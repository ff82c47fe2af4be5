"""DINOv2 and DINO's ViT against transformers: same weights, read from the folder it saved."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from jstyle.score.metrics.cosine import mean_pairwise
from jstyle.score.metrics.dino import Dino
from jstyle.score.metrics.dreambooth import DinoSubject
from jstyle.score.networks.vit import bicubic_matrix, load_vit
from jstyle.sd.config_json import ConfigError
from jstyle.sd.startup import jt
from jstyle.sd.weights import WeightsError, read_safetensors
from tests.parity.score_networks import draw_weights, edit_json, pictures, save_processor
from tests.tolerances import assert_close, rel_l2

GRID = 7  # patches of 4 pixels along the 28 pixels of training
SHAPE = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 4 * GRID,
    "patch_size": 4,
}


@pytest.fixture(scope="module", params=["dinov2", "vit"])
def saved(request, tmp_path_factory):
    """(kind, transformers' model, its folder)."""
    import transformers

    if request.param == "dinov2":
        config = transformers.Dinov2Config(**SHAPE, mlp_ratio=3)
        model = transformers.Dinov2Model(config)
    else:
        config = transformers.ViTConfig(**SHAPE, intermediate_size=72)
        model = transformers.ViTModel(config)
    folder = tmp_path_factory.mktemp(request.param)
    draw_weights(model).save_pretrained(folder)
    save_processor(folder, "BitImageProcessor", {"shortest_edge": 32}, crop=28)
    return request.param, model, folder


@pytest.fixture
def copy(saved, tmp_path):
    """A folder of its own, to be damaged."""
    return shutil.copytree(saved[2], tmp_path / "copy")


def tokens_of(model, kind, pixels):
    """transformers' last hidden state, on whatever grid."""
    import torch

    options = {"interpolate_pos_encoding": True} if kind == "vit" else {}
    return model(torch.from_numpy(pixels), **options).last_hidden_state.numpy()


@pytest.mark.parametrize("size", [(28, 28), (16, 16), (36, 20)], ids=str)
def test_tokens_agree_on_the_grid_of_training_and_on_others(saved, size):
    kind, theirs, folder = saved
    pixels = np.random.default_rng(0).normal(size=(2, 3, *size)).astype(np.float32)
    with jt.no_grad():
        found = load_vit(folder)(jt.array(pixels)).numpy()
    assert_close("score.vit", found, tokens_of(theirs, kind, pixels))


@pytest.mark.parametrize(("size", "offset"), [(16, 0.0), (16, 0.1), (50, 0.0), (50, 0.1)])
def test_position_grids_are_resampled_as_by_torch(size, offset):
    import torch

    grid = np.random.default_rng(1).normal(size=(1, 2, 37, 37)).astype(np.float32)
    how = {"size": (size, size)}
    if offset:
        how = {"scale_factor": ((size + offset) / 37,) * 2}
    expected = torch.nn.functional.interpolate(torch.from_numpy(grid), mode="bicubic", **how)
    matrix = bicubic_matrix(size, 37, offset)
    assert_close("score.positions", matrix @ grid.astype(float) @ matrix.T, expected.numpy())
    assert rel_l2(bicubic_matrix(size, 37, 0.1 - offset), matrix) > 1e-3  # and the offset matters


def test_features_and_score_are_those_of_the_processor_and_the_model(saved):
    import torch
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    kind, theirs, folder = saved
    metric = (Dino if kind == "dinov2" else DinoSubject)(folder)
    generated, references = pictures(4, 48, 48, seed=1), pictures(3, 40, 56, seed=2)
    processor = BitImageProcessorPil.from_pretrained(folder)

    def expected(images):
        prepared = processor([Image.fromarray(i) for i in images], return_tensors="np")
        return tokens_of(theirs, kind, np.stack(prepared["pixel_values"]))[:, 0]

    ours = [metric.features(batch) for batch in (generated, references)]
    truth = [expected(batch) for batch in (generated, references)]
    for found, wanted in zip(ours, truth, strict=True):
        assert found.dtype == np.float32
        assert_close("score.vit", found, wanted)
    pairs = [
        torch.nn.functional.cosine_similarity(torch.tensor(g), torch.tensor(r), dim=0).item()
        for g in truth[0]
        for r in truth[1]
    ]
    assert abs(mean_pairwise(*ours) - np.mean(pairs)) < 1e-6
    assert np.std(pairs) > 0.01


def test_a_grid_offset_reaches_the_features(saved):
    kind, _, folder = saved
    edit_json(folder / "preprocessor_config.json", crop_size=16)
    try:
        found = [Dino(folder, offset).features(pictures(2)) for offset in (0.0, 0.1)]
    finally:
        edit_json(folder / "preprocessor_config.json", crop_size=28)
    assert 1e-4 < rel_l2(*found) < 0.1


def test_a_file_of_torch_gives_the_same_bits_as_safetensors(saved, copy):
    import torch

    path = copy / "model.safetensors"
    tensors = {name: torch.tensor(t.array()) for name, t in read_safetensors(path).items()}
    before = Dino(copy).features(pictures(2))
    path.unlink()
    torch.save(tensors, copy / "pytorch_model.bin")
    assert np.array_equal(Dino(copy).features(pictures(2)), before)


def test_what_does_not_fit_is_named(copy):
    config = copy / "config.json"
    edit_json(config, hidden_size=27)
    with pytest.raises(WeightsError, match=r"model\.safetensors does not fit.* \[1, 1, 24\] inst"):
        load_vit(copy)
    edit_json(config, hidden_size=24, num_hidden_layers=3)
    with pytest.raises(WeightsError, match=r"16 missing|18 missing"):
        load_vit(copy)
    edit_json(config, num_hidden_layers=2, num_attention_heads=5)
    with pytest.raises(ConfigError, match="num_attention_heads must divide 24"):
        load_vit(copy)
    for change, message in [
        ({"model_type": "swin"}, r"config\.json: model_type = 'swin' \(supported: vit, dinov2\)"),
        ({"qkv_bias": False}, r"qkv_bias = False is not supported \(supported: True\)"),
        ({"patch_size": 3.5}, r"patch_size = 3\.5 must be a whole number"),
        ({"hidden_act": "relu"}, r"hidden_act = 'relu' \(supported: quick_gelu or gelu\)"),
    ]:
        before = config.read_text()
        edit_json(config, **change)
        with pytest.raises(ConfigError, match=message):
            load_vit(copy)
        config.write_text(before)


def test_a_folder_without_its_files_says_which(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"no weights here \(expected model\.safetensors or"):
        load_vit(copy)
    (copy / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"config\.json: missing"):
        load_vit(copy)


def test_a_mean_over_no_pairs_is_refused():
    with pytest.raises(ValueError, match="0 pictures and 2 references"):
        mean_pairwise(np.zeros((0, 3)), np.ones((2, 3)))
