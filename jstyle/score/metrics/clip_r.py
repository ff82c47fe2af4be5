"""CLIP_R: does CLIP recognise in a picture what was asked for?

A softmax over the cosines of the picture with a fixed list of words and its own label; a hit if
the label is among the five most probable. A softmax keeps the order, so ranks are taken from the
cosines. Words are bare and in lower case, without a template. CLIP_R = hits / all pictures, over
all styles together. The organiser's 215 words are in clip_r_words.txt, one of them twice; they are
facts of the contest, told by public contestants' copies of the checker.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...sd.files import InputError
from ...sd.reading import read_lines
from ..networks.clip import CLIP
from .cosine import unit

log = logging.getLogger("jstyle")

TOP = 5
ORGANISERS_WORDS = 215
SHIPPED = Path(__file__).parent.parent / "clip_r_words.txt"


class WordsError(ValueError):
    """A word list that cannot be used; one line with its path."""


def read_words(path: Path | str) -> tuple[str, ...]:
    """One word or phrase per line -> lower case, trimmed, without empty lines and repetitions."""
    try:
        lines = read_lines(path)
    except InputError as error:
        raise WordsError(f"{error} (a list of words, one per line)") from None
    words = tuple(dict.fromkeys(word for line in lines if (word := line.strip().lower())))
    if len(words) < TOP:  # with fewer every label would be a hit
        raise WordsError(f"{path}: {len(words)} words, at least {TOP} are needed, one per line")
    if len(words) != ORGANISERS_WORDS:
        log.warning(
            "%s: %d words; the organiser's list has %d, so CLIP_R is another measure",
            path, len(words), ORGANISERS_WORDS,
        )  # fmt: skip
    return words


def label_of(prompt: str) -> str:
    """What the checker looks for: the file's name up to its first dot, in lower case.

    A prompt with a dot inside ("St. Bernard") is therefore cut short ("st"), as by the checker.
    """
    return f"{prompt}.png".split(".")[0].lower()


class ClipRecall:
    """Features: (B, 768) float32 image embeddings of openai/clip-vit-large-patch14."""

    name = "clip_r"
    needs = ("clip-vit-large-patch14",)

    def __init__(self, folder: Path | str, words: Sequence[str]):
        """words: what `read_words` returns."""
        self.clip = CLIP.from_folder(folder)
        self.words = tuple(words)
        self._known: dict[str, np.ndarray] = {}

    def features(self, batch: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, 3) RGB -> float32 (B, D)."""
        return self.clip.images(batch)

    def hits(self, features: np.ndarray, labels: Sequence[str]) -> np.ndarray:
        """For pictures (n, D) and their labels: bool (n,)."""
        texts = list(dict.fromkeys([*self.words, *labels]))
        vectors = self._vectors(texts)
        words = vectors[: len(self.words)]
        own = vectors[[texts.index(label) for label in labels]]
        return in_top(features, words, own)

    def _vectors(self, texts: list[str]) -> np.ndarray:
        new = [text for text in texts if text not in self._known]
        if new:
            self._known.update(zip(new, self.clip.texts(new), strict=True))
        return np.stack([self._known[text] for text in texts])


def in_top(images: np.ndarray, words: np.ndarray, labels: np.ndarray, top: int = TOP) -> np.ndarray:
    """bool (n,): fewer than `top` words are nearer to image i than label i is.

    images, labels: (n, D); words: (m, D). A label that is itself among the words is not counted
    against itself: its cosine is not larger than its own.
    """
    images = unit(images)
    own = (images * unit(labels)).sum(1)
    nearer = images @ unit(words).T > own[:, None] + 1e-12  # the same vector, summed otherwise
    return nearer.sum(1) < top


def recall(hits: Sequence[np.ndarray]) -> float:
    """CLIP_R of all styles: the share of hits, each picture counting once."""
    every = np.concatenate([np.asarray(h, bool) for h in hits])
    if not every.size:
        raise ValueError("no pictures to recognise")
    return float(every.mean())
