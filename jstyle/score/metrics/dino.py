"""DINO: do the pictures look like the references to DINOv2?

Cosine of the pooled outputs of facebook/dinov2-base, each picture with each reference of its
style: `cosine.mean_pairwise` is the score of a style.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...sd.startup import jt
from ..networks.vit import load_vit
from ..processing import read_processor


class Dino:
    """Features: (B, 768) float32, the normalised first token (transformers' pooler_output)."""

    name = "dino"
    needs = ("dinov2-base",)

    def __init__(self, folder: Path | str, grid_offset: float = 0.0):
        """folder: the network's hub folder. grid_offset: how position embeddings are resampled
        to 16 x 16; 0 as in current transformers, 0.1 as in those of 2024 and before."""
        self.processor = read_processor(folder)
        self.network = load_vit(folder, grid_offset)

    def features(self, batch: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, 3) RGB -> float32 (B, D)."""
        with jt.no_grad():
            return self.network(jt.array(self.processor(batch)))[:, 0].numpy()
