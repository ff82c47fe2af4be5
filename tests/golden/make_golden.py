"""Make golden.npz anew from PyTorch and diffusers: python -m tests.golden.make_golden

Nothing of the package is used, so a golden can only repeat what the reference computed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

PATH = Path(__file__).with_name("golden.npz")
SEED = 20
GAMMA, TAU = 0.75, 1.5
SCHEDULES = {
    "v": {"prediction_type": "v_prediction", "timestep_spacing": "leading"},
    "epsilon": {"prediction_type": "epsilon", "timestep_spacing": "trailing"},
}
COMMON = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
}


def schedules(rng) -> dict[str, np.ndarray]:
    """diffusers' alpha table, timesteps and one sampling step."""
    import diffusers
    import torch

    found = {}
    for name, options in SCHEDULES.items():
        scheduler = diffusers.DDIMScheduler(**COMMON, **options)
        scheduler.set_timesteps(20)
        z, out = rng.normal(size=(2, 1, 4, 3, 5)).astype(np.float32)
        t = int(scheduler.timesteps[7])
        step = scheduler.step(torch.from_numpy(out), t, torch.from_numpy(z))
        found[f"{name}/abar"] = scheduler.alphas_cumprod.numpy()[::37]
        found[f"{name}/timesteps"] = scheduler.timesteps.numpy()
        found[f"{name}/z"], found[f"{name}/out"] = z, out
        found[f"{name}/stepped"] = step.prev_sample.numpy()
    return found


def adain(rng) -> dict[str, np.ndarray]:
    """AdaIN in float64 with torch.var (unbiased)."""
    import torch

    content = rng.normal(2.0, 3.0, (2, 4, 5, 6)).astype(np.float32)
    style = rng.normal(-1.0, 0.5, (2, 4, 7, 3)).astype(np.float32)
    c, s = (torch.from_numpy(x).double() for x in (content, style))
    mean_c, mean_s = (x.mean((2, 3), keepdim=True) for x in (c, s))
    std_c, std_s = ((x.var((2, 3), keepdim=True) + 1e-5).sqrt() for x in (c, s))
    out = std_s * (c - mean_c) / std_c + mean_s
    return {"adain/content": content, "adain/style": style, "adain/out": out.float().numpy()}


def injected_attention(rng) -> dict[str, np.ndarray]:
    """Attention over injected features, (B, tokens, heads, head_dim), with torch's own kernel."""
    import torch

    q, q_c = rng.normal(size=(2, 1, 6, 2, 3)).astype(np.float32)
    k_s, v_s = rng.normal(size=(2, 1, 8, 2, 3)).astype(np.float32)
    heads_first = [torch.from_numpy(x).transpose(1, 2) for x in (q, q_c, k_s, v_s)]
    own, content, keys, values = heads_first
    mixed = GAMMA * content + (1 - GAMMA) * own
    out = torch.nn.functional.scaled_dot_product_attention(
        mixed, keys, values, scale=TAU * q.shape[-1] ** -0.5
    )
    names = ("q", "q_c", "k_s", "v_s", "out")
    arrays = (q, q_c, k_s, v_s, out.transpose(1, 2).numpy())
    return {f"attention/{name}": array for name, array in zip(names, arrays, strict=True)}


def make() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(SEED)
    return {**schedules(rng), **adain(rng), **injected_attention(rng)}


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    np.savez_compressed(PATH, **make())
    print(f"{PATH}: {PATH.stat().st_size} bytes")
