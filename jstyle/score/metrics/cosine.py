"""Cosines between feature vectors, in float64 on the host."""

from __future__ import annotations

import numpy as np

EPS = 1e-8  # lengths below this count as this, as in torch.nn.functional.cosine_similarity


def unit(features: np.ndarray) -> np.ndarray:
    """(n, D) -> the same directions with length 1, float64."""
    features = np.asarray(features, np.float64)
    return features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), EPS)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, D) and (m, D) -> (n, m): each row of a with each row of b."""
    return unit(a) @ unit(b).T


def mean_pairwise(generated: np.ndarray, references: np.ndarray) -> float:
    """The mean cosine of each generated picture with each reference.

    Every picture meets every reference, so the mean over references and then pictures is the
    mean over all pairs. Raises ValueError if one side is empty.
    """
    if not len(generated) or not len(references):
        raise ValueError(f"{len(generated)} pictures and {len(references)} references to compare")
    return float(cosines(generated, references).mean())
