"""Tiny models of both generations, in both frameworks, with one set of weights.

Small but not degenerate: every block type, all widths and head counts different, inner sizes that
are no multiples of each other, norms away from the identity. A weight is a function of its name,
so neither framework has to tell the other anything.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np

from jstyle.sd import hub

TOKENIZER = hub.TINY / "tokenizer"
UNET = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "block_out_channels": [8, 12, 24, 32],
    "layers_per_block": 2,
    "cross_attention_dim": 20,
    "norm_num_groups": 4,
}
VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 4,
}
TEXT = {
    "hidden_size": 20,
    "intermediate_size": 44,
    "num_attention_heads": 2,
    "max_position_embeddings": 77,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
    "projection_dim": 28,
}
SCHEDULE = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
}
KINDS = {
    "sd1": {  # convolutional projections, one head count, quick_gelu, epsilon
        "unet": {"attention_head_dim": 4, "use_linear_projection": False},
        "vae": {"block_out_channels": [8, 12, 16, 20], "scaling_factor": 0.18215},
        "text_encoder": {"hidden_act": "quick_gelu", "num_hidden_layers": 2},
        "scheduler": {"prediction_type": "epsilon"},
    },
    "sd2": {  # linear projections, heads per level, gelu, v_prediction
        "unet": {"attention_head_dim": [1, 2, 3, 4], "use_linear_projection": True},
        "vae": {"block_out_channels": [8, 16, 12], "scaling_factor": 0.3},
        "text_encoder": {"hidden_act": "gelu", "num_hidden_layers": 3},
        "scheduler": {"prediction_type": "v_prediction"},
    },
}


def config(kind: str, part: str) -> dict:
    """The JSON object of one part: unet, vae, text_encoder or scheduler."""
    common = {"unet": UNET, "vae": VAE, "text_encoder": TEXT, "scheduler": SCHEDULE}[part]
    values = {**common, **KINDS[kind][part]}
    if part == "vae":
        levels = len(values["block_out_channels"])
        values["down_block_types"] = ["DownEncoderBlock2D"] * levels
        values["up_block_types"] = ["UpDecoderBlock2D"] * levels
        values["sample_size"] = UNET["sample_size"] * 2 ** (levels - 1)
    if part == "text_encoder":
        values["vocab_size"] = len(json.loads((TOKENIZER / "vocab.json").read_text("utf-8")))
    return values


def values_of(name: str, shape) -> np.ndarray:
    """The weights called `name` (with or without text_model.), float32 that fits into bfloat16."""
    rng = np.random.default_rng(zlib.crc32(name.removeprefix("text_model.").encode()))
    draw = rng.standard_normal(tuple(shape), dtype=np.float32)
    if "norm" in name:
        draw = draw * 0.2 + float(name.endswith("weight"))
    elif name.endswith("bias"):
        draw *= 0.1
    elif "embedding.weight" not in name:
        draw *= np.float32(np.prod(shape[1:]) ** -0.5)
    return (draw.view(np.uint32) & 0xFFFF0000).view(np.float32)


def make_ours(kind: str):
    """A StableDiffusion of this package; needs neither a file nor PyTorch."""
    from jstyle.sd.pipeline import PARTS, StableDiffusion
    from jstyle.sd.schedule import Schedule, ScheduleConfig
    from jstyle.sd.tokenizer import Tokenizer
    from jstyle.sd.weights import load_strict

    modules = {}
    for part, (config_class, module_class) in PARTS.items():
        module = module_class(config_class.from_json(config(kind, part)))
        tensors = {n: values_of(n, v.shape) for n, v in module.state_dict().items()}
        load_strict(module, tensors)
        modules[part] = module
    schedule = Schedule(ScheduleConfig.from_json(config(kind, "scheduler")))
    tokenizer = Tokenizer.from_folder(TOKENIZER)
    return StableDiffusion(
        **modules,
        tokenizer=tokenizer,
        schedule=schedule,
        name=f"tiny {kind}",
        tokenizer_folder=TOKENIZER,
    )


def make_theirs(kind: str):
    """The same model as a diffusers.StableDiffusionPipeline with a DDIMScheduler."""
    import diffusers
    import torch
    import transformers

    text = transformers.CLIPTextConfig(**config(kind, "text_encoder"))
    modules = {
        "unet": diffusers.UNet2DConditionModel(**config(kind, "unet")),
        "vae": diffusers.AutoencoderKL(**config(kind, "vae")),
        "text_encoder": transformers.CLIPTextModel(text),
    }
    with torch.no_grad():
        for module in modules.values():
            for name, tensor in module.eval().named_parameters():
                tensor.copy_(torch.from_numpy(values_of(name, tensor.shape)))
    pipeline = diffusers.StableDiffusionPipeline(
        **modules,
        tokenizer=transformers.CLIPTokenizer.from_pretrained(str(TOKENIZER)),
        scheduler=diffusers.DDIMScheduler.from_config(config(kind, "scheduler")),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_theirs(kind: str, folder: Path, dtype: str = "float32", **options) -> Path:
    """Save `make_theirs(kind)` as diffusers does. options: variant, max_shard_size, ..."""
    import torch

    pipeline = make_theirs(kind).to(getattr(torch, dtype))
    pipeline.save_pretrained(folder, safe_serialization=True, **options)
    return folder
