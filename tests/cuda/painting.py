"""Programs of the emulated device for what paints and what judges pictures: see program.py."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np

from jstyle.sd import runtime
from jstyle.sd.samplers import SAMPLERS
from jstyle.sd.startup import jt
from tests import tiny
from tests.pictures import picture

Arrays = dict[str, np.ndarray]


def drawn(network) -> None:
    """Weights by name; variances stay positive."""
    for name, value in network.state_dict().items():
        values = tiny.values_of(name, value.shape)
        scale = 1.0 if value.ndim > 1 else 0.1
        if "running_var" in name or ("bn" in name and name.endswith("weight")):
            values = 1.0 + 0.1 * np.abs(values)
        value.assign(jt.array((scale * values).astype("float32")))


def samplers(counts, folder: Path) -> Arrays:
    """A picture by each sampler, with guidance; on CUDA also the copies that its steps make."""
    sd, found, told = tiny.make_ours("sd2"), {}, {}
    options = {"seed": 3, "guidance": 3.0, "height": 32, "width": 32}
    for name in SAMPLERS:
        for steps in (2, 4):
            done: list[tuple[int, int | None]] = []
            options["progress"] = lambda *numbers, done=done: done.append(numbers)
            counts.take()
            z = sd.generate("a fox", num_steps=steps, sampler=name, **options)
            found[f"sampler {name} {steps}"] = z.numpy()
            told[f"{name} {steps}"] = counts.take() | {"evaluations": len(done)}
    if runtime.device() == "cuda":
        (folder / "samplers.json").write_text(json.dumps(told))
    return found


def judges(counts, folder: Path) -> Arrays:
    """DINO's and DINOv2's transformer, both of CLIP's towers, and CLIP with a ResNet."""
    from jstyle.score.networks import clip, clip_resnet, vit
    from jstyle.sd.config import CLIPTextConfig

    vision = vit.ViTConfig(32, 2, 4, 64, 32, 8, 1e-6, "gelu")
    text = CLIPTextConfig.from_json(
        {
            **{"model_type": "clip_text_model", "vocab_size": 100, "hidden_size": 32},
            **{"intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
            **{"max_position_embeddings": 16, "hidden_act": "quick_gelu", "eos_token_id": 99},
        }
    )
    networks = {
        "vit": vit.VisionTransformer(vision),
        "dinov2": vit.VisionTransformer(replace(vision, layer_scale=True)),
        "clip": clip.CLIPModel(clip.CLIPConfig(text, replace(vision, hidden_act="quick_gelu"), 16)),
        "resnet": clip_resnet.ClipResNet(clip_resnet.ClipResNetConfig(64, (1, 1, 1, 1), 32, text)),
    }
    ids = np.random.default_rng(0).integers(1, 98, (2, 12))
    ids[:, -1] = 99
    small, found = jt.array(picture(7, 32, 32)), {}
    with jt.no_grad():
        for name, network in networks.items():
            drawn(network)
            if name in ("vit", "dinov2"):
                found[name] = network(small).numpy()
                continue
            pixels = small if name == "clip" else jt.array(picture(8, 224, 224))
            found[f"{name} image"] = network.encode_image(pixels).numpy()
            found[f"{name} text"] = network.encode_text(ids).numpy()
    return found


def header(counts, folder: Path) -> Arrays:
    """Jittor leaves a header out of some fused kernels in half precision. What this package makes
    of products of two and three dimensions with gradients, in the way in which a training does it;
    on CUDA also such a product as it is, whose error is header.txt."""
    from jdreambooth.precision import in_half
    from jstyle.sd import layers

    rng, found = np.random.RandomState(0), {}
    flat = jt.array(rng.randn(6, 32).astype("float32"))
    map_ = jt.array(rng.randn(2, 32, 6, 6).astype("float32"))
    blocks = {
        "time": (layers.TimestepEmbedding(32, 32), (flat,)),
        "feed forward 2": (layers.FeedForward(32), (flat,)),
        "feed forward 3": (layers.FeedForward(32), (flat.reshape(2, 3, 32),)),
        "resnet": (layers.ResnetBlock2D(32, 16, 32, 4, 1e-5), (map_, flat[:2])),
    }
    half = runtime.device() == "cuda"
    for name, (block, inputs) in blocks.items():
        drawn(block)
        parameters = list(block.parameters())
        with in_half(block) if half else nullcontext():
            y = block(*(v.float16() for v in inputs) if half else inputs).float32()
        gradients = jt.grad((y**2).mean() * 16.0, parameters)
        values = [y, *gradients]
        found[f"block {name}"] = np.concatenate([v.float32().numpy().ravel() for v in values])
    if half:
        try:
            a, b = flat.float16(), flat.float16().transpose(1, 0)
            y = a @ b
            [g.numpy() for g in jt.grad(y.float32().sum(), [a, b])]
        except RuntimeError as error:
            (folder / "header.txt").write_text(str(error))
    return found
