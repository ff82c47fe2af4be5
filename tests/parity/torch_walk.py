"""DDIM in both directions with guidance, in PyTorch on diffusers' models, for the tests of methods.

Shares nothing with the package. Everything that is not a network runs in float64.
"""

from __future__ import annotations

import math

import numpy as np
import torch


class TorchWalk:
    """pipe: a StableDiffusionPipeline, whose UNet may be changed; scheduler: its JSON, with leading
    timesteps."""

    def __init__(self, pipe, scheduler: dict, steps: int):
        self.pipe, self.unet, self.scheduler, self.steps = pipe, pipe.unet, scheduler, steps
        train = scheduler["num_train_timesteps"]
        lo, hi = math.sqrt(scheduler["beta_start"]), math.sqrt(scheduler["beta_end"])
        beta = torch.linspace(lo, hi, train, dtype=torch.float64).square()
        self.abar = (1 - beta).cumprod(0).tolist()
        self.stride = train // steps
        self.ascending = [i * self.stride + scheduler["steps_offset"] for i in range(steps)]

    def level(self, t):
        return self.abar[t] if t >= 0 else self.abar[0]  # set_alpha_to_one is false in the tests

    def text(self, *prompts):
        ids = self.pipe.tokenizer(list(prompts), padding="max_length", max_length=77)["input_ids"]
        return self.pipe.text_encoder(torch.as_tensor(np.array(ids))).last_hidden_state

    def encode(self, image):
        mean = self.pipe.vae.encode(torch.as_tensor(image)).latent_dist.mean.double()
        return mean * self.pipe.vae.config.scaling_factor

    def decode(self, z):
        image = self.pipe.vae.decode(z.float() / self.pipe.vae.config.scaling_factor).sample
        return image.clamp(-1, 1).numpy()

    def network(self, z, t, context):
        context = context.expand(len(z), -1, -1)
        return self.unet(z.float(), t, encoder_hidden_states=context).sample.double()

    def move(self, z, out, here, there):
        a, s = math.sqrt(here), math.sqrt(1 - here)
        if self.scheduler["prediction_type"] == "v_prediction":
            clean, noise = a * z - s * out, a * out + s * z
        else:
            clean, noise = (z - s * out) / a, out
        return math.sqrt(there) * clean + math.sqrt(1 - there) * noise

    def invert(self, image, prompt=""):
        """{t: latents at the level of t}; the last one is the noise."""
        z, found, context = self.encode(image), {}, self.text(prompt)
        for t in self.ascending:
            here = self.level(t - self.stride)
            z = self.move(z, self.network(z, t, context), here, self.level(t))
            found[t] = z
        return found

    def sample(self, z, predict):
        """predict(z, t) -> the guided answer of the network."""
        for t in reversed(self.ascending):
            z = self.move(z, predict(z, t), self.level(t), self.level(t - self.stride))
        return z


def split_heads(attn, x):
    return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)


def attention(attn, q, k, v, bias=None):
    """Softmax with the logits written out, (B, heads, tokens, dim), and the way out."""
    logits = torch.einsum("bhqd,bhkd->bhqk", q, k) / math.sqrt(q.shape[-1])
    if bias is not None:
        logits = logits + bias
    out = torch.einsum("bhqk,bhkd->bhqd", logits.softmax(-1), v)
    return attn.to_out[0](out.transpose(1, 2).flatten(2))
