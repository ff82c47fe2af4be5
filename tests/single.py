"""Small models of the shapes of Stable Diffusion 1.x and 2.x, whose files need no configuration:
32 groups, and heads as all models of the generation have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from jstyle.sd import hub
from tests import tiny

OVERRIDES = {
    "sd1": {
        "unet": {
            "block_out_channels": [32, 64, 96, 64],
            "attention_head_dim": 8,
            "cross_attention_dim": 64,
            "norm_num_groups": 32,
        },
        "vae": {
            "block_out_channels": [32, 64, 32, 96],
            "norm_num_groups": 32,
            "scaling_factor": 0.18215,
        },
        "text_encoder": {"hidden_size": 64, "num_attention_heads": 1, "num_hidden_layers": 3},
        "scheduler": {},
    },
    "sd2": {
        "unet": {
            "block_out_channels": [64, 128, 192, 128],
            "attention_head_dim": [1, 2, 3, 2],
            "cross_attention_dim": 128,
            "norm_num_groups": 32,
        },
        "vae": {
            "block_out_channels": [32, 64, 96],
            "norm_num_groups": 32,
            "scaling_factor": 0.18215,
        },
        "text_encoder": {"hidden_size": 128, "num_attention_heads": 2, "num_hidden_layers": 3},
        "scheduler": {},
    },
}
_made: dict = {}


def config(kind: str, part: str) -> dict:
    return {**tiny.config(kind, part), **OVERRIDES[kind][part]}


def make(kind: str):
    """A StableDiffusion of this package with the weights of tests.tiny; made once."""
    from jstyle.sd.pipeline import PARTS, StableDiffusion
    from jstyle.sd.schedule import Schedule, ScheduleConfig
    from jstyle.sd.tokenizer import Tokenizer
    from jstyle.sd.weights import load_strict

    if kind not in _made:
        modules = {}
        for part, (config_class, module_class) in PARTS.items():
            module = module_class(config_class.from_json(config(kind, part)))
            names = module.state_dict().items()
            load_strict(module, {n: tiny.values_of(n, v.shape) for n, v in names})
            modules[part] = module
        _made[kind] = StableDiffusion(
            **modules,
            tokenizer=Tokenizer.from_folder(
                tiny.TOKENIZER, pad_token="<|endoftext|>" if kind == "sd1" else "!"
            ),
            schedule=Schedule(ScheduleConfig.from_json(config(kind, "scheduler"))),
            name=f"small {kind}",
            tokenizer_folder=tiny.TOKENIZER,
        )
    return _made[kind]


def plain(kind: str, folder: Path) -> dict[str, np.ndarray]:
    """The tensors of the model's single file, without what this program's own files say."""
    from jstyle.sd.single_file import V_KEY, write_checkpoint

    path = folder / f"written_{kind}.safetensors"
    write_checkpoint(make(kind), path, "float32")
    tensors = load_file(path)
    tensors.pop(V_KEY, None)
    path.unlink()
    return tensors


def write(tensors: dict, path: Path, **source) -> hub.Source:
    """A file as other programs leave it, and how it is given to this one."""
    save_file(tensors, path)
    return hub.Source(str(path), **{"tokenizer": str(tiny.TOKENIZER), **source})
