"""CLIP-IQA: does CLIP find "Good photo." nearer to a picture than "Bad photo."?

A softmax over a hundred times the two cosines. The picture is read at its own size, without
position embeddings.
Source: Wang et al., arXiv:2207.12396; details as in torchmetrics 1.8 with its default network.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...sd.startup import jt
from ...sd.torch_zip import read_tensors
from ..networks.clip_resnet import load_clip_resnet
from .cosine import unit

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of CLIP's training pictures in [0, 1]
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
# "Good photo." and "Bad photo." in CLIP's vocabulary: start, word, photo, full stop, end
PROMPTS = np.array([[49406, 886, 1125, 269, 49407], [49406, 2103, 1125, 269, 49407]])
LOGIT_SCALE = 100.0


def unscaled_pixels(batch: np.ndarray) -> np.ndarray:
    """The organiser's checker hands over 0..255 where 0..1 is expected; float32."""
    return batch.astype(np.float32)


def scaled_pixels(batch: np.ndarray) -> np.ndarray:
    """What CLIP was trained on: 0..1; float32."""
    return batch.astype(np.float32) / 255


class ClipIqa:
    """Features: (B, 1024) float32 image embeddings of CLIP RN50.

    corrected: pixels scaled as CLIP expects, instead of as the checker does.
    """

    name = "clip_iqa"
    needs = ("clip-rn50",)

    def __init__(self, weights: Path | str, corrected: bool = False):
        self.network = load_clip_resnet(read_tensors(weights), weights)
        self._pixels = scaled_pixels if corrected else unscaled_pixels
        with jt.no_grad():
            self.anchors = self.network.encode_text(PROMPTS).numpy()

    def features(self, batch: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, 3) RGB -> float32 (B, D)."""
        x = (self._pixels(batch) - np.asarray(MEAN, np.float32)) / np.asarray(DEVIATION, np.float32)
        with jt.no_grad():
            pixels = jt.array(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
            return self.network.encode_image(pixels).numpy()

    def quality(self, features: np.ndarray) -> np.ndarray:
        """(n, D) -> float64 (n,), 0 to 1, higher is better."""
        return quality(features, self.anchors)


def quality(features: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """The softmax's first entry. features: (n, D); anchors: (2, D), the good one first."""
    good, bad = (LOGIT_SCALE * unit(features) @ unit(anchors).T).T
    return 1 / (1 + np.exp(np.clip(bad - good, -700, 700)))
