"""Pictures in half precision on the emulated device:  python -m tests.cuda.half_program NAME FOLDER

FOLDER gets NAME.npz: float16 as CUDA computes it, and float32 on the CPU and on CUDA.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from jstyle.config import StyleConfig
from jstyle.pipeline import JStyleID
from jstyle.sd import runtime
from jstyle.sd.hooks import around_attention, around_residuals
from jstyle.sd.pipeline import PARTS, StableDiffusion
from jstyle.sd.startup import jt
from tests import tiny
from tests.pictures import picture

Arrays = dict[str, np.ndarray]
WAYS = (("cpu", "float32"), ("cuda", "float32"), ("cuda", "float16"))


def saved(kind: str, folder: Path, scales: dict[str, float] | None = None) -> Path:
    """A tiny model in float32 files; weights whose names contain a key are scaled."""
    sd = tiny.make_ours(kind)
    for part in PARTS:
        for name, value in getattr(sd, part).state_dict().items():
            for words, factor in (scales or {}).items():
                if words in f"{part}.{name}":
                    value.assign(value * factor)
    sd.save_pretrained(folder, "float32")
    return folder


def evaluated(sd: StableDiffusion) -> Arrays:
    """What each network gives, in float32."""
    with jt.no_grad():
        context = sd.encode_text(["a star in mosaic style", "a fox"])
        z = np.random.RandomState(0).randn(2, 4, 16, 16).astype("float32")
        found = {"text": context, "unet": sd.unet(jt.array(z), 500, context)}
        latents = sd.encode_image(jt.array(picture(3, 64, 64)))
        found |= {"encode": latents, "decode": sd.vae.decode(jt.array(z[:1, :, :8, :8]))}
        assert {str(value.dtype) for value in found.values()} == {"float32"}
        return {name: value.numpy() for name, value in found.items()}


def networks(folder: Path) -> Arrays:
    found = {}
    for kind in ("sd1", "sd2"):
        where = saved(kind, folder / kind)
        for device, dtype in WAYS:
            with runtime.use(device):
                sd = StableDiffusion.from_pretrained(where, dtype=dtype)
                for name, value in evaluated(sd).items():
                    found[f"{name} {kind} {device} {dtype}"] = value
    return found


# where activations become 1e4 and logits 1e6
SCALES = {
    "unet.conv_in": 1e4,
    "unet.down_blocks.0.resnets.0.conv2": 1e4,
    "attn1.to_q": 300.0,
    "attn1.to_k": 300.0,
    "vae.encoder.conv_in": 1e4,
    "vae.decoder.conv_in": 1e4,
    "vae.decoder.mid_block.attentions.0.to_q": 1e3,
}


def large(folder: Path) -> Arrays:
    """Weights scaled up, also to activations that float16 cannot hold in the autoencoder."""
    found = {}
    where = saved("sd2", folder / "large", SCALES)
    for device, dtype in WAYS:
        with runtime.use(device):
            sd = StableDiffusion.from_pretrained(where, dtype=dtype)
            seen: dict[str, float] = {}
            with watched(sd.unet, seen):
                for name, value in evaluated(sd).items():
                    found[f"{name} {device} {dtype}"] = value
            for name, value in seen.items():
                found[f"{name} {device} {dtype}"] = np.array(value)
    return found


@contextmanager
def watched(unet, seen: dict[str, float]) -> Iterator[None]:
    """`seen` gets the largest logit, and the largest value between blocks."""

    def logits(call, q, k, v):
        wide = [x.float32().numpy().astype(np.float64) for x in (q, k)]
        products = np.einsum("bihd,bjhd->bhij", *wide) / wide[0].shape[-1] ** 0.5
        seen["logit"] = max(seen.get("logit", 0.0), np.abs(products).max())
        return call(q, k, v)

    def between(call, skips, x):
        seen["activation"] = max(float(np.abs(s.float32().numpy()).max()) for s in skips)
        return call(skips, x)

    sites = unet.attention_sites()
    with around_attention(unet, sites, logits), around_residuals(unet, between):
        yield


def shipped(folder: Path) -> Arrays:
    """The shipped model: a stylisation of 50 steps, each place for the features, a prompt."""
    found = {}
    inputs = picture(1, 64, 64), picture(2, 64, 64)
    for device, dtype in WAYS:
        with runtime.use(device):
            sd = StableDiffusion.from_pretrained("tiny", dtype=dtype)
            styler = JStyleID(sd)
            for features in ("memory", "recompute"):
                cfg = StyleConfig(steps=2, size_px=64, features=features)
                key = f"style {features} {device} {dtype}"
                found[key] = styler.stylize(*inputs, cfg).numpy()
            made = sd.generate("a star in mosaic style", num_steps=4, height=64, width=64)
            found[f"generate {device} {dtype}"] = made.numpy()
            if device == "cpu" or dtype == "float16":
                cfg = StyleConfig(steps=50, size_px=32, features="memory")
                small = picture(1, 32, 32), picture(2, 32, 32)
                found[f"fifty {device} {dtype}"] = styler.stylize(*small, cfg).numpy()
    return found


PROGRAMS = {f.__name__: f for f in (networks, large, shipped)}


def main(name: str, folder: Path) -> None:
    np.savez(folder / f"{name}.npz", **PROGRAMS[name](folder))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
