"""StyleID's protocol from picture files to ArtFID, against the same steps in PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from jstyle.score.layout import ContestError
from jstyle.score.metrics import artfid
from jstyle.score.metrics.fid import frechet_distance
from jstyle.score.weights import REGISTRY
from tests.tolerances import assert_close

SHORTER = 96  # instead of 512
CONTENTS, STYLES = ("cat", "a b"), ("ink", "oil")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(results, contents, styles): pictures of 2 x 2 stylisations, taller than wide."""
    root = tmp_path_factory.mktemp("stylisations")
    rng = np.random.default_rng(0)
    names = {"content": CONTENTS, "style": STYLES}
    names["out"] = tuple(f"{c}_stylized_{s}" for c in CONTENTS for s in STYLES)
    for folder, stems in names.items():
        (root / folder).mkdir()
        for stem in stems:
            pixels = rng.integers(0, 256, (144, 128, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{stem}.png")
    return root / "out", root / "content", root / "style"


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """(PyTorch's networks and LPIPS's weights by name, the folder with their files)"""
    import torch

    from tests.parity import torch_networks

    folder = tmp_path_factory.mktemp("weights")
    alexnet = torch_networks.fill(torch_networks.alexnet())
    vgg19 = torch_networks.fill(torch_networks.vgg19(5))
    inception = torch_networks.fill(torch_networks.Inception("art"))
    rng = np.random.default_rng(1)
    linear = [rng.random((1, n, 1, 1), np.float32) for n in (64, 192, 384, 256, 256)]
    files = {
        "alexnet": {f"features.{k}": v for k, v in alexnet.state_dict().items()},
        "vgg19": {f"features.{k}": v for k, v in vgg19.state_dict().items()},
        "art-inception": inception.state_dict(),
        "lpips-alex": {f"lin{i}.model.1.weight": torch.from_numpy(v) for i, v in enumerate(linear)},
    }
    for name, state in files.items():
        path = folder / REGISTRY[name].place
        path.parent.mkdir(exist_ok=True)
        torch.save(state, path)
    found = {"alexnet": alexnet, "vgg19": vgg19, "inception": inception, "linear": linear}
    return found, folder


def read(path, shorter=None):
    """(1, 3, H, W) in [0, 1]"""
    import torch

    image = Image.open(path)
    if shorter:
        size = (shorter, int(shorter * image.height / image.width))
        image = image.resize(size, Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(image, np.float32).transpose(2, 0, 1)[None] / 255)


def lpips(networks, a, b):
    import torch

    shift = torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1)
    a, b, total = (a * 2 - 1 - shift) / scale, (b * 2 - 1 - shift) / scale, 0
    weights = dict(zip((1, 4, 7, 9, 11), networks["linear"], strict=True))
    for i, layer in enumerate(networks["alexnet"]):
        a, b = layer(a), layer(b)
        if i in weights:
            difference = a / a.norm(dim=1, keepdim=True) - b / b.norm(dim=1, keepdim=True)
            difference = torch.where(difference.isnan(), 0, difference)  # where all is zero
            total += float((difference**2 * torch.from_numpy(weights[i])).sum(1).mean())
        if i == max(weights):
            return total


def cfsd(networks, content, stylised):
    import torch
    import torch.nn.functional as F

    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    rows = []
    for x in (content, stylised):
        x = networks["vgg19"][:12]((x - mean) / deviation).double()
        x = x.transpose(1, 3).reshape(-1, 256) / 256
        rows.append(F.log_softmax(x @ x.T, -1))
    return float(F.kl_div(rows[1], rows[0], reduction="sum", log_target=True))


def test_all_parts_agree_with_the_published_protocol(folders, networks, monkeypatch):
    import torch

    theirs, weights = networks
    monkeypatch.setattr(artfid, "SIZE_PX", SHORTER)
    pairs = artfid.find_pairs(*folders)
    assert len(pairs) == len(CONTENTS) * len(STYLES)
    finished = []
    found = artfid.score_stylisations(pairs, weights, finished.append)
    assert sum(finished) == 3 * len(pairs) and found["missing"] == {}
    with torch.no_grad():
        of = {p: theirs["inception"](read(p, SHORTER))[-1] for pair in pairs for p in pair}
        sides = ([of[pair.stylised] for pair in pairs], [of[pair.style] for pair in pairs])
        fid = frechet_distance(*(torch.cat(side).numpy() for side in sides))
        small = [(read(p.content, SHORTER), read(p.stylised, SHORTER)) for p in pairs]
        expected = np.mean([lpips(theirs, *two) for two in small])
        kept = np.mean([cfsd(theirs, read(p.content), read(p.stylised)) for p in pairs])
    assert_close("score.artfid", found["fid"], fid)
    assert_close("score.artfid", found["lpips"], expected)
    assert_close("score.artfid", found["cfsd"], kept)
    assert_close("score.artfid", found["artfid"], (1 + expected) * (1 + fid))


def test_a_part_without_weights_is_missing_and_so_is_the_product(folders, networks, tmp_path):
    _, weights = networks
    (tmp_path / "vgg19-dcbb9e9d.pth").symlink_to(weights / "vgg19-dcbb9e9d.pth")
    found = artfid.score_stylisations(artfid.find_pairs(*folders), tmp_path)
    assert found["cfsd"] > 0
    assert found["fid"] is found["lpips"] is found["artfid"] is None
    assert "alexnet-owt-7be5be79.pth" in found["missing"]["lpips"]


def test_a_stylisation_of_another_size_is_named(folders, networks, tmp_path):
    _, weights = networks
    out, contents, styles = folders
    Image.new("RGB", (128, 140)).save(tmp_path / "cat_stylized_ink.png")
    pairs = artfid.find_pairs(tmp_path, contents / "cat.png", styles / "ink.png")
    with pytest.raises(ContestError, match=r"cat_stylized_ink.png: is not of the size of .*cat"):
        artfid.Cfsd(weights / "vgg19-dcbb9e9d.pth").score(pairs, print)
