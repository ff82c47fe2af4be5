"""Captions: texts that stay the same for all steps, for training and for asking what pictures show.
Gradients flow through them into the text encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..startup import jt
from .chunks import Rows, rows_of
from .encode import aligned, weighted
from .parse import PLAIN, parse_caption
from .schedule import said_at

if TYPE_CHECKING:
    from ..clip import CLIPTextModel
    from ..tokenizer import Tokenizer

ALONE = np.ones(1, np.float32)  # a row's share of the mean that its weights keep


def caption_rows(text: str, tokenizer: Tokenizer, syntax: str | None = PLAIN) -> Rows:
    """Token ids and weights of a caption. Raises PromptError for what no caption can have."""
    if syntax in (None, PLAIN):
        ids = tokenizer([text])
        return Rows(ids, np.ones(ids.shape, np.float32))
    return rows_of(said_at(parse_caption(text).items, 1, 1), tokenizer)


def encode_captions(
    text_encoder: CLIPTextModel, captions: Sequence[Rows], clip_skip: int = 1
) -> jt.Var:
    """Contexts (captions, tokens, dim), the shorter ones said several times, see `aligned`."""
    z = text_encoder(np.concatenate([rows.ids for rows in captions]), clip_skip)
    if all(len(rows.ids) == 1 and (rows.weights == 1).all() for rows in captions):
        return z
    contexts, first = [], 0
    for rows in captions:
        last = first + len(rows.ids)
        parts = [
            weighted(z[i : i + 1], weights[None], ALONE)
            for i, weights in zip(range(first, last), rows.weights, strict=True)
        ]
        contexts.append(parts[0] if len(parts) == 1 else jt.concat(parts, 1))
        first = last
    return jt.concat(aligned(contexts)) if len(contexts) > 1 else contexts[0]
