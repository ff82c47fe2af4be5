"""Prompts -> token ids: a thin wrapper around transformers' CLIPTokenizer.

transformers is imported on first use and needs no PyTorch for this. Padding follows the folder:
Stable Diffusion 1.x pads with `<|endoftext|>`, 2.x with `!` (id 0). As in transformers, the padding
token is a special token, so with a 2.x folder a "!" written in a prompt becomes id 0 too.

A tokenizer.json also holds how its last user called it (padding, truncation, dropout of merges);
that is switched off here. Ids are always padded and cut on the right.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np

logger = logging.getLogger(__name__)

_ADVICE = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
_LONGEST = 10_000  # transformers reports 1e30 where tokenizer_config.json gives no limit


class Tokenizer:
    """Fixed-length ids for the text encoder: start, up to max_length - 2 pieces, end, padding."""

    def __init__(self, clip, own_pad: bool = True):
        """clip: a transformers.CLIPTokenizer. own_pad: its padding token is that of its files.

        Raises ValueError if it has no length limit.
        """
        if not 2 < clip.model_max_length < _LONGEST:
            raise ValueError(
                f"tokenizer_config.json: model_max_length must be in 3..{_LONGEST - 1}, "
                f"got {clip.model_max_length:g}"
            )
        self._clip, self.own_pad = _at_rest(clip), own_pad
        self.max_length = int(clip.model_max_length)
        self.start_id = clip.bos_token_id
        self.end_id = clip.eos_token_id
        self.pad_id = clip.pad_token_id

    @classmethod
    def from_folder(
        cls, path: Path | str, longest: int | None = None, pad_token: str | None = None
    ) -> Tokenizer:
        """Read a tokenizer folder: vocab.json and merges.txt, or a tokenizer.json.

        longest: what the text encoder can take; a folder with a higher limit, or none, gets it.
        pad_token: instead of the folder's own.
        Raises FileNotFoundError naming what is missing, ValueError if a file cannot be understood.
        """
        folder = Path(path)
        _check_files(folder)
        CLIPTokenizer = _import_clip_tokenizer()
        chosen = {} if pad_token is None else {"pad_token": pad_token}
        try:
            clip = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True, **chosen)
        except Exception as error:  # the Rust side raises bare Exception
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"{folder}: not a CLIP tokenizer ({reason})") from error
        if longest is not None and clip.model_max_length > longest:
            logger.warning(
                "%s: model_max_length = %g, but the text encoder takes %d tokens: cut there",
                folder, clip.model_max_length, longest,
            )  # fmt: skip
            clip.model_max_length = longest
        try:
            return cls(clip, pad_token is None)
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from None

    def __call__(self, prompts: list[str]) -> np.ndarray:
        """Ids of every prompt, np.int64 (B, max_length). Longer prompts are cut, with a warning."""
        if isinstance(prompts, str) or not all(isinstance(p, str) for p in prompts):
            raise TypeError(f"prompts must be a list of str, got {prompts!r}")
        ids = np.full((len(prompts), self.max_length), self.pad_id, np.int64)
        for row, prompt in zip(ids, prompts, strict=True):
            pieces = self._fit(self.pieces(prompt))
            row[: len(pieces) + 2] = [self.start_id, *pieces, self.end_id]
        return ids

    def save(self, folder: Path) -> None:
        """Write files that `from_folder` reads back as this tokenizer."""
        self._clip.save_pretrained(str(folder))

    def __len__(self) -> int:
        """Number of tokens, added ones included: the text encoder needs at least as many rows."""
        return len(self._clip)

    @property
    def pad_token(self) -> str:
        """The piece that prompts are filled up with."""
        return self._clip.pad_token

    def tokens(self, prompt: str) -> list[str]:
        """The pieces of a prompt as text, uncut and without start, end and padding."""
        return self._clip.convert_ids_to_tokens(self.pieces(prompt))

    def vocabulary(self) -> dict[str, int]:
        """Piece -> id. Pieces that end a word end in `</w>`."""
        return self._clip.get_vocab()

    def id_of(self, piece: str) -> int | None:
        """None where there is no such piece."""
        return self._clip.backend_tokenizer.token_to_id(piece)

    def pieces(self, prompt: str) -> list[int]:
        """The ids of a prompt, uncut and without start, end and padding."""
        return self._clip.backend_tokenizer.encode(prompt, add_special_tokens=False).ids

    def _fit(self, pieces: list[int]) -> list[int]:
        room = self.max_length - 2
        if len(pieces) > room:
            logger.warning(
                "prompt of %d tokens is longer than %d; left out: %r",
                len(pieces), room, self._clip.decode(pieces[room:]),
            )  # fmt: skip
        return pieces[:room]


def _at_rest(clip):
    """The tokenizer without what earlier calls or its file left switched on."""
    backend = clip.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = False
    backend.model.dropout = None
    return clip


def _check_files(folder: Path) -> None:
    """transformers would make up a three-word vocabulary where files are missing."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder (tokenizer)")
    if (folder / "tokenizer.json").is_file():
        return
    missing = [name for name in ("vocab.json", "merges.txt") if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder}: {' and '.join(missing)} missing (a tokenizer needs vocab.json and "
            "merges.txt, or tokenizer.json)"
        )


def _import_clip_tokenizer():
    with _environment(_ADVICE, "1"):  # no advice about PyTorch being absent
        from transformers import CLIPTokenizer
    return CLIPTokenizer


@contextmanager
def _environment(name: str, value: str):
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
