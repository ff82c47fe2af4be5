"""The three measures of the DreamBooth paper (Ruiz et al., arXiv:2208.12242, section 4).

Subject fidelity: CLIP-I and DINO, the mean cosine between each generated picture and each
reference (`cosine.mean_pairwise`), with CLIP ViT-B/32 and with DINO ViT-S/16. Prompt fidelity:
CLIP-T, the mean cosine between each generated picture and its prompt, with CLIP ViT-B/32.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..networks.clip import CLIP
from .cosine import unit
from .dino import Dino


class ClipImage:
    """CLIP-I. Features: (B, 512) float32 image embeddings."""

    name = "clip_i"
    needs = ("clip-vit-base-patch32",)

    def __init__(self, folder: Path | str):
        self.clip = CLIP.from_folder(folder)

    def features(self, batch: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, 3) RGB -> float32 (B, D)."""
        return self.clip.images(batch)

    def texts(self, prompts: Sequence[str]) -> np.ndarray:
        """float32 (len(prompts), D): the prompts' embeddings, for `text_score`."""
        return self.clip.texts(list(prompts))


class ClipText(ClipImage):
    """CLIP-T: the same network and picture features as CLIP-I."""

    name = "clip_t"


class DinoSubject(Dino):
    """DINO of the DreamBooth paper; features (B, 384) float32, the class token of ViT-S/16."""

    name = "dino_vits16"
    needs = ("dino-vits16",)


def text_score(generated: np.ndarray, texts: np.ndarray) -> float:
    """CLIP-T: row i of `generated` (n, D) with row i of `texts` (n, D)."""
    if len(generated) != len(texts) or not len(texts):
        raise ValueError(f"{len(generated)} pictures but {len(texts)} prompts")
    return float((unit(generated) * unit(texts)).sum(1).mean())
