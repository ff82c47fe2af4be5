"""Which style is the most like a content, in the eyes of the model itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..sd.hooks import around_residuals
from ..sd.noise import gaussian
from ..sd.schedule import add_noise
from ..sd.startup import jt

if TYPE_CHECKING:
    from ..sd.pipeline import StableDiffusion

LEVEL = 261  # timestep: at this one features say best what is where (arXiv:2306.03881, section 5)


def features(sd: StableDiffusion, picture: np.ndarray) -> np.ndarray:
    """What the middle of the UNet makes of a noised picture (1, 3, H, W), float64 (C,): the mean
    over space, for the empty prompt and the noise of seed 0."""
    found = []

    def kept(call, skips, x):
        found.append(x.numpy())
        return call(skips, x)

    with jt.no_grad(), around_residuals(sd.unet, kept):
        z = sd.encode_image(jt.array(picture))
        noise = jt.array(gaussian(z.shape[1:], 0)).unsqueeze(0)
        sd.unet(add_noise(z, noise, sd.schedule.abar_at(LEVEL)), LEVEL, sd.encode_text([""]))
    return found[0].astype(np.float64).mean((0, 2, 3))


def nearest(one: np.ndarray, others: Sequence[np.ndarray]) -> int:
    """Which of the others points the most in the direction of `one`, from their common mean."""
    everything = np.stack([one, *others])
    away = everything - everything.mean(0)
    away /= np.linalg.norm(away, axis=1, keepdims=True) + 1e-12
    return int((away[1:] @ away[0]).argmax())
