"""Attention of pictures that are made, changed by that of others: arithmetic on rows of a batch.

The rows that a hook changes are always the last ones of a batch: what is evaluated beside stands
first, then what guidance leads away from, then what it leads to. What the others' attention was is
recorded in a bank, or the others are rows of the same batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from .adain import adain
from .features import AnyBank, in_window
from .injection import of_rows
from .sd.denoiser import Condition
from .sd.facts import RESULT, Facts
from .sd.kernels import softmax
from .sd.startup import jt

CLOSED = -1e4  # added to a logit: a key that is not seen
ROWS = 1024  # query rows at a time where the whole matrix of attention is needed


class Sources:
    """Features of pictures that are not made, by their kind, for the rows of those that are.

    banks: kind -> what was recorded; a kind without a bank is evaluated beside the result. dtype:
    to which the features of the latter are rounded as if they had been kept.

    The arithmetic below is reached through it, so that the files of methods start no backbone.
    """

    inside = staticmethod(in_window)

    def __init__(self, banks: Mapping[str, AnyBank], dtype: str = "float32"):
        self.banks, self.dtype = dict(banks), dtype

    def of(self, kind: str, part: str, site: str, facts: Facts, x: jt.Var, first: int) -> jt.Var:
        """The feature for every row from `first` on. x: the same part of the whole batch.

        Raises KeyError naming the nearest recorded feature where a bank does not have it.
        """
        rows = facts.rows[first:]
        if kind in self.banks:
            found = of_rows(self.banks[kind][part, site, facts.t], rows)
        else:
            places = facts.where(kind)
            found = of_rows(self._kept(x[places[0] : places[-1] + 1]), rows)
        return found if found.shape[0] == len(rows) else found.expand(len(rows), *found.shape[1:])

    def _kept(self, x: jt.Var) -> jt.Var:
        return x if self.dtype == "float32" else x.cast(self.dtype).float32()

    @staticmethod
    def first(facts: Facts, conditional: bool | None = None) -> int:
        """The first row that is changed: of the results, or of those that guidance leads to."""
        return facts.where(RESULT, conditional)[0]

    @staticmethod
    def put(x: jt.Var, first: int, rows: jt.Var) -> jt.Var:
        """x with `rows` in place of its own from `first` on."""
        return rows if first == 0 else jt.concat([x[:first], rows])

    @staticmethod
    def blend(weight: float, changed: jt.Var, own: Callable[[], jt.Var]) -> jt.Var:
        """weight changed + (1 - weight) own; with a weight of 1 nothing more is computed."""
        return changed if weight == 1 else weight * changed + (1.0 - weight) * own()

    @staticmethod
    def biased(attend: Callable, q: jt.Var, k: jt.Var, v: jt.Var, bias: jt.Var) -> jt.Var:
        """attend(q, k, v) with bias (B, keys) added to the logits.

        The bias is one more channel of the keys, with ones in the queries: no matrix of logits is
        ever whole.
        """
        scale = q.shape[3] ** -0.5  # by which `attend` multiplies, whatever it is given
        channel = (bias / scale).reshape(*bias.shape, 1, 1).expand(*k.shape[:3], 1)
        q = jt.concat([q, jt.ones((*q.shape[:3], 1))], 3)
        v = jt.concat([v, jt.zeros((*v.shape[:3], 1))], 3)
        return attend(q, jt.concat([k, channel], 3), v)[:, :, :, :-1]

    @staticmethod
    def joined(
        attend: Callable,
        qkv: tuple[jt.Var, jt.Var, jt.Var],
        others: tuple[jt.Var, jt.Var],
        first: int,
        bias: float,
    ) -> jt.Var:
        """Attention over a picture's own keys and values and others', whose logits get a bias.

        others: (k, v) for the rows from `first` on; the rows before look at their own alone.
        """
        (q, k, v), (k_o, v_o) = qkv, others
        shape = first, *k_o.shape[1:]
        k, v = (
            jt.concat([own, x if first == 0 else jt.concat([jt.zeros(shape), x])], 1)
            for own, x in ((k, k_o), (v, v_o))
        )
        if first == 0 and bias == 0:
            return attend(q, k, v)
        added = np.zeros((q.shape[0], k.shape[1]), np.float32)
        added[:, q.shape[1] :] = bias
        added[:first, q.shape[1] :] = CLOSED
        return Sources.biased(attend, q, k, v, jt.array(added))

    @staticmethod
    def contrasted(q: jt.Var, k: jt.Var, v: jt.Var, contrast: float) -> jt.Var:
        """Attention whose weights w are led away from their mean m: clip((w - m) contrast + m, 0,
        1). q, k, v: (B, tokens, heads, head_dim). Weights of a query sum to 1: m is 1 / keys."""
        scale, mean = q.shape[3] ** -0.5, 1.0 / k.shape[1]
        q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
        parts = []
        for i in range(0, q.shape[2], ROWS):
            weights = softmax(jt.matmul(q[:, :, i : i + ROWS] * scale, k.transpose(0, 1, 3, 2)))
            parts.append(jt.matmul(((weights - mean) * contrast + mean).clamp(0.0, 1.0), v))
        return jt.concat(parts, 2).transpose(0, 2, 1, 3)


class Statistics(Condition):
    """After a step the latents get the mean and deviation of others.

    levels: timestep -> latents (B or 1, C, h, w) at the level where the step from there ends;
    steps of other timesteps change nothing. weight: how far the latents go, 0 to 1.
    """

    def __init__(self, levels: Mapping[float, jt.Var], weight: float):
        self.levels, self.weight = levels, weight
        self._last: float | None = None  # the timestep of the last evaluation

    def latents(self, z: jt.Var, t: float) -> jt.Var:
        z, self._last = self.after(z), t
        return z

    def after(self, z: jt.Var) -> jt.Var:
        """z where the last step ended."""
        if self._last not in self.levels:
            return z
        return Sources.blend(self.weight, adain(z, self.levels[self._last]), lambda: z)
