"""How a fine-tuned model paints, in a few figures, without any other network. NumPy only.

style         how far the pictures are from the references in colour and texture
nearest,      how near they have come to single training pictures, and
copied        how many are copies of one
diversity     how much the prompt still decides what is painted
recognition   whether the untrained model still sees in them what the prompt asked for
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jstyle.likeness import colours, opponents

COPY = 0.5
SAME = 0.05  # a distance of structures below which nobody would tell two pictures apart
CELLS = 8  # structure is compared on a grid of this many cells a side
OCTAVES = 4
ORIENTATIONS = 4
LOG_FLOOR = 1e-3  # of a contrast in [0, 1]: below a quarter of a grey level, nothing is visible


# ---- structure: where things are and what shape they have, whatever their colour


def structure(latents: np.ndarray) -> np.ndarray:
    """Latents (N, C, h, w) -> (N, D) unit vectors that say what is where, not in which colours.

    Every channel of every picture loses its mean (a colour cast) and is averaged over CELLS x CELLS
    cells (texture goes); the whole then has length 1 (so does contrast).
    """
    cells = _pooled(np.asarray(latents, np.float64), CELLS)
    cells = cells - cells.mean((2, 3), keepdims=True)
    flat = cells.reshape(len(cells), -1)
    return flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-12)


def _pooled(x: np.ndarray, cells: int) -> np.ndarray:
    """(N, C, h, w) -> (N, C, cells, cells): means over cells, as even as the sizes allow."""
    for axis in (2, 3):
        parts = np.array_split(x, min(cells, x.shape[axis]), axis=axis)
        x = np.stack([part.mean(axis) for part in parts], axis=axis)
    return x


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, D), (M, D) unit vectors -> (N, M): 1 - cosine, 0 for the same, about 1 for strangers."""
    return 1.0 - a @ b.T


def to_training(outputs: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Latents (N, C, h, w), (M, C, h, w) -> (N, M) distances of structure; mirrored counts too."""
    theirs = structure(training)
    return np.minimum(
        distances(structure(outputs), theirs), distances(structure(outputs[..., ::-1]), theirs)
    )


def nearest(outputs_to_training: np.ndarray) -> float:
    """(N, M) distances -> the mean distance of an output to its nearest training picture."""
    return float(outputs_to_training.min(1).mean())


def copied(outputs_to_training: np.ndarray) -> float:
    """(N, M) distances -> share of outputs that are copies of one training picture, 0..1.

    A copy is COPY times as far from one training picture as from the others on average, or nearer:
    the relative distance of arXiv:2301.13188, section 5, which forgives pictures that are all alike
    because the style is. nan for a single training picture, where there are no others.
    """
    count = outputs_to_training.shape[1]
    if count < 2:
        return float("nan")
    least = outputs_to_training.min(1)
    others = (outputs_to_training.sum(1) - least) / (count - 1)
    return float((least < COPY * others).mean())


def diversity(latents: np.ndarray) -> float:
    """How much the prompt decides what is where: 0 not at all, about 1 as much as it can.

    latents: (prompts, seeds, C, h, w), at least two of each (else ValueError). The mean distance of
    pictures of different prompts with the same seed, in parts of that with different seeds. Where
    prompts are ignored the same noise gives the same picture; the denominator allows for styles
    in which all pictures are alike. A set in which even that is below SAME has no diversity.
    """
    prompts, seeds = latents.shape[:2]
    if prompts < 2 or seeds < 2:
        raise ValueError(f"diversity needs two prompts and two seeds, got {prompts} and {seeds}")
    flat = structure(latents.reshape(prompts * seeds, *latents.shape[2:]))
    gaps = distances(flat, flat).reshape(prompts, seeds, prompts, seeds)
    other_prompt = ~np.eye(prompts, dtype=bool)[:, None, :, None]
    same_seed = np.eye(seeds, dtype=bool)[None, :, None, :]
    across = gaps[np.broadcast_to(other_prompt & ~same_seed, gaps.shape)].mean()
    if across < SAME:
        return 0.0
    return float(gaps[np.broadcast_to(other_prompt & same_seed, gaps.shape)].mean() / across)


# ---- content: what the untrained model takes the pictures for


class Recognition(NamedTuple):
    """Shares of the pictures: taken for their own prompt, and for a training caption instead."""

    own: float
    training: float


def recognition(errors: np.ndarray, own: np.ndarray) -> Recognition:
    """errors (N, K): how badly each of K texts explains each picture; own (N,): its column.

    The text with the least error is what a picture is taken for, as in arXiv:2303.16203. Columns
    past the largest of `own` are training captions.
    """
    taken = errors.argmin(1)
    return Recognition(float((taken == own).mean()), float((taken > own.max()).mean()))


# ---- style: colour and texture, wherever things are


class Style(NamedTuple):
    """Colour (N, 15): quantiles of brightness and two opponent colours. Texture (N, 20): logarithms
    of contrast per octave, of its burstiness, and of its share in each orientation."""

    colour: np.ndarray
    texture: np.ndarray


class StyleDistance(NamedTuple):
    colour: float
    texture: float


def style(images: np.ndarray) -> Style:
    """Images (N, 3, H, W) in [-1, 1] -> their statistics."""
    planes = opponents(images)
    return Style(colours(planes), _texture(planes))


def _texture(planes: np.ndarray) -> np.ndarray:
    """(N, 3, H, W) -> (N, OCTAVES * 3 + OCTAVES // 2 * ORIENTATIONS) logarithms."""
    parts, level = [], planes
    for octave in range(OCTAVES):
        coarse = _halved(level)
        band = level[..., : 2 * coarse.shape[2], : 2 * coarse.shape[3]] - _doubled(coarse)
        deviation = band.std((2, 3))  # (N, 3)
        mean = np.abs(band[:, 0]).mean((1, 2))
        chroma = np.hypot(deviation[:, 1], deviation[:, 2])
        parts += [_log(deviation[:, 0]), _log(chroma)]
        parts.append(np.log((deviation[:, 0] + LOG_FLOOR) / (mean + LOG_FLOOR)))
        if octave < OCTAVES // 2:
            parts += list(_orientations(level[:, 0]).T)
        level = coarse
    return np.stack(parts, 1)


def _orientations(grey: np.ndarray) -> np.ndarray:
    """(N, H, W) -> (N, ORIENTATIONS): log of each orientation's share of the gradient energy."""
    dy, dx = np.gradient(grey, axis=(1, 2))
    energy = dx**2 + dy**2
    sector = np.floor((np.arctan2(dy, dx) / np.pi * ORIENTATIONS) + 0.5).astype(int) % ORIENTATIONS
    sums = np.stack([(energy * (sector == k)).sum((1, 2)) for k in range(ORIENTATIONS)], 1)
    floor = LOG_FLOOR**2 * grey[0].size
    return np.log((sums + floor) / (sums.sum(1, keepdims=True) + ORIENTATIONS * floor))


def _log(contrast: np.ndarray) -> np.ndarray:
    return np.log(contrast + LOG_FLOOR)


def _halved(x: np.ndarray) -> np.ndarray:
    h, w = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    x = x[..., :h, :w]
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


def _doubled(x: np.ndarray) -> np.ndarray:
    return x.repeat(2, 2).repeat(2, 3)


def style_distance(outputs: Style, references: Style) -> StyleDistance:
    """How far two sets of pictures are apart in colour and in texture; 0 for the same statistics.

    Each is the root of the energy distance (Szekely & Rizzo 2013) between the sets, which, unlike a
    mean distance, is 0 for two sets of one style however much pictures of it vary. Pairs of a
    picture with itself are left out; a small sample may then fall below 0, which counts as 0.
    """
    pairs = zip(outputs, references, strict=True)
    return StyleDistance(*(_energy_distance(a, b) for a, b in pairs))


def _energy_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Rows are samples; distances are root mean squares over the columns."""
    squared = 2 * _gaps(a, b).mean() - _within(a) - _within(b)
    return float(np.sqrt(max(squared, 0.0)))


def _gaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sqrt(((a[:, None] - b[None]) ** 2).mean(2))


def _within(a: np.ndarray) -> float:
    count = len(a)
    return _gaps(a, a).sum() / (count * (count - 1)) if count > 1 else 0.0
