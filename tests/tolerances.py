"""Every numerical tolerance of the suite, in one place.

A row holds what was measured (the largest error over the cases of the test) and on which day. The
limit is three times that value, but not below 1e-6: less is float32 rounding. Errors are relative
L2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Measured(NamedTuple):
    error: float
    date: str

    @property
    def limit(self) -> float:
        return max(3 * self.error, 1e-6)


TOLERANCES = {
    "real_size.unet": Measured(2.8e-6, "2026-11-20"),
    "real_size.vae_encode": Measured(3.2e-6, "2026-11-20"),
    "real_size.vae_decode": Measured(5.8e-6, "2026-11-20"),
    "real_size.text_encoder": Measured(9.4e-7, "2026-11-20"),
    "kernel.convolve": Measured(1.2e-6, "2026-11-20"),
    "kernel.winograd": Measured(7.0e-7, "2026-11-25"),
    "kernel.twin": Measured(3.0e-7, "2026-11-20"),
    "kernel.norm_mean_1000": Measured(8.8e-5, "2026-11-20"),
    "kernel.half": Measured(2.2e-4, "2026-11-20"),
    "kernel.torch": Measured(3.0e-7, "2026-11-20"),
    "kernel.torch_gradient": Measured(3.0e-7, "2026-11-20"),
    "unet.timestep_features": Measured(4.0e-6, "2026-11-20"),
    "unet.resnet": Measured(3.0e-7, "2026-11-20"),
    "unet.transformer": Measured(3.0e-7, "2026-11-20"),
    "unet": Measured(1.3e-6, "2026-11-20"),
    "unet.gradient": Measured(2.5e-6, "2026-11-20"),
    "vae.encode": Measured(3.0e-7, "2026-11-20"),
    "vae.decode": Measured(1.1e-6, "2026-11-20"),
    "vae.gradient": Measured(4.1e-6, "2026-11-20"),
    "schedule.abar": Measured(3.9e-7, "2026-11-20"),
    "schedule.add_noise": Measured(2.0e-7, "2026-11-20"),
    "schedule.invert_and_back": Measured(1.3e-7, "2026-11-20"),
    "schedule.kinds_agree": Measured(1.2e-7, "2026-11-20"),
    "schedule.step.epsilon": Measured(4.6e-7, "2026-11-20"),
    "schedule.step.float64_table": Measured(0.0e00, "2026-11-20"),
    # looser: at t = 1 diffusers divides by sqrt(1 - abar) taken in float32
    "schedule.step.sample": Measured(1.4e-5, "2026-11-20"),
    "schedule.step.v_prediction": Measured(3.9e-7, "2026-11-20"),
    "schedule.var_is_array": Measured(5.6e-8, "2026-11-20"),
    "schedule.x0_eps_roundtrip": Measured(7.6e-7, "2026-11-20"),
    "pipeline context": Measured(2.2e-7, "2026-11-20"),
    "pipeline latents of an image": Measured(8.9e-7, "2026-11-20"),
    "pipeline image of latents": Measured(2.5e-6, "2026-11-20"),
    "pipeline latents after 4 steps": Measured(3.7e-6, "2026-11-20"),
    "pipeline image after 4 steps": Measured(4.7e-6, "2026-11-20"),
    "pipeline image with its own sampler": Measured(2.3e-6, "2026-11-28"),
    "prompts.context": Measured(3.9e-7, "2026-11-28"),
    "prompts.composed": Measured(2.4e-6, "2026-11-28"),
    "saved unet": Measured(1.1e-6, "2026-11-20"),
    "text_encoder.sd1": Measured(6.4e-7, "2026-11-20"),
    "text_encoder.sd2": Measured(5.7e-7, "2026-11-20"),
    "text_encoder.gradient": Measured(3.6e-6, "2026-11-20"),
    "lora.unet": Measured(2.2e-6, "2026-11-20"),
    "lora.text_encoder": Measured(2.6e-7, "2026-11-20"),
    "lora.gradient": Measured(4.1e-6, "2026-11-20"),
    "benchmark works": Measured(2.1e-6, "2026-11-20"),
    "lora.merged": Measured(1.3e-6, "2026-11-20"),
    "single file picture": Measured(2.4e-6, "2026-11-28"),
    "image to image": Measured(2.1e-6, "2026-11-20"),
    "golden": Measured(3.8e-7, "2026-11-20"),
    "adain": Measured(1.5e-7, "2026-11-20"),
    "method from noise": Measured(1.5e-6, "2026-11-28"),
    "method from a content": Measured(2.2e-5, "2026-11-28"),
    "method in a batch": Measured(5.1e-6, "2026-11-28"),
    "styleid.half_features": Measured(1.9e-4, "2026-11-20"),
    "styleid.batch": Measured(8.5e-6, "2026-11-20"),
    "styleid.v_and_epsilon": Measured(3.0e-6, "2026-11-20"),
    "styleid.latent_first_step": Measured(2.7e-6, "2026-11-20"),
    "styleid.latent_50_steps": Measured(8.9e-6, "2026-11-20"),
    "styleid.image_50_steps": Measured(1.0e-5, "2026-11-20"),
    "styleid.latent_10_steps": Measured(2.2e-5, "2026-11-20"),
    "styleid.image_10_steps": Measured(2.4e-5, "2026-11-20"),
    "styleid.inverted_latent": Measured(2.1e-6, "2026-11-20"),
    "styleid.features": Measured(7.6e-6, "2026-11-20"),
    "sources.masactrl": Measured(1.5e-5, "2026-11-28"),
    "sources.cross_image": Measured(8.4e-5, "2026-11-28"),
    "sources.appearance_encoder": Measured(1.5e-5, "2026-11-28"),
    "sources.plug_and_play": Measured(1.5e-5, "2026-11-28"),
    "train.accumulation": Measured(1.4e-6, "2026-11-20"),
    "train.accumulation_m": Measured(4.2e-5, "2026-11-20"),
    "train.adamw": Measured(1.0e-7, "2026-11-20"),
    "train.gradient_norm": Measured(9.0e-6, "2026-11-20"),
    "train.half": Measured(4.8e-4, "2026-11-20"),
    "train.loss": Measured(5.1e-6, "2026-11-20"),
    "train.ranks_m": Measured(1.3e-5, "2026-11-20"),
    "train.ranks_value": Measured(1.3e-4, "2026-11-20"),
    "train.tensors": Measured(6.5e-5, "2026-11-20"),
    "train.checkpointing": Measured(1.0e-7, "2026-11-20"),
    "sampler.ddim": Measured(4.7e-07, "2026-11-28"),
    "sampler.ddpm": Measured(8.5e-07, "2026-11-28"),
    "sampler.pndm": Measured(8.3e-07, "2026-11-28"),
    "sampler.euler": Measured(1.1e-06, "2026-11-28"),
    "sampler.euler-a": Measured(7.9e-07, "2026-11-28"),
    "sampler.heun": Measured(1.6e-06, "2026-11-28"),
    "sampler.lms": Measured(2.2e-06, "2026-11-28"),
    "sampler.dpm2": Measured(1.2e-06, "2026-11-28"),
    "sampler.dpm2-a": Measured(5.7e-06, "2026-11-28"),
    "sampler.dpm++2m": Measured(2.9e-06, "2026-11-28"),
    "sampler.dpm++2m-sde": Measured(4.5e-06, "2026-11-28"),
    "sampler.dpm++sde": Measured(3.0e-06, "2026-11-28"),
    "sampler.unipc": Measured(3.0e-06, "2026-11-28"),
    "sampler.lcm": Measured(1.0e-06, "2026-11-28"),
    # diffusers divides by a sigma of 4096 in float32
    "sampler.zero_snr": Measured(1.7e-05, "2026-11-28"),
    "sampler.unet": Measured(1.4e-06, "2026-11-28"),
    "sampler.eta_is_ddpm": Measured(1.1e-07, "2026-11-28"),
    "sampler.2s": Measured(1.2e-07, "2026-11-28"),
    "sampler.adaptive": Measured(3.8e-07, "2026-11-28"),
    "score.vit": Measured(4.0e-7, "2026-11-20"),
    # looser: torch computes the places in float32, we in float64
    "score.positions": Measured(1.6e-6, "2026-11-20"),
    "score.clip": Measured(7.0e-7, "2026-11-20"),
    "score.lpips": Measured(4.3e-7, "2026-11-20"),
    "score.vgg": Measured(5.2e-7, "2026-11-20"),
    # of a divergence of 1e-3, whose float32 logits are 1; PyTorch's own float32: 3.6e-3
    "score.cfsd": Measured(2.0e-5, "2026-11-20"),
    "score.inception": Measured(1.1e-6, "2026-11-20"),
    "score.resize_tensorflow": Measured(5.8e-6, "2026-11-20"),
    "score.resize_antialiased": Measured(2.5e-6, "2026-11-20"),
    "score.artfid": Measured(2.5e-5, "2026-11-20"),
    "score.frechet": Measured(2.4e-8, "2026-11-20"),
    "score.clip_rn50": Measured(2.5e-6, "2026-11-20"),
    # a softmax over a hundred times the cosines
    "score.clip_iqa": Measured(4.8e-5, "2026-11-20"),
    # the emulated CUDA device against the CPU; half: against the CPU's float32
    "cuda.text": Measured(2.4e-7, "2026-11-28"),
    "cuda.unet": Measured(1.1e-6, "2026-11-28"),
    "cuda.gradient": Measured(1.1e-6, "2026-11-28"),
    "cuda.encode": Measured(2.8e-6, "2026-11-28"),
    "cuda.decode": Measured(9.5e-6, "2026-11-28"),
    "cuda.half": Measured(2.6e-3, "2026-11-28"),
    "cuda.style": Measured(9.8e-6, "2026-11-28"),
    "cuda.float32.loss": Measured(6.3e-7, "2026-11-28"),
    "cuda.float32.grad_norm": Measured(2.3e-6, "2026-11-28"),
    "cuda.float32.tensors": Measured(5.6e-5, "2026-11-28"),
    "cuda.float16.loss": Measured(6.8e-4, "2026-11-28"),
    "cuda.float16.grad_norm": Measured(3.3e-3, "2026-11-28"),
    "cuda.float16.tensors": Measured(5.3e-3, "2026-11-28"),
    "cuda.score": Measured(1.5e-6, "2026-11-28"),
    "cuda.judges": Measured(4.9e-7, "2026-11-28"),
    "cuda.sampler": Measured(1e-5, "2026-11-28"),
    "cuda.block": Measured(1.2e-3, "2026-11-28"),
}


def rel_l2(a, b) -> float:
    """|a - b| / |b| over all elements, in float64; `b` is the reference."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape, f"shapes differ: {a.shape} and {b.shape}"
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30))


def assert_close(name: str, a, b) -> None:
    """Fail unless rel_l2(a, b) is within the tolerance called `name`."""
    error, row = rel_l2(a, b), TOLERANCES[name]
    print(f"{name}: {error:.1e}")  # pytest -rP shows it, for a new measurement
    assert error <= row.limit, (
        f"{name}: relative L2 {error:.2e} > {row.limit:.1e}, "
        f"three times the {row.error:.1e} of {row.date}"
    )
