"""A model's sizes are compared with its files' headers before anything is built."""

from __future__ import annotations

import json
import resource
import time

import pytest

from jstyle.sd import hub
from jstyle.sd.config_json import ConfigError
from jstyle.sd.pipeline import PARTS, StableDiffusion
from jstyle.sd.sizes import SIZES
from jstyle.sd.weights import WeightsError, read_weights
from tests import tiny


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    tiny.make_ours("sd2").save_pretrained(folder, "float32")
    return folder


@pytest.mark.parametrize("kind", ["sd1", "sd2"])
@pytest.mark.parametrize("part", PARTS)
def test_the_sizes_are_those_of_the_network(kind, part):
    config_class, module_class = PARTS[part]
    config = config_class.from_json(tiny.config(kind, part))
    shapes = {n: tuple(v.shape) for n, v in module_class(config).state_dict().items()}
    wanted = SIZES[part](config)
    assert wanted == {name: shapes[name] for name in wanted}


def test_the_shipped_model_has_the_sizes_that_its_files_tell():
    for part, (config_class, _) in PARTS.items():
        config = config_class.from_json(hub.read_config(hub.TINY, part))
        stored = read_weights(hub.weight_file(hub.TINY, part))
        for name, shape in SIZES[part](config).items():
            assert stored[name].shape == shape


@pytest.mark.parametrize(
    ("part", "change", "error", "told"),
    [
        ("unet", {"layers_per_block": 10**6}, ConfigError, "layers_per_block = 1000000"),
        ("unet", {"layers_per_block": 32}, WeightsError, "missing: down_blocks.0.resnets.31"),
        ("unet", {"block_out_channels": [65520] * 4}, WeightsError, "conv_in.weight"),
        ("unet", {"in_channels": 4, "out_channels": 4, "norm_num_groups": 2}, None, ""),
        ("vae", {"layers_per_block": 32}, WeightsError, "encoder.down_blocks.0.resnets.31"),
        ("vae", {"layers_per_block": 10**9}, ConfigError, "at most 32"),
        ("text_encoder", {"num_hidden_layers": 10**9}, ConfigError, "at most 256"),
        ("text_encoder", {"num_hidden_layers": 256}, WeightsError, "encoder.layers.255"),
        ("text_encoder", {"intermediate_size": 65536}, WeightsError, "mlp.fc1.weight"),
        ("text_encoder", {"vocab_size": 2_000_000}, WeightsError, "token_embedding.weight"),
        ("text_encoder", {"max_position_embeddings": 10_000}, WeightsError, "position_embedding"),
        ("scheduler", {"num_train_timesteps": 10**10}, ConfigError, "at most 100000"),
    ],
)
def test_sizes_that_the_files_do_not_have_cost_neither_time_nor_memory(
    saved, part, change, error, told
):
    path = hub.config_file(saved, part)
    before = path.read_text()
    path.write_text(json.dumps({**json.loads(before), **change}))
    begun, memory = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        if error is None:
            StableDiffusion.from_pretrained(saved)
        else:
            with pytest.raises(error, match=told):
                StableDiffusion.from_pretrained(saved)
            assert time.monotonic() - begun < 5
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 100_000  # KiB
    finally:
        path.write_text(before)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"a"', '{"layers_per_block": 1e400}', "["])
def test_a_configuration_that_is_none_is_named(saved, text):
    path = hub.config_file(saved, "unet")
    before = path.read_text()
    path.write_text(text)
    try:
        with pytest.raises(hub.HubError, match=r"unet/config\.json: "):
            StableDiffusion.from_pretrained(saved)
    finally:
        path.write_text(before)
