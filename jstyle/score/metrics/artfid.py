"""StyleID's own protocol: N contents x M styles, judged by ArtFID and its parts, and CFSD.

    FID     between the stylisations and their styles, on an Inception trained on paintings
    LPIPS   between each stylisation and its content, AlexNet
    ArtFID  (1 + LPIPS) (1 + FID)
    CFSD    how much the likeness of every two places in the content has changed

Sources: Wright & Ommer, arXiv:2207.12280; Chung et al., arXiv:2312.09008, section 4 and the
evaluation published with it (jiwoogit/StyleID, d541d41). Its default, ArtFID extrapolated to
infinitely many pictures, takes at least 5000 at a time; with fewer than that it is the plain one,
which is what is computed here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ...sd.kernels import softmax
from ...sd.picture_files import list_images
from ...sd.startup import jt
from ...sd.targets import stylized_name
from ...sd.torch_zip import read_tensors
from ..layout import ContestError, raise_problems
from ..networks.backbones import vgg19
from ..networks.inception import Inception
from ..pictures import read_rgb
from ..weights import MissingWeights, locate
from .fid import frechet_distance
from .lpips import Lpips, distances

SIZE_PX = 512  # of the shorter side, for LPIPS and FID
MEAN = (0.485, 0.456, 0.406)  # of ImageNet's pictures in [0, 1]
DEVIATION = (0.229, 0.224, 0.225)
ROWS = 1024  # of the matrix of likenesses at a time


class Pair(NamedTuple):
    """A stylisation and what it was made of."""

    stylised: Path
    content: Path
    style: Path


def find_pairs(
    stylised: str | os.PathLike, contents: str | os.PathLike, styles: str | os.PathLike
) -> list[Pair]:
    """Every content with every style: CONTENT_stylized_STYLE.png, as `jstyle stylize` names it.

    contents, styles: folders, or single pictures.
    Raises ContestError listing every stylisation that is missing, ImageError for an empty folder.
    """
    pairs = [
        Pair(Path(stylised) / stylized_name(content, style), content, style)
        for content in _pictures(contents)
        for style in _pictures(styles)
    ]
    lost = [f"{pair.stylised}: missing" for pair in pairs if not pair.stylised.is_file()]
    raise_problems(str(stylised), lost)
    return pairs


def _pictures(path: str | os.PathLike) -> list[Path]:
    return [Path(path)] if Path(path).is_file() else list_images(path)


def score_stylisations(
    pairs: Sequence[Pair],
    weights: str | os.PathLike,
    done: Callable[[int], object] = lambda count: None,
) -> dict:
    """{"artfid", "fid", "lpips", "cfsd", "missing"}; a part without its weights is None.

    weights: the folder they lie in. done: told how many more stylisations are finished, each once
    per part; parts are computed one after the other, one network in memory at a time.
    """
    found: dict = {"artfid": None}
    missing = {}
    for name, part in PARTS.items():
        found[name] = None
        try:
            files = [locate(need, weights) for need in part.needs]
        except MissingWeights as error:
            missing[name] = str(error)
            continue
        found[name] = part(*files).score(pairs, done)
    if found["fid"] is not None and found["lpips"] is not None:
        found["artfid"] = artfid(found["lpips"], found["fid"])
    return {**found, "missing": missing}


def artfid(lpips: float, fid: float) -> float:
    return (1 + lpips) * (1 + fid)


class StyleFid:
    """FID on 2048 features; a style counts once for each stylisation made with it."""

    needs = ("art-inception",)

    def __init__(self, weights: Path | str):
        self.network = Inception("art")
        self.network.load(read_tensors(weights), weights)

    def features(self, batch: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, 3) RGB, of any size from 75 x 75 -> float32 (B, 2048)."""
        x = jt.array(np.ascontiguousarray(batch.transpose(0, 3, 1, 2)).astype(np.float32) / 255)
        with jt.no_grad():
            return self.network(x).numpy()

    def score(self, pairs: Sequence[Pair], done: Callable[[int], object]) -> float:
        styles = {path: i for i, path in enumerate(dict.fromkeys(p.style for p in pairs))}
        of_styles = np.concatenate(list(self._each(list(styles), lambda count: None)))
        stylised = np.concatenate(list(self._each([pair.stylised for pair in pairs], done)))
        return frechet_distance(stylised, of_styles[[styles[pair.style] for pair in pairs]])

    def _each(self, paths: Sequence[Path], done: Callable[[int], object]) -> Iterator[np.ndarray]:
        for path in paths:
            yield self.features(_read(path)[None])
            done(1)


class ContentLpips:
    """The mean LPIPS of each stylisation and its content."""

    needs = ("alexnet", "lpips-alex")

    def __init__(self, backbone: Path | str, linear: Path | str):
        self.lpips = Lpips(backbone, linear, net="alex")

    def score(self, pairs: Sequence[Pair], done: Callable[[int], object]) -> float:
        return _mean_over_pairs(pairs, done, self._features, _one_distance)

    def _features(self, path: Path) -> np.ndarray:
        return self.lpips.embed(_read(path)[None])


def _one_distance(content: np.ndarray, stylised: np.ndarray) -> float:
    return float(distances(content, stylised)[0, 0])


class Cfsd:
    """Content feature structural distance on relu3_1 of VGG-19, at the pictures' own size."""

    needs = ("vgg19",)

    def __init__(self, weights: Path | str):
        self.network = vgg19()
        self.network.load(read_tensors(weights), weights)

    def features(self, picture: np.ndarray) -> jt.Var:
        """uint8 (H, W, 3) -> Var (H/4 * W/4, 256)."""
        x = (picture.astype(np.float32) / 255 - np.asarray(MEAN, np.float32)) / np.asarray(
            DEVIATION, np.float32
        )
        with jt.no_grad():
            (y,) = self.network(jt.array(np.ascontiguousarray(x.transpose(2, 0, 1)[None])))
            return y.reshape(y.shape[1], -1).transpose(1, 0)

    def score(self, pairs: Sequence[Pair], done: Callable[[int], object]) -> float:
        return _mean_over_pairs(
            pairs, done, lambda path: self.features(read_rgb(path)), structural_distance
        )


PARTS: dict[str, Any] = {"fid": StyleFid, "lpips": ContentLpips, "cfsd": Cfsd}


def _mean_over_pairs(pairs, done, features, distance) -> float:
    """Contents are read once, one after the other, however the pairs are ordered."""
    values = []
    for content in dict.fromkeys(pair.content for pair in pairs):
        kept = features(content)
        for pair in pairs:
            if pair.content != content:
                continue
            made = features(pair.stylised)
            if tuple(made.shape) != tuple(kept.shape):
                raise ContestError(f"{pair.stylised}: is not of the size of its content, {content}")
            values.append(distance(kept, made))
            done(1)
    return float(np.mean(values))


def _read(path: Path) -> np.ndarray:
    """uint8 (H, W, 3), shrunk or grown so that its shorter side has SIZE_PX pixels."""
    picture = read_rgb(path)
    height, width = picture.shape[:2]
    short = min(height, width)
    if short == SIZE_PX:
        return picture
    size = (int(SIZE_PX * width / short), int(SIZE_PX * height / short))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))


def structural_distance(content: jt.Var, stylised: jt.Var) -> float:
    """Kullback-Leibler divergence between the likenesses of all places, summed over the places.

    content, stylised: Vars (places, C). Place i is as like place j as the softmax over j of their
    product / C^2 says. Rows are taken ROWS at a time: the whole matrix has a gigabyte at 512 px.
    With p of the content and d the difference of the logits less its mean under p, the divergence
    of a row is log sum_j p_j exp(-d_j), without the loss of digits of two logarithms of nearly
    equal numbers.
    """
    total = 0.0
    with jt.no_grad():
        a, b = (x / x.shape[1] for x in (content, stylised))
        for i in range(0, a.shape[0], ROWS):
            logits = jt.matmul(a[i : i + ROWS], a.transpose(1, 0))
            p = softmax(logits)
            d = logits - jt.matmul(b[i : i + ROWS], b.transpose(1, 0))
            d = d - (p * d).sum(1, keepdims=True)
            excess = (p * (jt.exp(-d) - 1)).sum(1)
            total += np.log1p(excess.numpy().astype(np.float64)).sum()
    return float(total)
