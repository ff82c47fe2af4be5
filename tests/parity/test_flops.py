"""The counted operations, against PyTorch's own counter running diffusers' networks."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import flops
from jstyle.sd.config import CLIPTextConfig, UNetConfig, VAEConfig
from tests.tiny import config, make_theirs

GROUPS = {"convolution": "convolution", "addmm": "linear", "mm": "linear", "bmm": "attention"}


@pytest.fixture(scope="module", params=["sd1", "sd2"])
def pipeline(request):
    return request.param, make_theirs(request.param)


def counted(run) -> dict[str, int]:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # the fused attention of the CPU is not counted, its parts are
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    found = dict.fromkeys(flops.GROUPS, 0)
    for operation, number in counter.get_flop_counts()["Global"].items():
        found[GROUPS[str(operation).removeprefix("aten.")]] += number
    return found


def test_unet(pipeline):
    import torch

    kind, theirs = pipeline
    cfg = UNetConfig.from_json(config(kind, "unet"))
    z, context = torch.zeros(2, 4, 16, 24), torch.zeros(2, 77, cfg.cross_attention_dim)
    with torch.no_grad():
        found = counted(lambda: theirs.unet(z, 500, context))
    assert flops.unet(cfg, 16, 24, batch=2) == found


def test_autoencoder(pipeline):
    import torch

    kind, theirs = pipeline
    cfg = VAEConfig.from_json(config(kind, "vae"))
    scale = 2 ** (len(cfg.block_out_channels) - 1)
    x, z = torch.zeros(1, 3, 8 * scale, 4 * scale), torch.zeros(1, 4, 8, 4)
    with torch.no_grad():
        encoding = counted(lambda: theirs.vae.encode(x))
        decoding = counted(lambda: theirs.vae.decode(z))
    assert flops.vae_encode(cfg, 8 * scale, 4 * scale) == encoding
    assert flops.vae_decode(cfg, 8 * scale, 4 * scale) == decoding


def test_text_encoder(pipeline):
    import torch

    kind, theirs = pipeline
    cfg = CLIPTextConfig.from_json(config(kind, "text_encoder"))
    with torch.no_grad():
        found = counted(lambda: theirs.text_encoder(torch.zeros(3, 77, dtype=torch.long)))
    ours = flops.text_encoder(cfg, batch=3)
    assert {group: ours[group] for group in flops.GROUPS} == found


def test_a_lora_step_takes_the_forward_pass_and_gradients_of_activations():
    count = flops.Flops(convolution=10, linear=20, attention=4)
    assert flops.lora_step(count, False) == {"convolution": 20, "linear": 40, "attention": 14}
    assert flops.lora_step(count, True) == {"convolution": 30, "linear": 60, "attention": 18}
    assert np.isclose(flops.total(count), 34)
