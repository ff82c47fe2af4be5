"""Train the UNet and the text encoder of the shipped model on cached latents.

Loss: mean squared error of the velocity (arXiv:2202.00512), timesteps uniform. Captions are dropped
by chance, so that the empty prompt means "any picture". What is kept is the moving average of the
weights. DDIM inversion asks the network about a latent one step below the timestep that it is told;
so in training too the timestep is told too late, mostly by little, and the noise must be seen.
Pictures of half the size cost less than half: run with --size 64 first, then go on with --init.

With --pairs a part of every batch is trained as StyleID uses the network: the decoder's
self-attention of a content reads the keys and values of its style, and the wanted result is the
content in the style's colours. The noise of these holds some of the content's own colours, so
that the network must look at the style.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm, trange

from benchmarks.tiny import dataset, pairs
from benchmarks.tiny.models import SCHEDULE, SIZE_PX, UNET, VAE, text_config
from jdreambooth.optimizer import clip_gradients
from jstyle.config import PRESETS, StyleConfig
from jstyle.injection import resolve_sites
from jstyle.sd.clip import CLIPTextModel
from jstyle.sd.hooks import around_attention
from jstyle.sd.image import from_uint8
from jstyle.sd.pipeline import StableDiffusion
from jstyle.sd.schedule import Schedule
from jstyle.sd.startup import jt
from jstyle.sd.tokenizer import Tokenizer
from jstyle.sd.unet import UNet2DConditionModel
from jstyle.sd.vae import AutoencoderKL

log = logging.getLogger("tiny.unet")

SCENES = 0.15  # of what is drawn; the rest is single objects
CAPTION_DROPOUT = 0.1
LATE_BY = 120  # most that a told timestep is too late; its square root is uniform
RESULT_CONTRAST = 1.2  # of wanted results: what is learned by squared errors falls short of it
WEIGHT_DECAY = 0.01
CLIP_NORM = 1.0


def encode_all(vae, pictures: np.ndarray, size: int, batch: int = 32) -> np.ndarray:
    """(N, S, S, 3) uint8, shrunk to `size`, to posterior means (N, 4, size/4, size/4), float16."""
    out, k = [], pictures.shape[1] // size
    with jt.no_grad():
        for i in tqdm(range(0, len(pictures), batch), desc="encode", mininterval=10):
            x = from_uint8(pictures[i : i + batch])
            x = x.reshape(len(x), 3, size, k, size, k).mean((3, 5))
            moments = vae.encode(jt.array(x))
            out.append(moments[:, : VAE.latent_channels].numpy().astype(np.float16))
    return np.concatenate(out)


def cached_latents(
    folder: Path, pictures: dict[str, np.ndarray], weights: Path, size: int
) -> dict[str, np.ndarray]:
    """The latents of every kind of picture; written beside the pictures on first use."""
    vae, latents = read_autoencoder(weights), {}
    for kind, pixels in pictures.items():
        path = folder / f"{kind}_latents_{size}.npy"
        if not path.exists():
            np.save(path, encode_all(vae, pixels, size))
        latents[kind] = np.load(path)
    return latents


def read_autoencoder(weights: Path, scaling_factor: float = 1.0) -> AutoencoderKL:
    """Of train_vae's file, with that factor, or of a model folder, which has its own."""
    if weights.is_dir():
        return StableDiffusion.from_pretrained(weights).vae
    vae = AutoencoderKL(dataclasses.replace(VAE, scaling_factor=scaling_factor))
    restore(vae, np.load(weights))
    return vae


def restore(module, arrays) -> None:
    for name, parameter in module.named_parameters():
        parameter.assign(jt.array(arrays[name]))


class Batch(NamedTuple):
    """Rows of latents (B, 4, h, w), token ids (B, 77), true and told timesteps (B,), noise."""

    z: np.ndarray
    ids: np.ndarray
    t: np.ndarray
    told: np.ndarray
    noise: np.ndarray


class Batches:
    """Random batches; latents are scaled to unit deviation."""

    def __init__(self, latents, pair_latents, scaling_factor: float, captions, tokenizer, args):
        self.latents, self.pairs = latents, pair_latents
        self.scaling_factor, self.abar = scaling_factor, Schedule(SCHEDULE).abar
        drawn = 1 - args.photo_share
        self.shares = {"photo": args.photo_share, "drawing": drawn * (1 - SCENES)}
        self.shares["scene"] = drawn * SCENES
        self.plain_share = args.plain_share
        known = captions["drawing"][: len(latents["drawing"])]
        self.plain = np.flatnonzero([" in " not in caption for caption in known])
        self.rng = np.random.default_rng(args.seed)
        self.ids = {k: tokenizer(c).astype(np.int32) for k, c in captions.items()}
        self.empty = tokenizer([""]).astype(np.int32)[0]

    def draw(self, batch: int, paired: int) -> Batch:
        """`batch` rows of which the last 2 x paired are styles and, in their order, contents."""
        plain = self._captioned(batch - 2 * paired)
        return _joined(plain, *self._paired(paired)) if paired else plain

    def _captioned(self, count: int) -> Batch:
        kinds = self.rng.choice(list(self.shares), count, p=list(self.shares.values()))
        z = np.empty((count, *self.latents["photo"].shape[1:]), np.float32)
        ids = np.empty((count, len(self.empty)), np.int32)
        for i, kind in enumerate(kinds):
            n = self._pick(kind)
            z[i] = self.latents[kind][n]
            dropped = self.rng.random() < CAPTION_DROPOUT
            ids[i] = self.empty if dropped else self.ids[kind][n]
        t, told = self._timesteps(count)
        return Batch(z * self.scaling_factor, ids, t, told, self._noise(z.shape))

    def _pick(self, kind: str) -> int:
        # without --plain-share no number is drawn: a seed gives the batches that it always gave
        if kind == "drawing" and self.plain_share > 0 and self.rng.random() < self.plain_share:
            return self.rng.choice(self.plain)
        return self.rng.integers(len(self.latents[kind]))

    def _paired(self, count: int) -> tuple[Batch, Batch]:
        picks = self.rng.integers(len(self.pairs["style"]), size=count)
        z = {r: v[picks].astype(np.float32) * self.scaling_factor for r, v in self.pairs.items()}
        mean = z["result"].mean((2, 3), keepdims=True)
        z["result"] = mean + RESULT_CONTRAST * (z["result"] - mean)
        ids = np.repeat(self.empty[None], count, 0)
        t, told = self._timesteps(count)  # the style's inversion is late, the sampling is not
        style = Batch(z["style"], ids, t, told, self._noise(z["style"].shape))
        kept = self.rng.random(count) * np.sqrt(self.abar[told])
        kept = kept.astype(np.float32).reshape(-1, 1, 1, 1)
        noise = self._noise(z["result"].shape) + kept * (z["content"] - z["result"])
        return style, Batch(z["result"], ids, told, told, noise)

    def _timesteps(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """True and told, one from each of `count` equal slices: every batch sees all levels."""
        last = SCHEDULE.num_train_timesteps - 1
        t = (self.rng.permutation(count) + self.rng.random(count)) / count
        t = (t * (last + 1)).astype(np.int64)
        late = (LATE_BY * self.rng.random(count) ** 2).astype(np.int64)
        return t, np.minimum(t + late, last)

    def _noise(self, shape) -> np.ndarray:
        return self.rng.standard_normal(shape).astype(np.float32)


def _joined(*parts: Batch) -> Batch:
    return Batch(*map(np.concatenate, zip(*parts, strict=True)))


def borrow_style(paired: int):
    """A hook around attention: the last `paired` rows read the keys and values of those before."""

    def hook(call, q, k, v):
        own, tau = q.shape[0] - paired, PRESETS["paper"]["tau"]
        q = jt.concat([q[:own], q[own:] * tau])
        return call(q, *(jt.concat([x[:own], x[own - paired : own]]) for x in (k, v)))

    return hook


def velocity_loss(unet, text, schedule, batch: Batch):
    z, ids, t, told, noise = batch
    abar = schedule.abar[t].reshape(-1, 1, 1, 1)
    noised = (np.sqrt(abar) * z + np.sqrt(1 - abar) * noise).astype(np.float32)
    velocity = (np.sqrt(abar) * noise - np.sqrt(1 - abar) * z).astype(np.float32)
    out = unet(jt.array(noised), told, text(ids))
    return ((out - jt.array(velocity)) ** 2).mean()


def learning_rate(progress: float, step: int, peak: float) -> float:
    """Warm-up over 100 steps, flat, then a cosine over the second half."""
    decay = 1.0 if progress < 0.5 else 0.5 + 0.5 * np.cos(np.pi * (progress - 0.5) / 0.5)
    return peak * min(1.0, (step + 1) / 100) * max(decay, 0.02)


def start_from(init: Path | None, vocab_size: int, latents):
    """UNet, text encoder and scaling factor: fresh, of an .npz saved here, or of a model folder."""
    if init is not None and init.is_dir():
        sd = StableDiffusion.from_pretrained(init)
        for p in (*sd.unet.parameters(), *sd.text_encoder.parameters()):
            p.start_grad()  # loading had frozen them
        return sd.unet, sd.text_encoder, sd.vae.config.scaling_factor
    unet, text = UNet2DConditionModel(UNET), CLIPTextModel(text_config(vocab_size))
    if init is None:
        sample = [v[:2000].astype(np.float32).reshape(-1) for v in latents.values()]
        return unet, text, float(1 / np.concatenate(sample).std())
    saved = np.load(init)
    restore(unet, {k[5:]: v for k, v in saved.items() if k.startswith("unet.")})
    restore(text, {k[5:]: v for k, v in saved.items() if k.startswith("text.")})
    return unet, text, float(saved["scaling_factor"])


def train(args) -> None:
    tokenizer = Tokenizer.from_folder(args.tokenizer)
    pictures, captions = dataset.load(args.data)
    latents = cached_latents(args.data, pictures, args.vae, args.size)
    paired, pair_latents = 0, None
    if args.pairs is not None:
        paired = round(args.batch * args.pair_share / 2)
        pair_latents = cached_latents(args.pairs, pairs.load(args.pairs), args.vae, args.size)
    unet, text, scaling_factor = start_from(args.init, len(tokenizer), latents)
    batches = Batches(latents, pair_latents, scaling_factor, captions, tokenizer, args)
    sites = resolve_sites(StyleConfig().sites, unet.attention_sites()) if paired else ()
    with around_attention(unet, sites, borrow_style(paired)):
        _loop(args, unet, text, batches, paired)


def _loop(args, unet, text, batches: Batches, paired: int) -> None:
    schedule = Schedule(SCHEDULE)
    named = [(f"unet.{n}", p) for n, p in unet.named_parameters()]
    named += [(f"text.{n}", p) for n, p in text.named_parameters()]
    average = {n: p.copy().stop_grad() for n, p in named}
    optimizer = jt.optim.AdamW([p for _, p in named], lr=args.lr, weight_decay=WEIGHT_DECAY)
    started, total = time.time(), 0.0
    for step in trange(args.steps, unit="step", mininterval=10):
        optimizer.lr = learning_rate(step / args.steps, step, args.lr)
        loss = velocity_loss(unet, text, schedule, batches.draw(args.batch, paired))
        optimizer.backward(loss)
        clip_gradients([g for group in optimizer.param_groups for g in group["grads"]], CLIP_NORM)
        optimizer.step()
        decay = min(0.999, (1 + step) / (20 + step))
        for name, p in named:
            average[name].update(average[name] * decay + p.detach() * (1 - decay))
        jt.sync_all()
        total += loss.item()
        if (step + 1) % 100 == 0:
            log.info("step %d  loss %.4f  %d s", step + 1, total / 100, time.time() - started)
            total = 0.0
        if (step + 1) % 500 == 0:
            save(average, batches.scaling_factor, args.out)
    save(average, batches.scaling_factor, args.out)


def save(average: dict, scaling_factor: float, path: Path) -> None:
    arrays = {name: value.numpy() for name, value in average.items()}
    np.savez(path, scaling_factor=np.float64(scaling_factor), **arrays)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder written by dataset")
    parser.add_argument("--vae", type=Path, required=True, help="of train_vae, or a model folder")
    parser.add_argument("--tokenizer", type=Path, default=Path("jstyle/models/tiny/tokenizer"))
    parser.add_argument("--init", type=Path, help="go on from these weights, or this model folder")
    parser.add_argument("--size", type=int, default=SIZE_PX, help="of the pictures, in pixels")
    parser.add_argument("--photo-share", type=float, default=0.22, help="of every batch")
    parser.add_argument(
        "--plain-share", type=float, default=0.0, help="of the drawings: only those without a style"
    )
    parser.add_argument("--pairs", type=Path, help="folder written by pairs: styles are borrowed")
    parser.add_argument("--pair-share", type=float, default=0.5, help="of every batch: their rows")
    parser.add_argument("--steps", type=int, default=4000)
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
