"""Vision transformers: DINO's ViT-S/16, DINOv2, and the encoder that CLIP's image side shares.

Pre-norm blocks; the first token stands for the whole image. Names inside an encoder are those of
CLIP's files, DINO's are renamed by RULES.
Sources: Dosovitskiy et al., arXiv:2010.11929; DINO, arXiv:2104.14294; DINOv2, arXiv:2304.07193;
transformers 5, models/vit/modeling_vit.py and models/dinov2/modeling_dinov2.py.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from ...sd import config_json
from ...sd.clip import ACTIVATIONS
from ...sd.config_json import ConfigError
from ...sd.kernels import attend
from ...sd.layers import LayerNorm
from ...sd.startup import jt
from ...sd.weights import Rule, load_strict
from .hub_folder import read_hub_weights, read_json

nn = jt.nn

DEFAULTS = {  # of transformers, for keys that a file leaves out
    "vit": {"image_size": 224, "patch_size": 16, "layer_norm_eps": 1e-12, "hidden_act": "gelu"},
    "dinov2": {"image_size": 224, "patch_size": 14, "layer_norm_eps": 1e-6, "hidden_act": "gelu"},
    "clip_vision_model": {
        "image_size": 224,
        "patch_size": 32,
        "layer_norm_eps": 1e-5,
        "hidden_act": "quick_gelu",
    },
}
SIZES = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
FIXED = {"num_channels": 3, "qkv_bias": True, "use_swiglu_ffn": False}  # what is implemented
DINO_TYPES = ("vit", "dinov2")

RULES = (  # the hub's names on the left; transformers saves under them to this day
    Rule(r"^embeddings\.mask_token$", None, "stands in for hidden patches, in training only"),
    Rule(r"^pooler\.", None, "a layer that DINO was trained without"),
    Rule(r"^encoder\.layer\.", "encoder.layers.", "as in CLIP"),
    Rule(r"\.attention\.attention\.query\.", ".self_attn.q_proj.", "as in CLIP"),
    Rule(r"\.attention\.attention\.key\.", ".self_attn.k_proj.", "as in CLIP"),
    Rule(r"\.attention\.attention\.value\.", ".self_attn.v_proj.", "as in CLIP"),
    Rule(r"\.attention\.output\.dense\.", ".self_attn.out_proj.", "as in CLIP"),
    Rule(r"\.intermediate\.dense\.", ".mlp.fc1.", "ViT only"),
    Rule(r"(\d)\.output\.dense\.", r"\1.mlp.fc2.", "ViT only"),
    Rule(r"\.(?:norm1|layernorm_before)\.", ".layer_norm1.", "DINOv2, ViT"),
    Rule(r"\.(?:norm2|layernorm_after)\.", ".layer_norm2.", "DINOv2, ViT"),
)
CUBIC_A = -0.75  # PyTorch's choice of the free number in Keys' cubic convolution


MOST = {**config_json.MOST, "image_size": 8192, "patch_size": 1024}


@dataclass(frozen=True)
class ViTConfig:
    """The numbers of one encoder, under the keys of config.json."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    image_size: int
    patch_size: int
    layer_norm_eps: float
    hidden_act: str
    layer_scale: bool = False  # DINOv2 only

    @classmethod
    def from_json(
        cls, values: dict, where: object, allowed: tuple[str, ...] = DINO_TYPES
    ) -> ViTConfig:
        """Read a config.json of one of the `allowed` model types; keys it lacks take defaults.

        Raises ConfigError naming the first key that is not supported, with its value.
        """
        kind = values.get("model_type")
        if kind not in allowed:
            raise ConfigError(f"{where}: model_type = {kind!r} (supported: {', '.join(allowed)})")
        for key, supported in FIXED.items():
            if values.get(key, supported) != supported:
                problem = f"{key} = {values[key]!r} is not supported (supported: {supported})"
                raise ConfigError(f"{where}: {problem}")
        values = {**SIZES, **DEFAULTS[kind], **values}
        if kind == "dinov2":  # its files give the ratio instead
            values["intermediate_size"] = int(values["hidden_size"] * values.get("mlp_ratio", 4))
        values.setdefault("intermediate_size", 3072)
        values["layer_scale"] = kind == "dinov2"
        config = cls(**{field.name: _one(values[field.name]) for field in fields(cls)})
        config._check(where)
        return config

    def _check(self, where: object) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and (isinstance(value, bool) or type(value) is not int):
                raise ConfigError(f"{where}: {field.name} = {value!r} must be a whole number")
            if field.type == "int" and not 1 <= value <= MOST[field.name]:
                told = f"at least 1 and at most {MOST[field.name]}"
                raise ConfigError(f"{where}: {field.name} = {value!r} must be {told}")
        if self.hidden_act not in ACTIVATIONS:
            known = " or ".join(ACTIVATIONS)
            raise ConfigError(f"{where}: hidden_act = {self.hidden_act!r} (supported: {known})")
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(f"{where}: num_attention_heads must divide {self.hidden_size}")

    @property
    def grid(self) -> int:
        """Patches along one side of an image of `image_size`."""
        return self.image_size // self.patch_size


def _one(value):
    """Sizes are written as n or as [n, n]."""
    same = isinstance(value, list) and len(value) == 2 and value[0] == value[1]
    return value[0] if same else value


class VisionTransformer(nn.Module):
    """ViT or DINOv2: pixels -> tokens, normalised; the first is transformers' pooler_output
    for DINOv2 and the CLS embedding of DINO."""

    def __init__(self, config: ViTConfig, grid_offset: float = 0.0):
        """grid_offset: see `bicubic_matrix`."""
        self.config = config
        self.embeddings = Embeddings(config, grid_offset)
        self.encoder = Encoder(config)
        self.layernorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def execute(self, pixels: jt.Var) -> jt.Var:
        """pixels: (B, 3, H, W) as the image processor gives them.

        Returns (B, 1 + patches, hidden_size).
        """
        return self.layernorm(self.encoder(self.embeddings(pixels)))


class Embeddings(nn.Module):
    def __init__(self, cfg: ViTConfig, grid_offset: float):
        self.grid, self.grid_offset = cfg.grid, grid_offset
        self.cls_token = jt.zeros((1, 1, cfg.hidden_size))
        self.position_embeddings = jt.zeros((1, 1 + cfg.grid**2, cfg.hidden_size))
        self.patch_embeddings = PatchEmbeddings(cfg)

    def execute(self, pixels: jt.Var) -> jt.Var:
        patches = self.patch_embeddings.projection(pixels)
        positions = self._positions(*patches.shape[2:])
        return with_class_token(patches, self.cls_token, positions)

    def _positions(self, height: int, width: int):
        """(1, 1 + height * width, D): the trained ones, resampled if the grid is another."""
        if (height, width) == (self.grid, self.grid):
            return self.position_embeddings
        rows = bicubic_matrix(height, self.grid, self.grid_offset)
        columns = bicubic_matrix(width, self.grid, self.grid_offset)
        both = jt.array(np.kron(rows, columns).astype(np.float32))  # (h * w, grid * grid)
        first, patches = self.position_embeddings[:, :1], self.position_embeddings[0, 1:]
        return jt.concat([first, jt.matmul(both, patches).unsqueeze(0)], 1)


class PatchEmbeddings(nn.Module):
    def __init__(self, cfg: ViTConfig):
        size = cfg.patch_size
        self.projection = nn.Conv(3, cfg.hidden_size, size, stride=size)


def with_class_token(patches: jt.Var, class_token: jt.Var, positions: jt.Var) -> jt.Var:
    """(B, D, h, w) -> (B, 1 + h * w, D): the class token first, then patches by rows, + positions.

    class_token holds D values; positions: (1, 1 + h * w, D).
    """
    batch, dim, height, width = patches.shape
    tokens = patches.reshape(batch, dim, height * width).transpose(0, 2, 1)
    first = class_token.reshape(1, 1, dim).expand(batch, 1, dim)
    return jt.concat([first, tokens], 1) + positions


def bicubic_matrix(size: int, from_size: int, offset: float = 0.0) -> np.ndarray:
    """The (size, from_size) matrix of PyTorch's bicubic `interpolate`, not antialiased.

    Pixel centres map by from_size / (size + offset). offset 0 is current transformers
    (`size=`). The original DINO and DINOv2 code and transformers of 2024 and before ask for a
    scale factor of (size + 0.1) / from_size instead, which shifts the samples: offset 0.1.
    """
    at = (np.arange(size) + 0.5) * (from_size / (size + offset)) - 0.5
    left = np.floor(at).astype(int)
    matrix = np.zeros((size, from_size))
    for tap in range(-1, 3):
        weight = _cubic(at - (left + tap))
        columns = np.clip(left + tap, 0, from_size - 1)  # the border is repeated
        np.add.at(matrix, (np.arange(size), columns), weight)
    return matrix


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel (IEEE TASSP 29, 1981)."""
    d, a = np.abs(distance), CUBIC_A
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


class Encoder(nn.Module):
    def __init__(self, cfg: ViTConfig):
        self.layers = nn.ModuleList([Block(cfg) for _ in range(cfg.num_hidden_layers)])

    def execute(self, x: jt.Var) -> jt.Var:
        for layer in self.layers:
            x = layer(x)
        return x


class Block(nn.Module):
    def __init__(self, cfg: ViTConfig):
        self.layer_norm1 = LayerNorm(cfg.hidden_size, cfg.layer_norm_eps)
        self.self_attn = SelfAttention(cfg)
        self.layer_norm2 = LayerNorm(cfg.hidden_size, cfg.layer_norm_eps)
        self.mlp = MLP(cfg)
        self.layer_scale1 = LayerScale(cfg.hidden_size) if cfg.layer_scale else None
        self.layer_scale2 = LayerScale(cfg.hidden_size) if cfg.layer_scale else None

    def execute(self, x: jt.Var) -> jt.Var:
        x = x + _scaled(self.layer_scale1, self.self_attn(self.layer_norm1(x)))
        return x + _scaled(self.layer_scale2, self.mlp(self.layer_norm2(x)))


def _scaled(scale, x):
    return x if scale is None else scale(x)


class LayerScale(nn.Module):
    """A factor per channel (arXiv:2103.17239)."""

    def __init__(self, dim: int):
        self.lambda1 = jt.ones(dim)

    def execute(self, x: jt.Var) -> jt.Var:
        return x * self.lambda1


class SelfAttention(nn.Module):
    def __init__(self, cfg: ViTConfig):
        dim = cfg.hidden_size
        self.num_heads = cfg.num_attention_heads
        self.scale = (dim // self.num_heads) ** -0.5
        self.q_proj, self.k_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.v_proj, self.out_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def execute(self, x: jt.Var) -> jt.Var:
        batch, tokens, dim = x.shape
        heads = (batch, tokens, self.num_heads, dim // self.num_heads)
        q, k, v = (proj(x).reshape(heads) for proj in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(attend(q, k, v, self.scale).reshape((batch, tokens, dim)))


class MLP(nn.Module):
    def __init__(self, cfg: ViTConfig):
        self.hidden_act = cfg.hidden_act
        self.fc1 = nn.Linear(cfg.hidden_size, cfg.intermediate_size)
        self.fc2 = nn.Linear(cfg.intermediate_size, cfg.hidden_size)

    def execute(self, x: jt.Var) -> jt.Var:
        return self.fc2(ACTIVATIONS[self.hidden_act](self.fc1(x)))


def load_vit(folder: Path | str, grid_offset: float = 0.0) -> VisionTransformer:
    """The network in a hub folder such as facebook/dinov2-base or facebook/dino-vits16.

    Raises ConfigError or WeightsError; every weight of the network has to be in the file.
    """
    config = ViTConfig.from_json(read_json(folder, "config.json"), Path(folder) / "config.json")
    model = VisionTransformer(config, grid_offset)
    tensors, path = read_hub_weights(folder)
    load_strict(model, tensors, RULES, path)
    return model
