"""LPIPS against torchmetrics, and CFSD against its formula in PyTorch, same weights."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from jstyle.score.metrics import lpips
from jstyle.score.metrics.artfid import ROWS, Cfsd, structural_distance
from jstyle.sd.startup import jt
from tests.tolerances import assert_close

NETS = ("squeeze", "alex")


def pictures(count, seed, height=70, width=61):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def to_torch(batch):
    """uint8 (B, H, W, 3) -> (B, 3, H, W) in [0, 1]"""
    import torch

    return torch.from_numpy(batch.transpose(0, 3, 1, 2).astype(np.float32) / 255)


def torchvision_file(path, features):
    """A file as torchvision publishes it, with the classifier's head that nothing here reads."""
    import torch

    state = {f"features.{name}": values for name, values in features.state_dict().items()}
    torch.save({**state, "classifier.1.weight": torch.zeros(2, 3)}, path)
    return path


@pytest.fixture(scope="module", params=NETS)
def both(request, tmp_path_factory):
    """(torchmetrics' network, ours) with the same weights, ours read from files."""
    import torch
    import torchmetrics.functional.image.lpips as reference

    from tests.parity import torch_networks

    net, folder = request.param, tmp_path_factory.mktemp(request.param)
    make = {"squeeze": torch_networks.squeezenet, "alex": torch_networks.alexnet}[net]
    features = torch_networks.fill(make())
    with pytest.MonkeyPatch.context() as patch:  # instead of torchvision's, which it would import
        patch.setattr(reference, "_get_tv_model_features", lambda *_: features)
        theirs = reference._LPIPS(pretrained=False, net=net, pnet_rand=True)
    linear = {k: v.abs() for k, v in theirs.state_dict().items() if k.startswith("lin")}
    theirs.load_state_dict(linear, strict=False)
    published = {k: v for k, v in linear.items() if not k.startswith("lins.")}
    torch.save(published, folder / "linear.pth", _use_new_zipfile_serialization=False)
    backbone = torchvision_file(folder / "backbone.pth", features)
    return theirs, lpips.Lpips(backbone, folder / "linear.pth", net)


def test_lpips_of_every_pair_agrees_with_torchmetrics(both):
    import torch

    theirs, ours = both
    generated, references = pictures(2, 0), pictures(3, 1)
    a, b = (to_torch(x).repeat_interleave(n, 0) for x, n in ((generated, 3), (references, 1)))
    with torch.no_grad():
        expected = theirs(a * 2 - 1, torch.cat([b, b]) * 2 - 1).numpy().reshape(2, 3)
    found = ours.embed(generated), ours.embed(references)
    assert_close("score.lpips", lpips.distances(*found), expected)
    assert_close("score.lpips", lpips.style_score(*found), expected.mean())


def test_lpips_resizes_with_pillow_before_it_looks(both):
    _, ours = both
    image = pictures(1, 2, 40, 90)[0]
    resized = np.asarray(Image.fromarray(image).resize((256, 256)))
    assert np.array_equal(ours.features(image[None]), ours.embed(resized[None]))


@pytest.fixture(scope="module")
def vgg(tmp_path_factory):
    """(PyTorch's VGG-19 as far as one layer past what is read, ours)"""
    from tests.parity import torch_networks

    features = torch_networks.fill(torch_networks.vgg19(6))
    path = torchvision_file(tmp_path_factory.mktemp("vgg") / "vgg19.pth", features)
    return features[:12], Cfsd(path)


def test_vgg_features_agree_with_pytorch(vgg):
    import torch

    theirs, ours = vgg
    image = pictures(1, 3, 43, 58)
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    x = (to_torch(image) - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(deviation).view(3, 1, 1)
    with torch.no_grad():
        expected = theirs(x)[0].flatten(1).T
    assert_close("score.vgg", ours.features(image[0]).numpy(), expected.numpy())


@pytest.mark.parametrize("change", [3.0, 0.01])
def test_structural_distance_agrees_with_the_divergence_in_float64(change):
    import torch
    import torch.nn.functional as F

    rng = np.random.default_rng(4)
    content = rng.random((ROWS + 96, 16)) * 20
    stylised = content + rng.normal(0, change, content.shape)
    a, b = (torch.from_numpy(x) / 16 for x in (content, stylised))
    log_p, log_q = F.log_softmax(a @ a.T, -1), F.log_softmax(b @ b.T, -1)
    expected = F.kl_div(log_q, log_p, reduction="sum", log_target=True)
    found = structural_distance(*(jt.array(x.astype(np.float32)) for x in (content, stylised)))
    assert_close("score.cfsd", found, float(expected))
