"""Texts with weights -> contexts for the network's cross-attention.

A weight multiplies what the text encoder says of a token; then all of a row's numbers are
multiplied so that their mean is what it was. Where one prompt says several things over the steps,
the mean is that over all stages. Source: stable-diffusion-webui, modules/sd_hijack_clip.py at
00e0938 and modules/sd_emphasis.py ("Original").
"""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm
from typing import TYPE_CHECKING

import numpy as np

from ..startup import jt
from .chunks import Rows, empty_row, rows_of

if TYPE_CHECKING:
    from ..clip import CLIPTextModel
    from ..tokenizer import Tokenizer
    from .schedule import Said

MOST_TURNS = 64  # that a context is said in, so that it is as long as another


def encode(
    text_encoder: CLIPTextModel,
    tokenizer: Tokenizer,
    texts: Sequence[Said],
    counts: Sequence[int] | None = None,
    clip_skip: int = 1,
) -> jt.Var:
    """Contexts (texts, tokens, dim) of what one prompt says, as long as the longest of them needs.

    counts: how many stages say each text (1). Gradients flow through where they are wanted.
    """
    rows = even([rows_of(said, tokenizer) for said in texts], tokenizer)
    shares = np.asarray([1] * len(texts) if counts is None else counts, np.float32)
    shares = shares / shares.sum()
    parts = [
        weighted(text_encoder(one.ids, clip_skip), one.weights, shares) for one in _columns(rows)
    ]
    return parts[0] if len(parts) == 1 else jt.concat(parts, 1)


def even(rows: Sequence[Rows], tokenizer: Tokenizer) -> list[Rows]:
    """Texts with as many rows as the longest has; what is missing are rows of the empty text."""
    most = max(len(one.ids) for one in rows)
    empty = empty_row(tokenizer)
    return [
        Rows(*(np.concatenate([own, *[none] * (most - len(own))]) for own, none in pairs))
        for pairs in (tuple(zip(one, empty, strict=True)) for one in rows)
    ]


def _columns(rows: Sequence[Rows]) -> list[Rows]:
    """The first rows of all texts, the second ones, ..."""
    pairs = (np.stack(arrays, 1) for arrays in zip(*rows, strict=True))
    return [Rows(ids, weights) for ids, weights in zip(*pairs, strict=True)]


def weighted(z: jt.Var, weights: np.ndarray, shares: np.ndarray) -> jt.Var:
    """z (B, tokens, dim) times weights (B, tokens), then times one number that brings the mean
    back. shares: of the B in that mean. Raises ValueError where there is no such number."""
    if (weights == 1).all():
        return z
    changed = z * jt.array(weights[..., None])
    ratio = _mean(z, shares) / _mean(changed, shares)
    if not np.isfinite(ratio.numpy()).all():
        raise ValueError("the weights of a prompt leave no number that brings its mean back")
    return changed * ratio


def _mean(z: jt.Var, shares: np.ndarray) -> jt.Var:
    """Axis by axis: one long sum in float32 would lose digits."""
    return (z.mean(2).mean(1) * jt.array(shares)).sum()


def lengthened(context: jt.Var, tokens: int) -> jt.Var:
    """The context (B, n, dim) with its last token repeated: how parts of AND become equally long.
    Source: stable-diffusion-webui, modules/prompt_parser.py at 0674fab."""
    missing = tokens - context.shape[1]
    if not missing:
        return context
    return jt.concat([context, context[:, -1:].repeat(1, missing, 1)], 1)


def aligned(contexts: Sequence[jt.Var]) -> list[jt.Var]:
    """Contexts (B, n, dim) of different n as one batch needs them: each as a whole several times.

    Attention to a context said twice gives what attention to it gives, so every picture is
    painted as if it had been evaluated alone. Raises ValueError for lengths that never meet.
    """
    lengths = [context.shape[1] for context in contexts]
    tokens = lcm(*lengths)
    if tokens > MOST_TURNS * max(lengths):
        told = " and ".join(map(str, sorted(set(lengths))))
        raise ValueError(f"contexts of {told} tokens cannot be evaluated together")
    return [
        context if length == tokens else context.repeat(1, tokens // length, 1)
        for context, length in zip(contexts, lengths, strict=True)
    ]
