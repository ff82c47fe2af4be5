"""Training pictures and captions -> batches that are a function of (seed, step, number) alone.

Pictures are encoded once, every crop and mirror image on its own, since cropping or mirroring
latents is not what cropping or mirroring the picture gives. Nothing here remembers how many batches
were drawn, so a resumed run needs no state of a random generator.
"""

from __future__ import annotations

import hashlib
from math import gcd
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from jstyle.sd import image
from jstyle.sd.noise import gaussian_from
from jstyle.sd.pipeline import StableDiffusion
from jstyle.sd.startup import jt

CROP_SHARE = 8 / 9  # of the shorter side: also a square picture is really cropped
ORDER, CLASS, CROPS = 1, 2, 3  # tags that keep random streams apart


class Picture(NamedTuple):
    path: Path
    caption: str
    latents: np.ndarray  # (variants, 4, h, w): the crops and their mirror images, scaled
    repeats: int = 1  # how often it is drawn, against the others


class Batch(NamedTuple):
    """Instances first, then as many pictures of the class, if there are any."""

    z: np.ndarray  # (B, 4, h, w) scaled latents
    noise: np.ndarray  # (B, 4, h, w)
    t: np.ndarray  # (B,) int64
    captions: list[str]
    instances: int


def encode_pictures(
    sd: StableDiffusion,
    captions: dict[Path, str],
    size_px: int,
    crops: int = 0,
    flip: bool = False,
    seed: int = 0,
    repeats: dict[Path, int] | None = None,
) -> list[Picture]:
    """Latents of every picture: `crops` random crops, or the centre crop, and mirror images.

    repeats: of the pictures that are drawn more than once where others are drawn once.
    """
    pictures = []
    for number, (path, caption) in enumerate(captions.items()):
        if crops:
            rng = np.random.default_rng([seed, CROPS, number])
            views = _random_crops(path, size_px, crops, rng)
        else:
            views = [image.load(path, size_px)]
        if flip:
            views += [np.ascontiguousarray(view[..., ::-1]) for view in views]
        latents = [sd.encode_image(jt.array(view)).numpy() for view in views]
        often = (repeats or {}).get(path, 1)
        pictures.append(Picture(path, caption, np.concatenate(latents), often))
    return pictures


def _random_crops(path: Path, size_px: int, count: int, rng) -> list[np.ndarray]:
    whole = image.read_rgb(path)
    side = min(whole.size) * CROP_SHARE
    views = []
    for share_x, share_y in rng.random((count, 2)):
        left, top = share_x * (whole.width - side), share_y * (whole.height - side)
        box = (left, top, left + side, top + side)
        view = whole.resize((size_px, size_px), Image.Resampling.LANCZOS, box=box)
        views.append(image.from_uint8(np.asarray(view)[None]))
    return views


class Dataset:
    """Batches of instance pictures, and of class pictures where there are any."""

    def __init__(
        self,
        instances: list[Picture],
        classes: list[Picture] = (),
        batch: int = 1,
        accumulation: int = 1,
        seed: int = 0,
        num_timesteps: int = 1000,
        offset_noise: float = 0.0,
        caption_dropout: float = 0.0,
        ranks: tuple[int, int] = (0, 1),
    ):
        """ranks: which of how many processes this is; a batch is the share of this one."""
        self.instances, self.classes = list(instances), list(classes)
        self.batch_size, self.accumulation, self.seed = batch, accumulation, seed
        self.num_timesteps, self.offset_noise = num_timesteps, offset_noise
        self.caption_dropout = caption_dropout
        self.rank, self.ranks = ranks
        self._instance_places, self._class_places = map(_places, (self.instances, self.classes))

    def captions(self) -> list[str]:
        """Every caption that can occur, the empty one included."""
        return sorted({"", *(p.caption for p in (*self.instances, *self.classes))})

    def fingerprint(self) -> str:
        """Changes with any latent or caption."""
        digest = hashlib.sha256()
        for picture in (*self.instances, *self.classes):
            digest.update(picture.caption.encode() + b"\0" + picture.latents.tobytes())
        if len(self._instance_places) != len(self.instances):
            digest.update(bytes(str(self._instance_places), "ascii"))
        return digest.hexdigest()

    def batch(self, step: int, micro: int) -> Batch:
        """The micro-th batch of a step. Four batches of one hold what one batch of four holds,
        and so do two of one on each of two ranks."""
        start = (micro * self.ranks + self.rank) * self.batch_size
        numbers = range(start, start + self.batch_size)
        drawn = [self._draw(self._instance_places, step, number, 0) for number in numbers]
        if self.classes:
            drawn += [self._draw(self._class_places, step, number, CLASS) for number in numbers]
        z, noise, t, captions = zip(*drawn, strict=True)
        return Batch(np.stack(z), np.stack(noise), np.array(t), list(captions), self.batch_size)

    def _draw(self, places: list[int], step: int, number: int, tag: int):
        """One picture: latent, noise, timestep, caption."""
        count = step * self.batch_size * self.ranks * self.accumulation + number
        epoch, turn = divmod(count, len(places))  # every place once before any comes again
        order = np.random.default_rng([self.seed, ORDER, tag, epoch]).permutation(len(places))
        pictures = self.classes if tag == CLASS else self.instances
        picture = pictures[places[order[turn]]]
        rng = np.random.default_rng([self.seed, tag, step, number])
        t = int(rng.integers(self.num_timesteps))
        z = picture.latents[rng.integers(len(picture.latents))]
        dropped = rng.random() < self.caption_dropout
        noise = gaussian_from(rng, z.shape)
        if self.offset_noise:
            offset = gaussian_from(rng, (len(z), 1, 1))
            noise = noise + np.float32(self.offset_noise) * offset
        return z, noise, t, "" if dropped else picture.caption


def _places(pictures: list[Picture]) -> list[int]:
    """Numbers of the pictures, each as often as it comes in one round, which is made short."""
    least = gcd(*(picture.repeats for picture in pictures))
    return [i for i, p in enumerate(pictures) for _ in range(p.repeats // least)]
