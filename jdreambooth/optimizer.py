"""AdamW (arXiv:1711.05101) that is right under accumulation, learning rates, gradient norms."""

from __future__ import annotations

import math
from collections.abc import Mapping

from jstyle.sd.startup import jt

BETAS = 0.9, 0.999
EPS = 1e-8


def lr_at(step: int, peak: float, steps: int, schedule: str, warmup: int = 0) -> float:
    """The learning rate of step 0 .. steps - 1.

    It rises linearly to `peak`, reached in step `warmup`, and after that stays ("constant"), or
    falls to 0, which would be reached in step `steps` ("linear", "cosine").
    """
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    done = (step - warmup) / (steps - warmup)
    if schedule == "constant":
        return peak
    return peak * (1.0 - done if schedule == "linear" else 0.5 + 0.5 * math.cos(math.pi * done))


def global_norm(gradients: list[jt.Var]) -> jt.Var:
    """Joint L2 norm, shape (1,). Summed per row, per tensor, then over tensors: one long float32
    sum over a UNet's gradients would be some percent too small."""
    squares = [(g * g).reshape(g.shape[0], -1).sum(1).sum() for g in gradients]
    return jt.sqrt(jt.concat(squares).sum())


def clip_gradients(gradients: list[jt.Var], limit: float) -> jt.Var:
    """Scale the gradients in place so that their joint norm is at most `limit`.

    Returns the norm before. The small constant is torch.nn.utils.clip_grad_norm_'s.
    """
    norm = global_norm(gradients)
    scale = jt.minimum(limit / (norm + 1e-6), jt.array([1.0]))
    for g in gradients:
        g.update(g * scale)
    return norm


class AdamW:
    """Decoupled weight decay, then Adam. Any number of `backward` calls make up one `step`."""

    def __init__(
        self,
        parameters: Mapping[str, jt.Var],
        weight_decay: float = 0.01,
        rates: Mapping[str, float] | None = None,
    ):
        """parameters: by name. rates: factors on the learning rate by name, 1 for the others."""
        self.parameters, self.weight_decay = dict(parameters), weight_decay
        self.rates = {name: (rates or {}).get(name, 1.0) for name in parameters}
        self.m = {n: jt.zeros_like(p).stop_grad() for n, p in parameters.items()}
        self.v = {n: jt.zeros_like(p).stop_grad() for n, p in parameters.items()}
        self.steps_done = 0
        self.gradients: list[jt.Var] = []

    def backward(self, loss: jt.Var) -> None:
        """Add the gradients of `loss`, a scalar that depends on every parameter."""
        new = [g.stop_grad() for g in jt.grad(loss, list(self.parameters.values()))]
        old = self.gradients or new
        self.gradients = new if old is new else [a + b for a, b in zip(old, new, strict=True)]

    def step(self, lr: float) -> None:
        """One update with the gradients added so far, which are then forgotten."""
        self.steps_done += 1
        signal, noise = (1 - beta**self.steps_done for beta in BETAS)
        for (name, p), g in zip(self.parameters.items(), self.gradients, strict=True):
            m, v, rate = self.m[name], self.v[name], lr * self.rates[name]
            m.update(BETAS[0] * m + (1 - BETAS[0]) * g)
            v.update(BETAS[1] * v + (1 - BETAS[1]) * g * g)
            move = m / (jt.sqrt(v) / math.sqrt(noise) + EPS)
            p.update(p * (1 - rate * self.weight_decay) - rate / signal * move)
        self.gradients = []
