"""Style injection (arXiv:2312.09008, section 4.1): attention that mixes content and style.

    Q = gamma Q_c + (1 - gamma) Q_cs,     out = softmax(tau Q K_s^T / sqrt(d)) V_s

Q_c are the content's recorded queries, Q_cs those of the picture being sampled, K_s and V_s the
style's recorded keys and values, all of the same site and timestep.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import numpy as np

from .config import parse_gamma
from .features import AnyBank, in_window, timestep
from .sd.facts import Row
from .sd.hooks import AttentionCall
from .sd.startup import jt


class StyleInjector:
    """The hook around attention that is StyleID.

    queries, keys_values: banks holding "q", and "k" and "v"; features (B or 1, tokens, heads,
        head_dim). One image's features serve any number of pictures in a batch.
    gamma: a number in [0, 1], or a function of the timestep. tau: scales the logits.
    window: timesteps (LO, HI) at which to inject, both included; None = all.
    A (site, t) that was not recorded raises KeyError naming the nearest recorded.
    """

    def __init__(
        self,
        queries: AnyBank,
        keys_values: AnyBank,
        gamma: float | Callable[[float], float],
        tau: float,
        window: tuple[int, int] | None = None,
    ):
        self.queries, self.keys_values = queries, keys_values
        self.gamma = gamma if callable(gamma) else lambda t: gamma
        self.tau, self.window = tau, window

    def __call__(self, call: AttentionCall, q: jt.Var, k: jt.Var, v: jt.Var) -> jt.Var:
        t = timestep(call)
        if not in_window(t, self.window):
            return call(q, k, v)
        q_c = of_rows(self.queries["q", call.site, t], call.facts.rows)
        k_s = of_rows(self.keys_values["k", call.site, t], call.facts.rows)
        v_s = of_rows(self.keys_values["v", call.site, t], call.facts.rows)
        return call(*inject(q_c, k_s, v_s, q, self.gamma(t), self.tau))


def of_rows(features: jt.Var, rows: Sequence[Row]) -> jt.Var:
    """Features of each row's picture; those of one picture serve all rows."""
    if features.shape[0] in (1, len(rows)):
        return features
    return jt.concat([features[row.picture : row.picture + 1] for row in rows])


def inject(
    q_c: jt.Var, k_s: jt.Var, v_s: jt.Var, q: jt.Var, gamma: float, tau: float
) -> tuple[jt.Var, jt.Var, jt.Var]:
    """(q, k, v) of the injected attention for the result's queries q (B, tokens, heads, head_dim);
    the content's q_c and the style's k_s and v_s have a batch of B or 1."""
    mixed = tau * (gamma * q_c + (1.0 - gamma) * q)  # tau on the queries is tau on the logits
    return mixed, _to_batch(k_s, q.shape[0]), _to_batch(v_s, q.shape[0])


def _to_batch(x: jt.Var, batch: int) -> jt.Var:
    return x if x.shape[0] == batch else x.expand(batch, *x.shape[1:])


def gamma_at(gamma: float | str, timesteps: Sequence[int] | np.ndarray) -> Callable[[float], float]:
    """The function t -> gamma of a number or of "cosine:HI:LO".

    With u = (t_first - t) / (t_first - t_last) over the descending sampling timesteps,
    gamma(t) = LO + (HI - LO) (1 + cos(pi u)) / 2: HI at t_first, LO at t_last. A window of
    injection does not stretch the curve. With a single timestep it is HI.
    """
    hi, lo = parse_gamma(gamma)
    first, last = int(timesteps[0]), int(timesteps[-1])
    span = max(first - last, 1)
    return lambda t: lo + (hi - lo) * (1.0 + math.cos(math.pi * (first - t) / span)) / 2.0


def resolve_sites(sites: str, valid: Sequence[str]) -> tuple[str, ...]:
    """Names of self-attentions for "all", "decoder:A-B", "decoder:A" or full names,
    comma-separated.

    valid: the model's names in execution order; the result keeps that order, without repeats.
    Decoder indices follow StyleID: the attentions of up_blocks.0, .1, ... are counted through,
    as many per block as the fullest has (three in SD 1.x and 2.x), whether or not a block has
    any; there 3-5 is up_blocks.1, 6-8 up_blocks.2, 9-11 up_blocks.3.
    Raises ValueError that lists the valid names.
    """
    numbered = decoder_indices(valid)
    chosen: set[str] = set()
    for item in sites.split(","):
        match = re.fullmatch(r"decoder:(\d+)(?:-(\d+))?", item)
        if match:
            lo = int(match[1])
            wanted = range(lo, int(match[2] or lo) + 1)
            names = [name for name, index in numbered.items() if index in wanted]
            known = len(wanted) > 0 and set(wanted) <= set(numbered.values())
        elif item == "all":
            names, known = list(valid), True
        else:
            names, known = [item], item in valid
        if not known:
            listing = "\n".join(
                f"  {name}" + (f" (decoder:{numbered[name]})" if name in numbered else "")
                for name in valid
            )
            raise ValueError(f"no attention site {item!r}; valid sites are\n{listing}")
        chosen.update(names)
    return tuple(name for name in valid if name in chosen)


def decoder_indices(valid: Sequence[str]) -> dict[str, int]:
    """{site name: StyleID's decoder index} for the sites of the up blocks."""
    found = {}
    for name in valid:
        match = re.match(r"up_blocks\.(\d+)\.attentions\.(\d+)\.", name)
        if match:
            found[name] = int(match[1]), int(match[2])
    per_block = 1 + max((j for _, j in found.values()), default=0)
    return {name: block * per_block + j for name, (block, j) in found.items()}
