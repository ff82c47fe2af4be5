"""FID against torchmetrics, its two resizes and two networks against PyTorch, same weights."""

from __future__ import annotations

import numpy as np
import pytest

from jstyle.score.metrics import fid
from jstyle.score.networks.inception import Inception
from jstyle.sd.startup import jt
from jstyle.sd.torch_zip import read_tensors
from tests.tolerances import assert_close


def pictures(count, height, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=["fid", "art"])
def both(request, tmp_path_factory):
    """(PyTorch's network, a path to its weights, the form)"""
    import torch

    from tests.parity import torch_networks

    network = torch_networks.fill(torch_networks.Inception(request.param))
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(network.state_dict(), path)
    return network, path, request.param


def test_inception_agrees_with_pytorch_at_every_depth(both):
    import torch

    theirs, path, form = both
    x = np.random.default_rng(0).normal(size=(2, 3, 107, 91)).astype(np.float32)
    ours = Inception(form)
    ours.load(read_tensors(path), path)
    with torch.no_grad(), jt.no_grad():
        for expected in theirs(torch.from_numpy(x)):
            found = ours(jt.array(x), expected.shape[1]).numpy()
            assert_close("score.inception", found, expected.numpy())


RESIZES = {"tensorflow": fid.resize_like_tensorflow, "antialias": fid.resize_antialiased}


@pytest.mark.parametrize("resize", fid.RESIZES)
@pytest.mark.parametrize("both", ["fid"], indirect=True)
def test_features_are_those_of_the_resized_picture(both, resize):
    import torch

    theirs, path, _ = both
    batch = pictures(1, 400, 350)
    pixels = np.ascontiguousarray(RESIZES[resize](batch).transpose(0, 3, 1, 2))
    with torch.no_grad():
        expected = theirs((torch.from_numpy(pixels) - 128) / 128)[0].numpy()
    assert_close("score.inception", fid.Fid(path, resize=resize).features(batch), expected)
    with pytest.raises(ValueError, match="resize must be tensorflow or antialias, got 'area'"):
        fid.Fid(path, resize="area")


@pytest.mark.parametrize("height, width", [(512, 400), (201, 299)])
def test_the_resize_of_tensorflow_is_a_lookup_at_the_scaled_corner(height, width):
    import torch
    import torch.nn.functional as F

    batch = pictures(1, height, width)
    x = torch.from_numpy(batch.transpose(0, 3, 1, 2)).double()
    places = [torch.arange(299).double() * n / 299 * 2 / (n - 1) - 1 for n in (height, width)]
    grid = torch.stack(torch.meshgrid(*places, indexing="ij")[::-1], -1)[None]
    expected = F.grid_sample(x, grid, padding_mode="border", align_corners=True)
    found = fid.resize_like_tensorflow(batch).transpose(0, 3, 1, 2)
    assert_close("score.resize_tensorflow", found, expected.numpy())


@pytest.mark.parametrize("height, width", [(512, 400), (201, 299)])
def test_the_antialiased_resize_is_pytorchs(height, width):
    import torch
    import torch.nn.functional as F

    batch = pictures(1, height, width)
    x = torch.from_numpy(batch.transpose(0, 3, 1, 2).astype(np.float32))
    expected = F.interpolate(x, (299, 299), mode="bilinear", align_corners=False, antialias=True)
    found = fid.resize_antialiased(batch).transpose(0, 3, 1, 2)
    assert_close("score.resize_antialiased", found, expected.numpy())


@pytest.mark.parametrize("references, generated", [(84, 130), (30, 50)])
def test_frechet_distance_agrees_with_torchmetrics(references, generated):
    """With more pictures than features, and with fewer, where covariances have no inverse."""
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Identity(torch.nn.Module):
        num_features = 64

        def forward(self, x):
            return x

    rng = np.random.default_rng(5)
    mix = rng.normal(0, 0.3, (64, 64))
    real = rng.random((references, 64)) @ mix
    fake = rng.random((generated, 64)) ** 2 @ mix + 0.1
    metric = FrechetInceptionDistance(feature=Identity()).set_dtype(torch.float64)
    for features, is_real in ((real, True), (fake, False)):
        metric.update(torch.from_numpy(features), real=is_real)
    assert_close("score.frechet", fid.frechet_distance(real, fake), float(metric.compute()))
