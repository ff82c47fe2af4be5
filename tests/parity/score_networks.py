"""Small networks of transformers with drawn weights, saved as folders like the hub's."""

from __future__ import annotations

import json

import numpy as np

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def draw_weights(model, seed=3):
    """Every parameter from NumPy, norms and layer scales around 1; returns the model, frozen."""
    import torch

    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, tensor in sorted(model.named_parameters()):
            scale_like = name.endswith("lambda1") or ("norm" in name and name.endswith("weight"))
            values = rng.normal(1.0 if scale_like else 0.0, 0.3, tuple(tensor.shape))
            tensor.copy_(torch.as_tensor(values, dtype=tensor.dtype))
    return model.eval().requires_grad_(False)


def save_processor(folder, kind, size, crop=None):
    """A preprocessor_config.json in today's form."""
    values = {
        "image_processor_type": kind,
        "do_resize": True,
        "size": size,
        "resample": 3,
        "do_center_crop": crop is not None,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": MEAN,
        "image_std": STD,
    }
    if crop is not None:
        values["crop_size"] = {"height": crop, "width": crop}
    (folder / "preprocessor_config.json").write_text(json.dumps(values))


def pictures(count, height=30, width=37, seed=5):
    """uint8 (count, height, width, 3): blocks and noise, so that every resampling differs."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, -(-height // 5), -(-width // 5), 3))
    blocks = coarse.repeat(5, 1).repeat(5, 2)[:, :height, :width]
    return np.clip(blocks + rng.integers(-20, 21, blocks.shape), 0, 255).astype(np.uint8)


def edit_json(path, **changes):
    """Change or (None) remove keys of a JSON file."""
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: v for key, v in values.items() if v is not None}))
