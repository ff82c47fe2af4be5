"""Rare identifiers: words that a model reads as one token and hardly knows.

A new style is bound to such a word ("a cup in sks style"), as in DreamBooth (arXiv:2208.12242,
section 3.2), so that little of what the model has learned is in the way.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from jstyle.sd import hub
from jstyle.sd.limits import require_whole
from jstyle.sd.tokenizer import Tokenizer

MOST = 100_000  # twice the vocabulary of CLIP
WORD = re.compile(r"([bcdfghjklmnpqrstvwxz]{3,4})</w>")  # without a vowel: hardly ever a real word


class Identifier(NamedTuple):
    word: str
    token: int


def rare_identifiers(tokenizer: Tokenizer, count: int) -> list[Identifier]:
    """The `count` rarest words of three or four consonants that are one token each.

    The pieces of a byte-pair vocabulary are numbered in the order in which they were found most
    frequent, so the rarest have the highest ids; they come first. Fewer than `count` if the
    vocabulary has no more. Raises ValueError for a count below 1.
    """
    require_whole("count", count, 1, MOST)
    pieces = sorted(tokenizer.vocabulary().items(), key=lambda item: -item[1])
    found = []
    for piece, token in pieces:
        match = WORD.fullmatch(piece)
        if match and tokenizer.tokens(match[1]) == [piece]:
            found.append(Identifier(match[1], token))
            if len(found) == count:
                break
    return found


def find_identifiers(
    model: str = "tiny", count: int = 20, tokenizer: str | None = None
) -> list[Identifier]:
    """`rare_identifiers` of a model's own tokenizer, which is given for a model in one file.

    Raises HubError if there is no such model.
    """
    folder = hub.tokenizer_folder(hub.Source(model, tokenizer=tokenizer))
    return rare_identifiers(Tokenizer.from_folder(folder), count)
