"""The UNet against diffusers, from the inside out: time embedding, blocks, the whole, gradients."""

from __future__ import annotations

import numpy as np
import pytest

from jstyle.sd.layers import timestep_features
from jstyle.sd.startup import jt
from tests import tiny
from tests.tolerances import assert_close

TIMES = [7, 981]


@pytest.fixture(scope="module", params=list(tiny.KINDS))
def pair(request):
    return tiny.make_ours(request.param).unet, tiny.make_theirs(request.param).unet


def inputs(channels, h=16, w=24, temb_dim=32, context_dim=20):
    rng = np.random.default_rng(channels)
    shapes = (2, channels, h, w), (2, temb_dim), (2, 7, context_dim)
    return [rng.standard_normal(s).astype(np.float32) for s in shapes]


def as_torch(*arrays):
    import torch

    return [torch.from_numpy(a) for a in arrays]


@pytest.mark.parametrize("flip, shift", [(True, 0), (False, 1)])
def test_timestep_features(flip, shift):
    import torch
    from diffusers.models.embeddings import get_timestep_embedding

    t = np.array([0, 1, 500, 999])
    want = get_timestep_embedding(torch.tensor(t), 24, flip, shift).numpy()
    assert_close("unet.timestep_features", timestep_features(t, 24, flip, shift), want)


def test_every_parameter_has_its_name_and_shape_in_diffusers(pair):
    ours, theirs = pair
    mine = {n: tuple(p.shape) for n, p in ours.named_parameters()}
    assert mine == {n: tuple(p.shape) for n, p in theirs.named_parameters()}


def test_resnet_and_transformer_blocks(pair):
    import torch

    ours, theirs = pair
    block, reference = ours.down_blocks[1], theirs.down_blocks[1]
    x, temb, context = inputs(8)
    silu = temb / (1 + np.exp(-temb))
    y = block.resnets[0](jt.array(x), jt.array(silu))
    with torch.no_grad():
        want = reference.resnets[0](*as_torch(x, temb))
    assert_close("unet.resnet", y.numpy(), want.numpy())

    x = np.random.default_rng(3).standard_normal((2, 12, 6, 10)).astype(np.float32)
    y = block.attentions[0](jt.array(x), jt.array(context))
    with torch.no_grad():
        want = reference.attentions[0](*as_torch(x, context)).sample
    assert_close("unet.transformer", y.numpy(), want.numpy())


@pytest.mark.parametrize("size", [(16, 24), (8, 8)])
def test_the_whole_unet(pair, size):
    import torch

    ours, theirs = pair
    z, _, context = inputs(4, *size)
    with jt.no_grad():
        got = ours(jt.array(z), TIMES, jt.array(context)).numpy()
    z, context = as_torch(z, context)
    with torch.no_grad():
        want = theirs(z, torch.tensor(TIMES), context).sample.numpy()
    assert_close("unet", got, want)


def test_gradients_of_every_parameter(pair):
    import torch

    ours, theirs = pair
    z, _, context = inputs(4)
    weight = np.random.default_rng(9).standard_normal(z.shape).astype(np.float32)
    names, parameters = zip(*ours.named_parameters(), strict=True)
    out = ours(jt.array(z), TIMES, jt.array(context))
    got = jt.grad((out * jt.array(weight)).sum(), list(parameters))

    theirs.zero_grad()
    tz, tcontext, tweight = as_torch(z, context, weight)
    (theirs(tz, torch.tensor(TIMES), tcontext).sample * tweight).sum().backward()
    want = {n: p.grad.numpy() for n, p in theirs.named_parameters()}
    flat = [
        np.concatenate([g.reshape(-1) for g in gs])
        for gs in (
            [g.numpy() for g in got],
            [want[n] for n in names],
        )
    ]
    assert_close("unet.gradient", *flat)


def test_a_latent_that_does_not_divide_is_refused_with_the_multiple(pair):
    ours, _ = pair
    z, _, context = inputs(4, 16, 20)
    with pytest.raises(ValueError, match=r"multiples of 8, got \(16, 20\)"):
        ours(jt.array(z), 1, jt.array(context))
