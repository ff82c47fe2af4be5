"""The autoencoder against diffusers: encoder, decoder, gradients."""

from __future__ import annotations

import numpy as np
import pytest

from jstyle.sd.startup import jt
from tests import tiny
from tests.tolerances import assert_close


@pytest.fixture(scope="module", params=list(tiny.KINDS))
def pair(request):
    return tiny.make_ours(request.param).vae, tiny.make_theirs(request.param).vae


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(4).uniform(-1, 1, (2, 3, 32, 48)).astype(np.float32)


def test_every_parameter_has_its_name_and_shape_in_diffusers(pair):
    ours, theirs = pair
    mine = {n: tuple(p.shape) for n, p in ours.named_parameters()}
    assert mine == {n: tuple(p.shape) for n, p in theirs.named_parameters()}


def test_moments_of_an_image(pair, image):
    import torch

    ours, theirs = pair
    with torch.no_grad():
        want = theirs.encode(torch.from_numpy(image)).latent_dist.parameters.numpy()
    assert_close("vae.encode", ours.encode(jt.array(image)).numpy(), want)


def test_image_of_a_latent(pair):
    import torch

    ours, theirs = pair
    z = np.random.default_rng(5).standard_normal((2, 4, 6, 10)).astype(np.float32)
    with torch.no_grad():
        want = theirs.decode(torch.from_numpy(z)).sample.numpy()
    assert_close("vae.decode", ours.decode(jt.array(z)).numpy(), want)


def test_gradient_of_the_input(pair, image):
    import torch

    ours, theirs = pair
    x = jt.array(image)
    loss = ours.decode(ours.encode(x)[:, :4]).sqr().sum()
    got = jt.grad(loss, x).numpy()
    leaf = torch.tensor(image, requires_grad=True)
    mean = theirs.encode(leaf).latent_dist.mean
    theirs.decode(mean).sample.square().sum().backward()
    assert_close("vae.gradient", got, leaf.grad.numpy())
