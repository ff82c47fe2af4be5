"""CLIP: the image tower, the text tower of Stable Diffusion's text encoder, and the projections.

Names follow the hub's files (openai/clip-vit-large-patch14, openai/clip-vit-base-patch32).
Source: Radford et al., arXiv:2103.00020; transformers 5, models/clip/modeling_clip.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...sd.clip import CLIPTextTransformer
from ...sd.config import CLIPTextConfig
from ...sd.config_json import MOST, ConfigError
from ...sd.layers import LayerNorm
from ...sd.limits import is_whole
from ...sd.startup import jt
from ...sd.tokenizer import Tokenizer
from ...sd.weights import Rule, StoredTensor, load_strict
from ..processing import ImageProcessor, read_processor
from .hub_folder import read_hub_weights, read_json
from .vit import Encoder, ViTConfig, with_class_token

nn = jt.nn

RULES = (
    Rule(
        r"^(text|vision)_model\.embeddings\.position_ids$",
        None,
        "a buffer of old files: 0, 1, 2, ...",
    ),
)
ONCE_WRONG_EOS = 2  # in OpenAI's config files; the end is then the largest id of a row
WORDS_AT_ONCE = 64


@dataclass(frozen=True)
class CLIPConfig:
    text: CLIPTextConfig
    vision: ViTConfig
    projection_dim: int

    @classmethod
    def from_json(cls, values: dict, where: object) -> CLIPConfig:
        """Read the config.json of a whole CLIP model. Raises ConfigError."""
        if values.get("model_type") != "clip":
            kind = values.get("model_type")
            raise ConfigError(f"{where}: model_type = {kind!r} (supported: clip)")
        text, vision = _tower(values, "text", where), _tower(values, "vision", where)
        dim = values.get("projection_dim", 512)
        if not is_whole(dim, 1, MOST["hidden_size"]):
            told = f"must be a whole number above 0, at most {MOST['hidden_size']}"
            raise ConfigError(f"{where}: projection_dim = {dim!r} {told}")
        return cls(
            CLIPTextConfig.from_json(text, f"{where}: text_config"),
            ViTConfig.from_json(vision, f"{where}: vision_config", ("clip_vision_model",)),
            dim,
        )


def _tower(values: dict, which: str, where: object) -> dict:
    """One tower's keys; old files hold them twice, and the one called _dict wins."""
    parts = [values.get(f"{which}_config"), values.get(f"{which}_config_dict")]
    parts = [{} if part is None else part for part in parts]
    if not all(isinstance(part, dict) for part in parts):
        raise ConfigError(f"{where}: {which}_config must be an object")
    return {**parts[0], **parts[1], "model_type": f"clip_{which}_model"}


class CLIPModel(nn.Module):
    def __init__(self, config: CLIPConfig):
        self.config = config
        self.text_model = CLIPTextTransformer(config.text)
        self.vision_model = CLIPVisionTransformer(config.vision)
        dim = config.projection_dim
        self.visual_projection = nn.Linear(config.vision.hidden_size, dim, bias=False)
        self.text_projection = nn.Linear(config.text.hidden_size, dim, bias=False)
        self.logit_scale = jt.zeros(1)

    def encode_image(self, pixels: jt.Var) -> jt.Var:
        """pixels: (B, 3, image_size, image_size), processed. Returns (B, projection_dim)."""
        return self.visual_projection(self.vision_model(pixels))

    def encode_text(self, ids: np.ndarray) -> jt.Var:
        """ids: (B, L) of the tokenizer. Returns (B, projection_dim), read at the end of each text.

        What is padded after the end changes nothing, so all rows are cut to the longest.
        """
        ends = end_positions(ids, self.config.text.eos_token_id)
        ids = ids[:, : ends.max() + 1].astype(np.int32)
        hidden = self.text_model(jt.array(ids))
        rows = jt.array(np.arange(len(ids), dtype=np.int32))
        return self.text_projection(hidden[rows, jt.array(ends.astype(np.int32))])


def end_positions(ids: np.ndarray, eos_token_id: int | None) -> np.ndarray:
    """The place (B,) of each row's end token."""
    if eos_token_id in (None, ONCE_WRONG_EOS):
        return ids.argmax(1)
    return (ids == eos_token_id).argmax(1)


class CLIPVisionTransformer(nn.Module):
    """Pixels -> the first token after the last block, normalised: (B, hidden_size)."""

    def __init__(self, cfg: ViTConfig):
        self.embeddings = CLIPVisionEmbeddings(cfg)
        self.pre_layrnorm = LayerNorm(cfg.hidden_size, cfg.layer_norm_eps)  # so spelt in the files
        self.encoder = Encoder(cfg)
        self.post_layernorm = LayerNorm(cfg.hidden_size, cfg.layer_norm_eps)

    def execute(self, pixels: jt.Var) -> jt.Var:
        tokens = self.encoder(self.pre_layrnorm(self.embeddings(pixels)))
        return self.post_layernorm(tokens[:, 0])


class CLIPVisionEmbeddings(nn.Module):
    def __init__(self, cfg: ViTConfig):
        size = cfg.patch_size
        self.image_size = cfg.image_size
        self.class_embedding = jt.zeros(cfg.hidden_size)
        self.patch_embedding = nn.Conv(3, cfg.hidden_size, size, stride=size, bias=False)
        self.position_embedding = Table(1 + cfg.grid**2, cfg.hidden_size)

    def execute(self, pixels: jt.Var) -> jt.Var:
        if tuple(pixels.shape[2:]) != (self.image_size, self.image_size):
            raise ValueError(
                f"CLIP's image tower takes {self.image_size} x {self.image_size} pixels, "
                f"got {pixels.shape[2]} x {pixels.shape[3]}"
            )
        patches = self.patch_embedding(pixels)
        positions = self.position_embedding.weight.unsqueeze(0)
        return with_class_token(patches, self.class_embedding, positions)


class Table(nn.Module):
    def __init__(self, rows: int, dim: int):
        self.weight = jt.zeros((rows, dim))


class CLIP:
    """A CLIP model with its tokenizer and image processor: uint8 images and texts -> features."""

    def __init__(self, model: CLIPModel, tokenizer: Tokenizer, processor: ImageProcessor):
        self.model, self.tokenizer, self.processor = model, tokenizer, processor

    @classmethod
    def from_folder(cls, folder: Path | str) -> CLIP:
        """Read a hub folder. Raises ConfigError, WeightsError, or what the tokenizer raises."""
        config = CLIPConfig.from_json(read_json(folder, "config.json"), f"{folder}/config.json")
        processor = read_processor(folder)
        tokenizer = Tokenizer.from_folder(folder)
        if len(tokenizer) > config.text.vocab_size:
            raise ConfigError(
                f"{folder}: the tokenizer has {len(tokenizer)} tokens, more than "
                f"vocab_size = {config.text.vocab_size}"
            )
        model = CLIPModel(config)
        tensors, path = read_hub_weights(folder)
        load_strict(model, _with_row_scale(tensors), RULES, path)
        return cls(model, tokenizer, processor)

    def images(self, batch: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, 3) RGB -> float32 (B, projection_dim), not normalised."""
        with jt.no_grad():
            return self.model.encode_image(jt.array(self.processor(batch))).numpy()

    def texts(self, texts: list[str]) -> np.ndarray:
        """float32 (len(texts), projection_dim), not normalised; a few texts at a time."""
        ids = self.tokenizer(texts)
        with jt.no_grad():
            parts = [
                self.model.encode_text(ids[i : i + WORDS_AT_ONCE]).numpy()
                for i in range(0, len(ids), WORDS_AT_ONCE)
            ]
        return np.concatenate(parts)

    @property
    def scale(self) -> float:
        """The trained factor between a cosine and a logit, 100 for OpenAI's models."""
        return float(np.exp(self.model.logit_scale.numpy()[0]))


def _with_row_scale(tensors) -> dict:
    """logit_scale is a scalar in the files; Jittor's smallest shape is (1,)."""
    scale = tensors.get("logit_scale")
    if scale is None or tuple(scale.shape) != ():
        return dict(tensors)
    values = scale.array() if isinstance(scale, StoredTensor) else np.asarray(scale)
    return {**tensors, "logit_scale": values.reshape(1)}
