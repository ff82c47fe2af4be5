"""The training loss, a pure function: noise and timesteps come with the batch.

DreamBooth with prior preservation: arXiv:2208.12242, section 3.2. Min-SNR: arXiv:2303.09556.
"""

from __future__ import annotations

import numpy as np

from jstyle.sd.schedule import PredictionType, Schedule, add_noise, target
from jstyle.sd.startup import jt

from .data import Batch


def dreambooth_loss(
    unet: jt.nn.Module,
    batch: Batch,
    context: jt.Var,
    schedule: Schedule,
    prior_weight: float,
    min_snr_gamma: float | None,
) -> tuple[jt.Var, dict[str, jt.Var]]:
    """instance + prior_weight * prior, and these two by name (prior only with class pictures).

    context: (B, tokens, D), a row per picture. Each part is the mean over its pictures of the
    squared error's mean over (C, h, w), weighted by `snr_weights` if min_snr_gamma is given.
    """
    abar = schedule.abar[batch.t].reshape(-1, 1, 1, 1)
    noised = add_noise(batch.z, batch.noise, abar)
    wanted = target(schedule.kind, batch.z, batch.noise, abar)
    out = unet(jt.array(noised), batch.t, context).float32()
    errors = ((out - jt.array(wanted)) ** 2).reshape(out.shape[0], -1).mean(1)
    if min_snr_gamma is not None:
        errors = errors * jt.array(snr_weights(schedule, batch.t, min_snr_gamma))
    parts = {"instance": errors[: batch.instances].mean()}
    if batch.instances == errors.shape[0]:
        return parts["instance"], parts
    parts["prior"] = errors[batch.instances :].mean()
    return parts["instance"] + prior_weight * parts["prior"], parts


def snr_weights(schedule: Schedule, t: np.ndarray, gamma: float) -> np.ndarray:
    """float32 (B,): what makes the loss on x0 weigh min(SNR, gamma), for the model's own target.

    An error of the noise is one of x0 times SNR, an error of the velocity one times SNR + 1.
    At SNR 0 the noise's weight is its limit, 1, and the velocity's is 0.
    """
    abar = schedule.abar[t]
    snr = abar / (1 - abar)
    if schedule.kind is PredictionType.EPSILON:
        return (gamma / np.maximum(snr, gamma)).astype(np.float32)  # min(snr, gamma) / snr
    scale = {PredictionType.V: snr + 1, PredictionType.SAMPLE: 1.0}
    return (np.minimum(snr, gamma) / scale[schedule.kind]).astype(np.float32)
