"""Where a word of a prompt is in a picture, by the cross-attention to it (arXiv:2304.08465, section
4.2).

The maps are those of a quarter of the latents' side, averaged over heads and over the layers that
have run so far in an evaluation, and scaled to 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .features import FeatureBank, in_window
from .mixing import CLOSED, Sources
from .sd.facts import CONTENT, RESULT, Facts
from .sd.hooks import AttentionCall
from .sd.startup import jt
from .storage import level_of

if TYPE_CHECKING:
    from .sd.tokenizer import Tokenizer

QUARTER = 2  # halvings


def places(tokenizer: Tokenizer, prompt: str, word: str) -> tuple[int, ...]:
    """Places of a word's tokens among those of a prompt. Raises ValueError if it is not there."""
    ids, length = list(tokenizer([prompt])[0]), len(tokenizer.tokens(word))
    wanted = list(tokenizer([word])[0][1 : 1 + length])
    starts = [i for i in range(1, len(ids) - length) if ids[i : i + length] == wanted]
    found = {i + j for i in starts for j in range(length)}
    if not found:
        raise ValueError(f"subject {word!r} is no word of the prompt {prompt!r}")
    return tuple(sorted(found))


def map_sites(unet: jt.nn.Module) -> tuple[str, ...]:
    """The cross-attentions whose maps tell where a word is. Raises ValueError if there is none."""
    levels = len(unet.config.block_out_channels)
    found = [s for s in unet.attention_sites(self_only=False) if s.endswith("attn2")]
    found = [site for site in found if level_of(site, levels) == QUARTER]
    if not found:
        raise ValueError("subject: this model has no cross-attention at a quarter of the latents")
    return tuple(found)


class Shares:
    """A hook around cross-attention: how much of each query's attention goes to a word.

    words: kind of row -> places of the word's tokens, of each picture or of one for all. Of rows
    that guidance leads away from nothing is told. bank: where the shares are recorded as "m".
    """

    def __init__(
        self,
        words: Mapping[str, Sequence[Sequence[int]]],
        window: tuple[int, int] | None,
        bank: FeatureBank | None = None,
    ):
        self.words, self.window, self.bank = words, window, bank
        self.seen: dict[str, jt.Var] = {}  # site -> (rows, tokens), in the evaluation that runs
        self.facts: Facts | None = None

    def __call__(self, call: AttentionCall, q: jt.Var, k: jt.Var, v: jt.Var) -> jt.Var:
        if in_window(call.facts.t, self.window):
            if call.facts is not self.facts:
                self.facts, self.seen = call.facts, {}
            marked = jt.array(self._marks(call.facts, k.shape[1])).expand(*k.shape)
            share = call(q, k, marked)[:, :, :, 0].mean(2)
            self.seen[call.site] = share
            if self.bank is not None:
                self.bank.begin(call.facts.t)
                self.bank["m", call.site, call.facts.t] = share
        return call(q, k, v)

    def _marks(self, facts: Facts, tokens: int) -> np.ndarray:
        """(rows, tokens, 1, 1): 1 at the word's places."""
        marks = np.zeros((len(facts.rows), tokens, 1, 1), np.float32)
        for mark, row in zip(marks, facts.rows, strict=True):
            words = self.words.get(row.kind, self.words.get(CONTENT))
            if row.conditional:
                mark[list(words[row.picture % len(words)])] = 1
        return marks


class Masks:
    """1 where the subject is, 0 elsewhere, in the source and in the results.

    sizes: (height, width) of the latents of the kinds CONTENT and RESULT.
    """

    def __init__(
        self,
        sources: Sources,
        shares: Shares,
        sizes: Mapping[str, Sequence[int]],
        threshold: float,
    ):
        self.sources, self.shares, self.sizes = sources, shares, sizes
        self.threshold = threshold

    def ready(self, facts: Facts) -> bool:
        """Whether a map has been seen in this evaluation."""
        return self.shares.facts is facts and bool(self.shares.seen)

    def attend(self, call: AttentionCall, q: jt.Var, k: jt.Var, v: jt.Var, first: int) -> jt.Var:
        """Queries where the subject is look at keys where it is in the source, the others at the
        others; of the rows before `first` all look at all. Where one kind is not in the source at
        all, its queries look at all of it."""
        source = self._mask(CONTENT, self._source(call.facts, first), k.shape[1])
        inside = self._mask(RESULT, self._result(call.facts, first), q.shape[1])
        inside = inside.reshape(*inside.shape, 1, 1)
        subject = self._only(call, q, k, v, source, first)
        rest = self._only(call, q, k, v, 1.0 - source, first)
        mixed = inside * subject[first:] + (1.0 - inside) * rest[first:]
        return Sources.put(subject, first, mixed)

    def _only(self, call, q, k, v, mask, first):
        bias = CLOSED * (1.0 - mask) * mask.max(1, keepdims=True)
        if first:
            bias = jt.concat([jt.zeros((first, bias.shape[1])), bias])
        return Sources.biased(call, q, k, v, bias)

    def _source(self, facts: Facts, first: int) -> list[jt.Var]:
        of = self.sources.of
        return [of(CONTENT, "m", s, facts, x, first) for s, x in self.shares.seen.items()]

    def _result(self, facts: Facts, first: int) -> list[jt.Var]:
        """Of each row: the map of its picture's row that guidance leads to."""
        kept = {facts.rows[i].picture: i for i in facts.where(RESULT, True)}
        order = [kept[row.picture] for row in facts.rows[first:]]
        return [jt.concat([x[i : i + 1] for i in order]) for x in self.shares.seen.values()]

    def _mask(self, kind: str, maps: Sequence[jt.Var], tokens: int) -> jt.Var:
        """(rows, tokens) of maps (rows, tokens at a quarter), by the nearest place."""
        height, width = self.sizes[kind]
        mean = sum(maps[1:], maps[0]) / len(maps)
        least, most = mean.min(1, keepdims=True), mean.max(1, keepdims=True)
        scaled = (mean - least) / jt.maximum(most - least, 1e-12)
        shrink = math.isqrt(height * width // tokens)
        of_rows = np.arange(height // shrink) * shrink >> QUARTER
        of_columns = np.arange(width // shrink) * shrink >> QUARTER
        nearest = (of_rows[:, None] * (width >> QUARTER) + of_columns).reshape(-1)
        return (scaled[:, jt.array(nearest)] >= self.threshold).float32()
