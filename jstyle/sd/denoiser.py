"""The denoiser: everything that turns a noised latent and its timestep into (x0, eps).

It owns the contexts, guidance (arXiv:2207.12598; rescaled: arXiv:2305.08891, section 3.4), the
pictures that are evaluated beside those that are made, and what each row of the batch stands for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import NamedTuple

from .facts import RESULT, Facts, Row, stated
from .prompts.conditioning import Conditioning, Told, as_conditioning
from .prompts.encode import aligned
from .samplers.options import check_guidance
from .schedule import x0_and_eps
from .startup import jt


class Beside(NamedTuple):
    """Pictures that share the batch of an evaluation; what the network says of them is dropped."""

    kind: str  # CONTENT or STYLE, see facts.py
    z: jt.Var  # (n, C, h, w), at the timestep of the evaluation
    context: jt.Var  # (1 or n, tokens, dim)
    conditional: bool = True  # False: beside the rows that guidance leads away from


class Condition:
    """What pictures are conditioned on besides their text: a map, a picture, a pose.

    A condition adds tokens to the contexts, or hooks to the network (residuals, attention, around
    the whole network where it needs z, t and context), or changes the latents, or all of that.
    """

    def latents(self, z: jt.Var, t: float) -> jt.Var:
        """The latents (B, C, h, w) that an evaluation is made for; the step goes on from these."""
        return z

    def context(self, context: jt.Var, facts: Facts) -> jt.Var:
        """The contexts (rows, tokens, dim) of an evaluation, with tokens added."""
        return context

    def hooks(self, unet: jt.nn.Module) -> AbstractContextManager:
        """The hooks that are in place for one evaluation."""
        return nullcontext()


class Denoiser:
    """`denoiser(z, t, abar, position)` -> (x0, eps), both of z's shape (B, C, h, w).

    sd: a StableDiffusion. context, negative_context: (B, tokens, dim), or one row for all, or what
    changes with the steps (prompts/). Guidance needs a negative context; with guidance 1 or
    without one, the network runs once per latent. Prompts joined by AND are always guided: their
    directions add up with their weights (arXiv:2206.01714).
    guidance: any finite number. rescale: in [0, 1], how far the deviation of the guided output is
    brought back to that of the conditional one, per picture.
    beside: (t, abar) -> what is evaluated beside the pictures, put before them in the batch.
    conditions: what pictures are conditioned on besides their text, the first one innermost.
    """

    def __init__(
        self,
        sd,
        context: jt.Var | Conditioning,
        guidance: float = 1.0,
        negative_context: jt.Var | Conditioning | None = None,
        rescale: float = 0.0,
        beside: Callable[[float, float], Sequence[Beside]] | None = None,
        conditions: Sequence[Condition] = (),
    ):
        check_guidance(guidance, rescale)
        self.unet, self.kind = sd.unet, sd.schedule.kind
        self.text = as_conditioning(context)
        if self.text.composed and negative_context is None:
            raise ValueError("prompts with AND or a weight need a negative context")
        self.guided = self.text.composed or guidance != 1.0 and negative_context is not None
        self.guidance, self.rescale = guidance, rescale
        self.texts = [as_conditioning(negative_context)] if self.guided else []
        self.texts.append(self.text)
        self.beside = beside or (lambda t, abar: ())
        self.conditions = tuple(conditions)
        self._kept: dict[Hashable, jt.Var] = {}

    def __call__(
        self, z: jt.Var, t: float, abar: float, position: int = 0
    ) -> tuple[jt.Var, jt.Var]:
        """abar: the noise level at which z stands; position: which step of the walk this is.

        Nothing is waited for. Gradients are switched off by the caller, around the whole step.
        """
        for condition in self.conditions:
            z = condition.latents(z, t)
        return x0_and_eps(self.out(z, t, position, abar), z, abar, self.kind)

    def out(self, z: jt.Var, t: float, position: int = 0, abar: float = math.nan) -> jt.Var:
        """The network's own answer for (z, t), guided. abar: for what is beside."""
        beside, batch = tuple(self.beside(t, abar)), z.shape[0]
        told = [text.at(position).spread(batch) for text in self.texts]
        inputs = [*(b.z for b in beside), *(_latents(z, one) for one in told)]
        facts = Facts(t, position, self._rows(beside, told, batch))
        context = self._context(beside, told, batch, [text.key(position) for text in self.texts])
        with stated(self.unet, facts), ExitStack() as stack:
            for condition in self.conditions:
                stack.enter_context(condition.hooks(self.unet))
                context = condition.context(context, facts)
            out = self.unet(_joined(inputs), t, context)
        if beside:
            out = out[sum(b.z.shape[0] for b in beside) :]
        return self._guide(out[:batch], _composed(out, told[-1], batch)) if self.guided else out

    def _guide(self, without: jt.Var, conditional: jt.Var) -> jt.Var:
        out = without + self.guidance * (conditional - without)
        if self.rescale == 0:
            return out
        scaled = out * (_deviation(conditional) / _deviation(out))
        return self.rescale * scaled + (1.0 - self.rescale) * out

    def _rows(self, beside: Sequence[Beside], told: Sequence[Told], batch: int) -> tuple[Row, ...]:
        rows = [Row(i, b.conditional, b.kind) for b in beside for i in range(b.z.shape[0])]
        for conditional, one in zip((False, True)[-len(told) :], told, strict=True):
            rows += [Row(i, conditional, RESULT) for i in one.pictures or range(batch)]
        return tuple(rows)

    def _context(
        self, beside: Sequence[Beside], told: Sequence[Told], batch: int, keys: Sequence[Hashable]
    ) -> jt.Var:
        """keys: which texts these are."""
        there = tuple((b.kind, b.conditional, b.z.shape[0]) for b in beside)
        key = (batch, there, *keys)
        if key not in self._kept:
            parts = [_repeated(b.context, b.z.shape[0]) for b in beside]
            for one in told:
                parts.append(one.context if one.pictures else _repeated(one.context, batch))
            self._kept[key] = _joined(aligned(parts))
        return self._kept[key]


def _latents(z: jt.Var, told: Told) -> jt.Var:
    """z (B, C, h, w), a row for each row of the text."""
    if told.pictures is None or told.pictures == tuple(range(z.shape[0])):
        return z
    return jt.concat([z[i : i + 1] for i in told.pictures])


def _composed(out: jt.Var, told: Told, batch: int) -> jt.Var:
    """What the conditional rows say together, in the place of one: rows of out, of which the first
    `batch` are unconditional -> (B, C, h, w)."""
    without, rows = out[:batch], out[batch:]
    if told.pictures is None:
        return rows
    parts = [without[i : i + 1] for i in range(batch)]
    for row, (i, weight) in enumerate(zip(told.pictures, told.weights, strict=True)):
        parts[i] = parts[i] + weight * (rows[row : row + 1] - without[i : i + 1])
    return _joined(parts)


def _joined(parts: list[jt.Var]) -> jt.Var:
    return parts[0] if len(parts) == 1 else jt.concat(parts)


def _repeated(context: jt.Var, batch: int) -> jt.Var:
    if context.shape[0] not in (1, batch):
        raise ValueError(f"{context.shape[0]} contexts for {batch} latents; give 1 or {batch}")
    return context if context.shape[0] == batch else context.repeat(batch, 1, 1)


def _deviation(x: jt.Var) -> jt.Var:
    """Deviation over everything but the batch, unbiased, (B, 1, 1, 1)."""
    flat = x.reshape(x.shape[0], -1)
    centred = flat - flat.mean(1, keepdims=True)
    variance = (centred * centred).sum(1) / (flat.shape[1] - 1)
    return jt.sqrt(variance).reshape(-1, 1, 1, 1)
