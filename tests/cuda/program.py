"""What runs on the emulated device:  python -m tests.cuda.program NAME FOLDER

A program computes the same on CUDA and on the CPU. FOLDER gets cuda.npz, cpu.npz and counts.json,
what the device was asked for by name (see `Counts`) in the parts of the program that count.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from jdreambooth.config import TrainConfig
from jdreambooth.precision import in_half
from jdreambooth.train import Run
from jdreambooth.trainables import TRAINABLES
from jdreambooth.trainables.base import values_of
from jstyle.config import StyleConfig
from jstyle.pipeline import JStyleID
from jstyle.sd import image, runtime
from jstyle.sd.startup import jt
from tests import tiny
from tests.cuda.painting import drawn, header, judges, samplers
from tests.pictures import picture
from tests.train.conftest import BASICS

Arrays = dict[str, np.ndarray]
STEPS = 3


class Counts:
    """What the device did, by name: "to device", "to host" (copies), "launch" (kernels), "lacks"
    and "ERROR" followed by what. Copies to the host happen where a value is asked for and where an
    operation has no CUDA version, so that Jittor computes it on the CPU."""

    NAMES = {"cudaMemcpy 1": "to device", "cudaMemcpy 2": "to host", "emulated launch": "launch"}

    def __init__(self):
        self.library = ctypes.CDLL("libcudart.so")
        self.library.device_counts.restype = ctypes.c_char_p

    def take(self) -> dict[str, int]:
        """Since the last call."""
        jt.sync_all(True)
        lines = self.library.device_counts().decode().splitlines()
        return {self.NAMES.get(k, k): int(n) for k, n in (line.split("\t") for line in lines)}


def networks(counts: Counts, folder: Path) -> Arrays:
    """Text encoder, UNet with gradients, VAE; on CUDA also the UNet in half precision."""
    found = {}
    z = np.random.RandomState(0).randn(2, 4, 16, 16).astype("float32")
    for kind in ("sd1", "sd2"):
        sd = tiny.make_ours(kind)
        context = sd.encode_text(["a star in mosaic style", "a fox"])
        found[f"text {kind}"] = context.numpy()
        loss = (sd.unet(jt.array(z), 500, context.detach()) ** 2).mean()
        found[f"unet {kind}"] = sd.unet(jt.array(z), 500, context).numpy()
        named = list(sd.unet.named_parameters())
        gradients = jt.grad(loss, [value for _, value in named])
        flat = [g.numpy().ravel() for g in gradients]
        found[f"gradient {kind}"] = np.concatenate(flat)
        pixels = jt.array(picture(3, 64, 64))
        latents = sd.encode_image(pixels)
        found[f"encode {kind}"] = latents.numpy()
        found[f"decode {kind}"] = sd.decode(latents).numpy()
        if runtime.device() == "cuda":
            with jt.no_grad(), in_half(sd.unet) as unet:
                found[f"half {kind}"] = unet(jt.array(z), 500, context).float32().numpy()
        else:
            found[f"half {kind}"] = found[f"unet {kind}"]
    return found


def style(counts: Counts, folder: Path) -> Arrays:
    """Inversion and stylisation with each place for the features, one picture and two."""
    styler, found = JStyleID(tiny.make_ours("sd2")), {}
    content, painted = picture(1, 32, 32), picture(2, 32, 32)
    cfg = StyleConfig(steps=2, size_px=32)
    for features in ("memory", "disk", "recompute"):
        chosen = replace(cfg, features=features)
        inversion = styler.invert(content, chosen, "q")
        found[f"inverted {features}"] = inversion.latent.numpy()
        found[f"style {features}"] = styler.stylize(content, painted, chosen).numpy()
    both = np.concatenate([content, picture(4, 32, 32)])
    found["style two"] = styler.stylize(both, painted, cfg).numpy()
    found["style half features"] = styler.stylize(
        content, painted, replace(cfg, feature_dtype="float16")
    ).numpy()
    return found


def config(folder: Path, name: str, **options) -> TrainConfig:
    device = runtime.device()
    places = {"instance_dir": str(folder / "pictures"), "out": str(folder / device / name)}
    return TrainConfig(**{**BASICS, **places, "steps": STEPS, "device": device, **options})


def prior(folder: Path) -> dict:
    """Options of prior preservation; the class pictures are made by whoever comes first."""
    return {
        "prior_weight": 1.0,
        "class_prompt": "a hill",
        "class_dir": str(folder / "class"),
        "num_class_images": 2,
    }


def pictures(folder: Path) -> None:
    (folder / "pictures").mkdir(exist_ok=True)
    for seed, name in enumerate(("hill", "lake", "tree")):
        pixels = image.to_uint8(picture(seed, 40, 56))[0]
        image.save_png(folder / "pictures" / f"{name}.png", pixels)


def trajectory(run: Run, steps: int = STEPS) -> Arrays:
    """Losses and gradient norms of each step, and the tensors at the end."""
    told = [run.step(i) for i in range(steps)]
    found = {key: np.array([line[key] for line in told]) for key in ("loss", "grad_norm")}
    values = values_of(run.trained.parameters)
    return found | {"tensors": np.concatenate([values[name].ravel() for name in sorted(values)])}


def training(counts: Counts, folder: Path) -> Arrays:
    """Every kind of training with prior preservation, in float32 and on CUDA in float16 too."""
    pictures(folder)
    found = {}
    for part in TRAINABLES:
        for precision in ("float32", "float16"):
            wanted = precision if runtime.device() == "cuda" else "float32"
            cfg = config(folder, f"{part} {precision}", train=part, **prior(folder))
            cfg = replace(cfg, precision=wanted)
            made = trajectory(Run(cfg, None, None, tiny.make_ours("sd2")))
            found |= {f"{part} {precision} {key}": value for key, value in made.items()}
    return found


def options(counts: Counts, folder: Path) -> Arrays:
    """What else changes a step: text encoder, average, checkpointing, accumulation, Min-SNR."""
    pictures(folder)
    sets = {
        "text": {"train_text_encoder": True},
        "checkpointing": {"gradient_checkpointing": True, "train": "full"},
        "others": {
            "accumulation": 2,
            "batch": 2,
            "ema_decay": 0.9,
            "min_snr_gamma": 5.0,
            "offset_noise": 0.1,
            "targets": "convolutions",
        },
    }
    found = {}
    for name, chosen in sets.items():
        run = Run(config(folder, name, **chosen), None, None, tiny.make_ours("sd2"))
        found |= {f"{name} {key}": value for key, value in trajectory(run).items()}
    return found


def overflow(counts: Counts, folder: Path) -> Arrays:
    """A step in half precision whose gradients are too large, and the one after it."""
    if runtime.device() == "cpu":
        return {}
    pictures(folder)
    cfg = config(folder, "overflow", precision="float16")
    run = Run(cfg, None, None, tiny.make_ours("sd2"))
    found = {
        "before": np.concatenate([v.ravel() for v in values_of(run.trained.parameters).values()])
    }
    run.scale.value = 2.0**60
    found["skipped lr"] = np.array(run.step(0)["lr"])
    found["scale"] = np.array(run.scale.value)
    found["after"] = np.concatenate([v.ravel() for v in values_of(run.trained.parameters).values()])
    run.scale.value = 1024.0
    found["lr"] = np.array(run.step(1)["lr"])
    return found


def traffic(counts: Counts, folder: Path) -> Arrays:
    """Nothing but counts: of one evaluation, of training steps and of stylisations."""
    if runtime.device() == "cpu":
        return {}
    pictures(folder)
    sd = tiny.make_ours("sd2")
    told = {}
    with jt.no_grad():
        context = sd.encode_text(["a fox"])
        z = jt.array(np.zeros((1, 4, 16, 16), "float32"))
        for number in (1, 2):
            jt.sync_all(True)
            counts.take()
            z = sd.unet(z, 500, context)
            z.sync()
            told[f"evaluation {number}"] = counts.take()
    styler, inputs = JStyleID(sd), [jt.array(picture(s, 32, 32)) for s in (1, 2)]
    for steps in (2, 3):
        cfg = StyleConfig(steps=steps, size_px=32, features="memory")
        styler.stylize(*inputs, cfg).sync()
        counts.take()
        styler.stylize(*inputs, cfg).sync()
        told[f"style of {steps} steps"] = counts.take()
    for part in ("lora", "full"):
        for precision in ("float32", "float16"):
            cfg = config(folder, f"{part} {precision}", train=part, precision=precision)
            run = Run(cfg, None, None, tiny.make_ours("sd2"))
            run.step(0)
            counts.take()
            run.step(1)
            told[f"{part} {precision}"] = counts.take()
            parameters = values_of(run.trained.parameters)
            told[f"{part} {precision}"]["tensors"] = len(parameters)
    (folder / "traffic.json").write_text(json.dumps(told))
    return {}


def score(counts: Counts, folder: Path) -> Arrays:
    """The score's networks with drawn weights."""
    from jstyle.score.networks.backbones import alexnet, squeezenet, vgg19
    from jstyle.score.networks.inception import Inception

    found = {}
    small, large = jt.array(picture(5, 64, 64)), jt.array(picture(6, 96, 96))
    networks = {"alexnet": alexnet(), "squeezenet": squeezenet(), "vgg": vgg19()}
    with jt.no_grad():
        for name, network in networks.items():
            drawn(network)
            for i, value in enumerate(flat(network(small))):
                found[f"{name} {i}"] = value.numpy()
        inception = Inception("fid")
        drawn(inception)
        for i, value in enumerate(flat(inception(large))):
            found[f"inception {i}"] = value.numpy()
    return found


def traps(counts: Counts, folder: Path) -> Arrays:
    """A convolution with many channels in half precision, after the same one in float32: as Jittor
    does it, and as this package does. On the CPU the values that are right."""
    from jstyle.sd.kernels.convolution import convolve

    rng = np.random.RandomState(0)
    x = jt.array(rng.rand(1, 256, 6, 6).astype("float32"))
    w = jt.array(rng.rand(8, 256, 3, 3).astype("float32") * 0.02)
    plain = jt.nn.conv2d(x, w, None, 1, 1).numpy()
    if runtime.device() == "cpu":
        return dict.fromkeys(("ours", "gradient", "jittor", "jittor alone"), plain) | {
            "gradient": jt.grad(convolve(x, w, 1, 1).sum(), w).numpy()
        }
    half, narrow = x.float16(), w.float16()
    y = convolve(half, narrow, 1, 1)
    found = {"ours": y.float32().numpy(), "gradient": jt.grad(y.float32().sum(), w).numpy()}
    wide = jt.concat([half, half])  # of a size that float32 has not had
    found["jittor alone"] = jt.nn.conv2d(wide, narrow, None, 1, 1)[:1].float32().numpy()
    counts.take()
    try:
        found["jittor"] = jt.nn.conv2d(half, narrow, None, 1, 1).float32().numpy()
    except RuntimeError:
        found["refused"] = np.array(1)
    return found


def flat(values) -> list:
    if isinstance(values, dict):
        values = list(values.values())
    return (
        [v for part in values for v in flat(part)]
        if isinstance(values, (list, tuple))
        else [values]
    )


PROGRAMS: dict[str, Callable[[Counts, Path], Arrays]] = {
    f.__name__: f
    for f in (
        *(networks, style, training, options, overflow, traffic, traps, score),
        *(samplers, judges, header),
    )
}


def main(name: str, folder: Path) -> None:
    counts, told = Counts(), {}
    for device in ("cpu", "cuda"):
        with runtime.use(device):
            counts.take()
            arrays = PROGRAMS[name](counts, folder)
            told[device] = counts.take()
        np.savez(folder / f"{device}.npz", **arrays)
        jt.gc()  # what comes next gets fresh memory, filled with NaN
    (folder / "counts.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
