"""The real shapes of SD 1.5 and SD 2.1, random weights: UNet, autoencoder, text encoder.

One part at a time, so that 12 GiB of memory are enough.
"""

from __future__ import annotations

import gc

import numpy as np
import pytest

from jstyle.machine import free_memory_bytes
from jstyle.sd.clip import CLIPTextModel
from jstyle.sd.config import CLIPTextConfig, UNetConfig, VAEConfig
from jstyle.sd.startup import jt
from jstyle.sd.unet import UNet2DConditionModel
from jstyle.sd.vae import AutoencoderKL
from jstyle.sd.weights import load_strict
from tests.tolerances import assert_close

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(free_memory_bytes() < 12e9, reason="needs 12 GB of free memory"),
]

UNET = {
    "sd15": {"attention_head_dim": 8, "cross_attention_dim": 768},
    "sd21": {
        "attention_head_dim": [5, 10, 20, 20],
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
    },
}
VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
TEXT = {
    "sd15": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "hidden_act": "quick_gelu",
    },
    "sd21": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 23,
        "num_attention_heads": 16,
        "hidden_act": "gelu",
    },
}


def normal(*shape):
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


@pytest.fixture(autouse=True)
def memory_is_given_back():
    yield
    gc.collect()
    jt.sync_all()
    jt.gc()


def with_same_weights(ours, theirs):
    load_strict(ours, {name: p.detach().numpy() for name, p in theirs.named_parameters()})
    return ours


@pytest.mark.parametrize("kind", UNET)
def test_unet(kind):
    import torch
    from diffusers import UNet2DConditionModel as Reference

    torch.manual_seed(0)
    theirs = Reference(**UNET[kind]).eval()
    z, context = normal(1, 4, 16, 24), normal(1, 77, UNET[kind]["cross_attention_dim"])
    with torch.no_grad():
        want = theirs(torch.from_numpy(z), 500, torch.from_numpy(context)).sample.numpy()
    ours = with_same_weights(UNet2DConditionModel(UNetConfig.from_json(UNET[kind])), theirs)
    if kind == "sd21":
        assert sum(p.numel() for p in ours.parameters()) == 865_910_724
    with jt.no_grad():
        got = ours(jt.array(z), 500, jt.array(context)).numpy()
    assert_close("real_size.unet", got, want)


def test_vae():
    import torch
    from diffusers import AutoencoderKL as Reference

    torch.manual_seed(0)
    theirs = Reference(**VAE).eval()
    x, z = np.tanh(normal(1, 3, 64, 96)), normal(1, 4, 8, 12)
    with torch.no_grad():
        moments = theirs.encode(torch.from_numpy(x)).latent_dist.parameters.numpy()
        image = theirs.decode(torch.from_numpy(z)).sample.numpy()
    ours = with_same_weights(AutoencoderKL(VAEConfig.from_json(VAE)), theirs)
    with jt.no_grad():
        assert_close("real_size.vae_encode", ours.encode(jt.array(x)).numpy(), moments)
        assert_close("real_size.vae_decode", ours.decode(jt.array(z)).numpy(), image)


@pytest.mark.parametrize("kind", TEXT)
def test_text_encoder(kind):
    import torch
    from transformers import CLIPTextConfig as ReferenceConfig
    from transformers import CLIPTextModel as Reference

    torch.manual_seed(0)
    theirs = Reference(ReferenceConfig(**TEXT[kind])).eval()
    ids = np.random.default_rng(1).integers(0, 49408, (2, 77))
    with torch.no_grad():
        want = theirs(torch.from_numpy(ids)).last_hidden_state.numpy()
    ours = with_same_weights(CLIPTextModel(CLIPTextConfig.from_json(TEXT[kind])), theirs)
    with jt.no_grad():
        assert_close("real_size.text_encoder", ours(ids).numpy(), want)
