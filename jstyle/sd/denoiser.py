"""The denoiser: everything that turns a noised latent and its timestep into (x0, eps).

It owns the contexts, guidance (arXiv:2207.12598; rescaled: arXiv:2305.08891, section 3.4), the
pictures that are evaluated beside those that are made, and what each row of the batch stands for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import NamedTuple

from .facts import RESULT, Facts, Row, stated
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
    the whole network where it needs z, t and context), or both.
    """

    def context(self, context: jt.Var, facts: Facts) -> jt.Var:
        """The contexts (rows, tokens, dim) of an evaluation, with tokens added."""
        return context

    def hooks(self, unet: jt.nn.Module) -> AbstractContextManager:
        """The hooks that are in place for one evaluation."""
        return nullcontext()


class Denoiser:
    """`denoiser(z, t, abar, position)` -> (x0, eps), both of z's shape (B, C, h, w).

    sd: a StableDiffusion. context, negative_context: (B, tokens, dim), or one row for all. Guidance
    needs a negative context; with guidance 1 or without one, the network runs once per latent.
    guidance: any finite number. rescale: in [0, 1], how far the deviation of the guided output is
    brought back to that of the conditional one, per picture.
    beside: (t, abar) -> what is evaluated beside the pictures, put before them in the batch.
    conditions: what pictures are conditioned on besides their text, the first one innermost.
    """

    def __init__(
        self,
        sd,
        context: jt.Var,
        guidance: float = 1.0,
        negative_context: jt.Var | None = None,
        rescale: float = 0.0,
        beside: Callable[[float, float], Sequence[Beside]] | None = None,
        conditions: Sequence[Condition] = (),
    ):
        check_guidance(guidance, rescale)
        self.unet, self.kind = sd.unet, sd.schedule.kind
        self.guided = guidance != 1.0 and negative_context is not None
        self.guidance, self.rescale = guidance, rescale
        self.contexts = [negative_context, context] if self.guided else [context]
        self.beside = beside or (lambda t, abar: ())
        self.conditions = tuple(conditions)
        self._kept: dict[tuple, jt.Var] = {}

    @property
    def evaluations(self) -> int:
        """How often the network sees a latent for one answer."""
        return len(self.contexts)

    def __call__(
        self, z: jt.Var, t: float, abar: float, position: int = 0
    ) -> tuple[jt.Var, jt.Var]:
        """abar: the noise level at which z stands; position: which step of the walk this is.

        Nothing is waited for. Gradients are switched off by the caller, around the whole step.
        """
        return x0_and_eps(self.out(z, t, position, abar), z, abar, self.kind)

    def out(self, z: jt.Var, t: float, position: int = 0, abar: float = math.nan) -> jt.Var:
        """The network's own answer for (z, t), guided. abar: for what is beside."""
        beside = tuple(self.beside(t, abar))
        inputs = [*(b.z for b in beside), *[z] * len(self.contexts)]
        facts = Facts(t, position, self._rows(beside, z.shape[0]))
        context = self._context(beside, z.shape[0])
        with stated(self.unet, facts), ExitStack() as stack:
            for condition in self.conditions:
                stack.enter_context(condition.hooks(self.unet))
                context = condition.context(context, facts)
            out = self.unet(_joined(inputs), t, context)
        if beside:
            out = out[sum(b.z.shape[0] for b in beside) :]
        return self._guide(*out.chunk(2)) if self.guided else out

    def _guide(self, without: jt.Var, conditional: jt.Var) -> jt.Var:
        out = without + self.guidance * (conditional - without)
        if self.rescale == 0:
            return out
        scaled = out * (_deviation(conditional) / _deviation(out))
        return self.rescale * scaled + (1.0 - self.rescale) * out

    def _rows(self, beside: Sequence[Beside], batch: int) -> tuple[Row, ...]:
        rows = [Row(i, b.conditional, b.kind) for b in beside for i in range(b.z.shape[0])]
        for conditional in (False, True) if self.guided else (True,):
            rows += [Row(i, conditional, RESULT) for i in range(batch)]
        return tuple(rows)

    def _context(self, beside: Sequence[Beside], batch: int) -> jt.Var:
        key = batch, *((b.kind, b.conditional, b.z.shape[0]) for b in beside)
        if key not in self._kept:
            before = [_repeated(b.context, b.z.shape[0]) for b in beside]
            self._kept[key] = _joined([*before, *(_repeated(c, batch) for c in self.contexts)])
        return self._kept[key]


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
