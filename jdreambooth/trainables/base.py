"""What a trainable is."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

if TYPE_CHECKING:
    from jstyle.sd.pipeline import StableDiffusion
    from jstyle.sd.prompts.chunks import Rows
    from jstyle.sd.startup import jt

    from ..config import TrainConfig

log = logging.getLogger("jdreambooth")


class Trainable:
    """What is trained of one model, from `__init__` until `remove`.

    parameters: name, such as "unet.conv_in.weight" -> Var; all else of the model is frozen.
    A result is a folder of its own: `save` writes it, `put_on` brings it back onto a plain model
    and `take_off` undoes that to the byte. With whole_model, a result is a model of its own.
    """

    whole_model: ClassVar[bool] = False

    def __init__(self, sd: StableDiffusion, cfg: TrainConfig):
        """Freeze the model but for what is trained. Raises ValueError if there is nothing."""
        self.sd, self.cfg = sd, cfg
        for module in (sd.unet, sd.text_encoder, sd.vae):
            for parameter in module.parameters():
                parameter.stop_grad()
        self.parameters: dict[str, jt.Var] = self.choose()
        if not self.parameters:
            raise ValueError(f"train = {cfg.train!r}: the model has nothing of the kind to train")
        for parameter in self.parameters.values():
            parameter.start_grad()
        self.rows: dict[str, Rows] = {}
        self.contexts: dict[str, np.ndarray] = {}
        names, total = list(self.parameters), count(self.parameters)
        log.info(
            "training %d tensors, %d parameters: %s ... %s", len(names), total, names[0], names[-1]
        )

    def choose(self) -> dict[str, jt.Var]:
        """Add to the model what is trained, and give it by name."""
        raise NotImplementedError

    def remove(self) -> None:
        """Take off the model what `choose` has added."""

    @property
    def trains_text(self) -> bool:
        """Whether contexts change while it is trained."""
        return self.cfg.train_text_encoder

    def know(self, captions: Sequence[str]) -> None:
        """Prepare for captions, once: token ids where contexts change in training, else contexts
        (tokens, D)."""
        from jstyle.sd.prompts.captions import caption_rows, encode_captions
        from jstyle.sd.startup import jt

        sd, cfg = self.sd, self.cfg
        self.rows = {text: caption_rows(text, sd.tokenizer, cfg.syntax) for text in captions}
        if not self.trains_text:
            with jt.no_grad():
                self.contexts = {
                    text: encode_captions(sd.text_encoder, [rows], cfg.clip_skip).numpy()[0]
                    for text, rows in self.rows.items()
                }

    def context(self, captions: Sequence[str]) -> jt.Var:
        """(B, tokens, D) of known captions, through which gradients flow where they should."""
        from jstyle.sd.prompts.captions import encode_captions
        from jstyle.sd.prompts.encode import aligned
        from jstyle.sd.startup import jt

        if self.trains_text:
            rows = [self.rows[text] for text in captions]
            return encode_captions(self.sd.text_encoder, rows, self.cfg.clip_skip)
        contexts = [self.contexts[text] for text in captions]
        if len({len(context) for context in contexts}) == 1:
            return jt.array(np.stack(contexts))
        return jt.concat(aligned([jt.array(context[None]) for context in contexts]))

    def save(self, folder: Path, about: Mapping[str, str]) -> None:
        """Write the result into an existing folder. about: facts for its metadata."""
        raise NotImplementedError

    @classmethod
    def put_on(cls, sd: StableDiffusion, folder: Path, weight: float = 1.0) -> None:
        """Bring a result onto a plain model. weight: scales the change."""
        raise NotImplementedError

    @classmethod
    def take_off(cls, sd: StableDiffusion) -> None:
        """Undo `put_on`, and what a training has left on the model."""
        raise NotImplementedError

    @classmethod
    def merge(cls, sd: StableDiffusion) -> None:
        """Make what `put_on` has added a part of the model's own weights."""
        raise NotImplementedError

    @classmethod
    def export(cls, sd: StableDiffusion, folder: Path, path: Path, format: str, dtype: str) -> None:
        """Write a result as one file of another program's format."""
        raise NotImplementedError


def count(parameters: Mapping[str, jt.Var]) -> int:
    """How many numbers they hold together."""
    return sum(parameter.numel() for parameter in parameters.values())


def fill(parameter: jt.Var, values: np.ndarray) -> None:
    """Give a trained parameter these values; it stays trained."""
    from jstyle.sd.startup import jt

    parameter.update(jt.array(np.asarray(values, np.float32)))
    parameter.start_grad()  # an update can hand down its source's flag


def values_of(parameters: Mapping[str, jt.Var]) -> dict[str, np.ndarray]:
    return {name: parameter.numpy() for name, parameter in parameters.items()}
