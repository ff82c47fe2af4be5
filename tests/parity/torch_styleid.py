"""StyleID in PyTorch on diffusers' models, written for the tests from the paper's formulas.

Shares nothing with the package: the noise schedule, both directions of DDIM, AdaIN and the
attention are written out here, and the networks are diffusers' and transformers'. Everything that
is not a network runs in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch


@dataclass
class TorchStyleID:
    """unet: UNet2DConditionModel; vae: AutoencoderKL; text: CLIPTextModel; scheduler: the JSON of
    a diffusers scheduler with leading timesteps; empty_ids: (1, 77) ids of the empty prompt."""

    unet: object
    vae: object
    text: object
    scheduler: dict
    empty_ids: np.ndarray
    steps: int = 50
    gamma: object = 0.75  # number, or (high, low) of a cosine
    tau: float = 1.5
    sites: tuple = ()
    window: tuple = (0, 999)
    use_adain: bool = True
    words: object = None  # (1, 77) ids each of what sampling shows, and leads away from
    guidance: float = 1.0
    queries: dict = field(default_factory=dict)
    keys: dict = field(default_factory=dict)
    values: dict = field(default_factory=dict)

    def __post_init__(self):
        train = self.scheduler["num_train_timesteps"]
        lo, hi = self.scheduler["beta_start"], self.scheduler["beta_end"]
        if self.scheduler["beta_schedule"] == "scaled_linear":
            beta = torch.linspace(math.sqrt(lo), math.sqrt(hi), train, dtype=torch.float64).square()
        else:
            beta = torch.linspace(lo, hi, train, dtype=torch.float64)
        self.abar = (1 - beta).cumprod(0).tolist()
        self.stride = train // self.steps
        offset = self.scheduler["steps_offset"]
        self.ascending = [i * self.stride + offset for i in range(self.steps)]
        self.context = self.text(torch.as_tensor(self.empty_ids)).last_hidden_state
        self.sampled, self.negative = self.context, None
        if self.words is not None:
            ids = [torch.as_tensor(one) for one in self.words]
            self.sampled, self.negative = (self.text(one).last_hidden_state for one in ids)
        self.mode, self.now = None, None
        for site in self.sites:
            self.unet.get_submodule(site).set_processor(_Processor(self, site))

    def level(self, t):
        """abar at t; below the first timestep the one of clean latents."""
        if t >= 0:
            return self.abar[t]
        return 1.0 if self.scheduler["set_alpha_to_one"] else self.abar[0]

    def move(self, z, t, here, there):
        """Evaluate the network on (z, t), read its output at level `here`, go to level `there`."""
        self.now = t
        out = self.predict(z.float(), t).double()
        a, s = math.sqrt(here), math.sqrt(1 - here)
        if self.scheduler["prediction_type"] == "v_prediction":
            clean, noise = a * z - s * out, a * out + s * z
        else:
            clean, noise = (z - s * out) / a, out
        return math.sqrt(there) * clean + math.sqrt(1 - there) * noise

    def predict(self, z, t):
        if self.mode != "mix":
            return self.unet(z, t, encoder_hidden_states=self.context).sample
        toward = self.unet(z, t, encoder_hidden_states=self.sampled).sample
        if self.guidance == 1.0:
            return toward
        away = self.unet(z, t, encoder_hidden_states=self.negative).sample
        return away + self.guidance * (toward - away)

    def invert(self, image, role):
        """Latents after every inversion step, clean to noisy; features recorded for `role`."""
        self.mode = role
        z = self.vae.encode(torch.as_tensor(image)).latent_dist.mean.double()
        z = z * self.vae.config.scaling_factor
        trail = []
        for t in self.ascending:
            z = self.move(z, t, self.level(t - self.stride), self.level(t))
            trail.append(z)
        self.mode = None
        return trail

    def stylize(self, content, style):
        """(image, latents after every sampling step), NumPy in and out; of several styles, all
        tokens are looked at."""
        with torch.no_grad():
            styles = style if isinstance(style, list) else [style]
            z_c = self.invert(content, "content")[-1]
            z_s = torch.cat([self.invert(one, "style")[-1] for one in styles], 3)
            z = statistics_swap(z_c, z_s) if self.use_adain else z_c
            self.mode, trail = "mix", []
            for t in reversed(self.ascending):
                z = self.move(z, t, self.level(t), self.level(t - self.stride))
                trail.append(z.numpy())
            self.mode = None
            image = self.vae.decode(z.float() / self.vae.config.scaling_factor).sample
        return image.clamp(-1, 1).numpy(), trail

    def gamma_now(self):
        if not isinstance(self.gamma, tuple):
            return self.gamma
        high, low = self.gamma
        done = (self.ascending[-1] - self.now) / (self.ascending[-1] - self.ascending[0])
        return low + (high - low) * math.cos(math.pi * done / 2) ** 2

    def features(self, site, q, k, v):
        """Record or replace (B, heads, tokens, head_dim), depending on what is running."""
        key, (lo, hi) = (site, self.now), self.window
        if self.mode == "content":
            self.queries[key] = q
        elif self.mode == "style":
            for found, new in ((self.keys, k), (self.values, v)):
                found[key] = torch.cat([found[key], new], 2) if key in found else new
        elif self.mode == "mix" and lo <= self.now <= hi:
            mix = self.gamma_now() * self.queries[key] + (1 - self.gamma_now()) * q
            return mix, self.keys[key], self.values[key], self.tau
        return q, k, v, 1.0


class _Processor:
    """Self-attention for diffusers' `Attention`, with the logits written out."""

    def __init__(self, method, site):
        self.method, self.site = method, site

    def __call__(self, attn, hidden_states, *args, **kwargs):
        q, k, v = (
            p(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for p in (attn.to_q, attn.to_k, attn.to_v)
        )
        q, k, v, tau = self.method.features(self.site, q, k, v)
        logits = tau * torch.einsum("bhqd,bhkd->bhqk", q, k) / math.sqrt(q.shape[-1])
        out = torch.einsum("bhqk,bhkd->bhqd", logits.softmax(-1), v)
        return attn.to_out[0](out.transpose(1, 2).flatten(2))


def statistics_swap(content, style):
    """AdaIN per image and channel; torch.var is unbiased."""

    def moments(x):
        flat = x.flatten(2)
        var = flat.var(-1, unbiased=True)
        return flat.mean(-1)[..., None, None], (var + 1e-5).sqrt()[..., None, None]

    (mean_c, std_c), (mean_s, std_s) = moments(content), moments(style)
    return (content - mean_c) / std_c * std_s + mean_s
