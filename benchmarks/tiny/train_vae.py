"""Train the autoencoder of the shipped model: mean squared error, little noise on the latent.

The decoder sees the posterior mean plus noise of a fixed small deviation. The unit-variance noise
of a fresh KL encoder stalls such a small model; the little noise is enough to keep nearby latents
alike.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path

import numpy as np
from tqdm import trange

from benchmarks.tiny.models import VAE
from jstyle.commands.reconstruct import psnr_db
from jstyle.sd.image import from_uint8
from jstyle.sd.startup import jt
from jstyle.sd.vae import AutoencoderKL

log = logging.getLogger("tiny.vae")

NOISE = 0.08  # deviation of the noise on the latent, whose own deviation the penalty keeps near 1
PENALTY = 2e-4  # weight of mean(z^2)


def loss_of(vae, x, noise):
    """x: (B, 3, S, S); noise: (B, 4, S/4, S/4). Returns the objective and the squared error."""
    z = vae.encode(x)[:, : VAE.latent_channels]
    error = ((vae.decode(z + NOISE * noise) - x) ** 2).mean()
    return error + PENALTY * (z * z).mean(), error


def psnr(vae, images) -> float:
    """Mean PSNR of the round trip in dB; images: (N, S, S, 3) uint8."""
    values = []
    with jt.no_grad():
        for image in images:
            x = from_uint8(image[None])
            y = vae.decode(vae.encode(jt.array(x))[:, : VAE.latent_channels]).numpy()
            values.append(psnr_db(np.clip(y, -1, 1), x))
    return float(np.mean(values))


def crops(pool, rng, batch: int, size: int) -> np.ndarray:
    """Random crops, mirrored by chance."""
    out = np.empty((batch, size, size, 3), np.uint8)
    for i, n in enumerate(rng.integers(0, len(pool), batch)):
        y, x = rng.integers(0, pool.shape[1] - size + 1, 2)
        crop = pool[n, y : y + size, x : x + size]
        out[i] = crop[:, ::-1] if rng.random() < 0.5 else crop
    return out


def train(pool, holdout, steps: int, seed: int, out: Path, batch: int, size: int, lr: float):
    rng = np.random.default_rng(seed)
    vae = AutoencoderKL(VAE)
    optimizer = jt.optim.AdamW(vae.parameters(), lr=lr, weight_decay=1e-4)
    started, running = time.time(), None
    for step in trange(steps, mininterval=10):
        optimizer.lr = lr * min(1, (step + 1) / 100) * (0.02 + 0.98 * _cosine(step / steps))
        x = jt.array(from_uint8(crops(pool, rng, batch, size)))
        noise = rng.standard_normal((batch, 4, size // 4, size // 4)).astype(np.float32)
        loss, error = loss_of(vae, x, jt.array(noise))
        optimizer.step(loss)
        value = error.item()  # waits for the device
        running = value if running is None else 0.98 * running + 0.02 * value
        if (step + 1) % 250 == 0 or step + 1 == steps:
            held = {name: round(psnr(vae, images), 2) for name, images in holdout.items()}
            seconds = round(time.time() - started)
            log.info("step %d  train %.2f dB  %s  %d s", step + 1, _db(running), held, seconds)
            save(vae, out)
    return vae


def _cosine(progress: float) -> float:
    return 0.5 + 0.5 * np.cos(np.pi * progress)


def _db(error: float) -> float:
    return -10 * np.log10(error / 4)


def save(vae, out: Path) -> None:
    np.savez(out, **{name: p.numpy() for name, p in vae.named_parameters()})


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--pool", type=Path, nargs="+", required=True, help=".npy (N, S, S, 3) uint8"
    )
    parser.add_argument(
        "--holdout", type=Path, nargs="*", default=[], help=".npy files, as the pool"
    )
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="the weights, .npz")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    pool = np.concatenate([np.load(p) for p in args.pool])
    holdout = {p.stem: np.load(p) for p in args.holdout}
    log.info(json.dumps({k: str(v) for k, v in vars(args).items()}))
    train(pool, holdout, args.steps, args.seed, args.out, args.batch, args.crop, args.lr)


if __name__ == "__main__":
    main()
