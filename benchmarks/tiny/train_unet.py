"""Train the UNet and the text encoder of the shipped model on cached latents.

Loss: mean squared error of the velocity (arXiv:2202.00512), timesteps uniform. Captions are dropped
by chance, so that the empty prompt means "any picture". What is kept is the moving average of the
weights.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.tiny import dataset
from benchmarks.tiny.models import LATENT, SCHEDULE, UNET, VAE, text_config
from benchmarks.tiny.train_vae import to_model
from jstyle.sd.clip import CLIPTextModel
from jstyle.sd.schedule import Schedule
from jstyle.sd.startup import jt
from jstyle.sd.tokenizer import Tokenizer
from jstyle.sd.unet import UNet2DConditionModel
from jstyle.sd.vae import AutoencoderKL

log = logging.getLogger("tiny.unet")

SHARES = {"photo": 0.34, "drawing": 0.5, "scene": 0.16}  # of every batch
CAPTION_DROPOUT = 0.1
WEIGHT_DECAY = 0.01
CLIP_NORM = 1.0


def encode_all(vae, pictures: np.ndarray, batch: int = 32) -> np.ndarray:
    """(N, S, S, 3) uint8 -> posterior means (N, 4, S/4, S/4), float16, unscaled."""
    out = []
    with jt.no_grad():
        for i in tqdm(range(0, len(pictures), batch), desc="encode", mininterval=10):
            moments = vae.encode(jt.array(to_model(pictures[i : i + batch])))
            out.append(moments[:, : VAE.latent_channels].numpy().astype(np.float16))
    return np.concatenate(out)


def cached_latents(folder: Path, weights: Path) -> dict[str, np.ndarray]:
    """The latents of every kind of picture; written beside the pictures on first use."""
    pictures, _ = dataset.load(folder)
    vae = AutoencoderKL(VAE)
    restore(vae, np.load(weights))
    latents = {}
    for kind in dataset.KINDS:
        path = folder / f"{kind}_latents.npy"
        if not path.exists():
            np.save(path, encode_all(vae, pictures[kind]))
        latents[kind] = np.load(path)
    return latents


def restore(module, arrays) -> None:
    for name, parameter in module.named_parameters():
        parameter.assign(jt.array(arrays[name]))


class Batches:
    """Random batches: latents scaled to unit deviation, token ids, noise and timesteps."""

    def __init__(self, latents, captions, tokenizer, seed: int):
        self.latents, self.rng = latents, np.random.default_rng(seed)
        self.ids = {k: tokenizer(c).astype(np.int32) for k, c in captions.items()}
        self.empty = tokenizer([""]).astype(np.int32)[0]
        sample = np.concatenate([v[:2000].astype(np.float32).reshape(-1) for v in latents.values()])
        self.scaling_factor = float(1 / sample.std())

    def draw(self, batch: int):
        kinds = self.rng.choice(list(SHARES), batch, p=list(SHARES.values()))
        z = np.empty((batch, VAE.latent_channels, LATENT, LATENT), np.float32)
        ids = np.empty((batch, len(self.empty)), np.int32)
        for i, kind in enumerate(kinds):
            n = self.rng.integers(len(self.latents[kind]))
            z[i] = self.latents[kind][n]
            dropped = self.rng.random() < CAPTION_DROPOUT
            ids[i] = self.empty if dropped else self.ids[kind][n]
        # one timestep from each of `batch` equal slices: every batch sees the whole range
        t = (self.rng.permutation(batch) + self.rng.random(batch)) / batch
        t = (t * SCHEDULE.num_train_timesteps).astype(np.int64)
        noise = self.rng.standard_normal(z.shape).astype(np.float32)
        return z * self.scaling_factor, ids, t, noise


def velocity_loss(unet, text, schedule, batch):
    z, ids, t, noise = batch
    abar = schedule.abar[t].reshape(-1, 1, 1, 1)
    noised = (np.sqrt(abar) * z + np.sqrt(1 - abar) * noise).astype(np.float32)
    velocity = (np.sqrt(abar) * noise - np.sqrt(1 - abar) * z).astype(np.float32)
    out = unet(jt.array(noised), t, text(ids))
    return ((out - jt.array(velocity)) ** 2).mean()


def clip_gradients(optimizer, limit: float) -> None:
    """Scale all gradients so that their joint norm is at most `limit`, summed in two stages."""
    gradients = [g for group in optimizer.param_groups for g in group["grads"]]
    squares = jt.concat([(g * g).reshape(g.shape[0], -1).sum(1) for g in gradients])
    scale = jt.minimum(limit / (jt.sqrt(squares.sum()) + 1e-6), jt.array([1.0]))
    for g in gradients:
        g.update(g * scale)


def learning_rate(progress: float, step: int, peak: float) -> float:
    """Warm-up over 200 steps, flat, then a cosine over the second half."""
    decay = 1.0 if progress < 0.5 else 0.5 + 0.5 * np.cos(np.pi * (progress - 0.5) / 0.5)
    return peak * min(1.0, (step + 1) / 200) * max(decay, 0.02)


def train(args) -> None:
    tokenizer = Tokenizer.from_folder(args.tokenizer)
    _, captions = dataset.load(args.data)
    batches = Batches(cached_latents(args.data, args.vae), captions, tokenizer, args.seed)
    unet, text = UNet2DConditionModel(UNET), CLIPTextModel(text_config(len(tokenizer)))
    if args.init is not None:
        saved = np.load(args.init)
        restore(unet, {k[5:]: v for k, v in saved.items() if k.startswith("unet.")})
        restore(text, {k[5:]: v for k, v in saved.items() if k.startswith("text.")})
    schedule = Schedule(SCHEDULE)
    named = [(f"unet.{n}", p) for n, p in unet.named_parameters()]
    named += [(f"text.{n}", p) for n, p in text.named_parameters()]
    average = {n: p.copy().stop_grad() for n, p in named}
    optimizer = jt.optim.AdamW([p for _, p in named], lr=args.lr, weight_decay=WEIGHT_DECAY)
    started, total, seen = time.time(), 0.0, 0
    bar = tqdm(total=round(args.minutes * 60), unit="s", mininterval=10)
    step = 0
    while (elapsed := time.time() - started) < args.minutes * 60:
        optimizer.lr = learning_rate(elapsed / (args.minutes * 60), step, args.lr)
        loss = velocity_loss(unet, text, schedule, batches.draw(args.batch))
        optimizer.backward(loss)
        clip_gradients(optimizer, CLIP_NORM)
        optimizer.step()
        decay = min(0.999, (1 + step) / (20 + step))
        for name, p in named:
            average[name].update(average[name] * decay + p.detach() * (1 - decay))
        jt.sync_all()
        total, seen, step = total + loss.item(), seen + 1, step + 1
        bar.update(round(elapsed) - bar.n)
        if step % 100 == 0:
            log.info("step %d  loss %.4f  %d s", step, total / seen, elapsed)
            total, seen = 0.0, 0
        if step % 500 == 0:
            save(average, batches.scaling_factor, args.out)
    save(average, batches.scaling_factor, args.out)
    log.info("done after %d steps of %d", step, args.batch)


def save(average: dict, scaling_factor: float, path: Path) -> None:
    arrays = {name: value.numpy() for name, value in average.items()}
    np.savez(path, scaling_factor=np.float64(scaling_factor), **arrays)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder written by build_data")
    parser.add_argument("--vae", type=Path, required=True, help="weights written by train_vae")
    parser.add_argument("--tokenizer", type=Path, default=Path("jstyle/models/tiny/tokenizer"))
    parser.add_argument("--init", type=Path, help="go on from these weights")
    parser.add_argument("--minutes", type=float, default=75)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="the averaged weights, .npz")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    log.info(json.dumps({k: str(v) for k, v in vars(args).items()}))
    train(args)


if __name__ == "__main__":
    main()
