"""The CLIP text encoder of Stable Diffusion 1.x and 2.x.

Attribute names follow the checkpoints (transformers before version 5). SD 1.x reads the last of 12
layers; SD 2.x reads the penultimate of 24, and its checkpoints simply hold 23. In both cases the
final layer norm is applied to what the last layer here gives.
Source: Radford et al., arXiv:2103.00020; transformers, models/clip/modeling_clip.py.
"""

from __future__ import annotations

from itertools import islice

import numpy as np

from .config import CLIPTextConfig
from .kernels import attend
from .layers import LayerNorm
from .startup import jt

nn = jt.nn

INIT_STD = 0.02  # of both embeddings in a model that is trained from scratch


def quick_gelu(x: jt.Var) -> jt.Var:
    """x * sigmoid(1.702 x), CLIP's own approximation of GELU."""
    return x * jt.sigmoid(1.702 * x)


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": nn.gelu}


class CLIPTextModel(nn.Module):
    """Token ids -> hidden states for the UNet's cross-attention."""

    def __init__(self, config: CLIPTextConfig):
        self.config = config
        self.text_model = CLIPTextTransformer(config)

    def execute(self, ids: jt.Var, skip: int = 1) -> jt.Var:
        """ids: integers (B, L), NumPy array, nested list or Var, L <= max_position_embeddings.
        skip: which layer is read, counted from the end: 1 is the last, as the model was trained.

        Returns (B, L, hidden_size), after the final layer norm.
        Raises ValueError for a wrong rank, too many tokens, a layer that there is not, or (not for
        a Var, whose values are on the device) an id outside the vocabulary.
        """
        layers = self.config.num_hidden_layers
        if not 1 <= skip <= layers:
            raise ValueError(
                f"clip_skip must be in 1..{layers}, the layers of this model's text encoder, "
                f"got {skip}"
            )
        return self.text_model(_checked(ids, self.config), layers + 1 - skip)


def _checked(ids, cfg: CLIPTextConfig):
    if not isinstance(ids, jt.Var):
        ids = np.asarray(ids)
        if ids.size and not 0 <= ids.min() <= ids.max() < cfg.vocab_size:
            # Jittor would read zeros there
            raise ValueError(
                f"token ids must be in 0..{cfg.vocab_size - 1}, got {ids.min()}..{ids.max()}"
            )
        ids = jt.array(ids.astype(np.int32))
    if len(ids.shape) != 2 or ids.shape[1] > cfg.max_position_embeddings:
        raise ValueError(
            f"token ids must have shape (B, L) with L <= {cfg.max_position_embeddings}, "
            f"got {tuple(ids.shape)}"
        )
    return ids


class CLIPTextTransformer(nn.Module):
    def __init__(self, cfg: CLIPTextConfig):
        self.embeddings = CLIPTextEmbeddings(cfg)
        self.encoder = CLIPEncoder(cfg)
        self.final_layer_norm = LayerNorm(cfg.hidden_size, cfg.layer_norm_eps)

    def execute(self, ids: jt.Var, layers: int | None = None) -> jt.Var:
        """layers: how many are gone through, from the first on; None: all."""
        return self.final_layer_norm(self.encoder(self.embeddings(ids), layers))


class CLIPTextEmbeddings(nn.Module):
    def __init__(self, cfg: CLIPTextConfig):
        self.token_embedding = _embedding(cfg.vocab_size, cfg.hidden_size)
        self.position_embedding = _embedding(cfg.max_position_embeddings, cfg.hidden_size)

    def execute(self, ids: jt.Var) -> jt.Var:
        tokens, places = self.token_embedding(ids), self.position_embedding.weight[: ids.shape[1]]
        return tokens + (places if places.dtype == tokens.dtype else places.cast(tokens.dtype))


def _embedding(count: int, dim: int):
    table = nn.Embedding(count, dim)
    table.weight = jt.init.gauss((count, dim), "float32", 0.0, INIT_STD)
    return table


class CLIPEncoder(nn.Module):
    def __init__(self, cfg: CLIPTextConfig):
        self.layers = nn.ModuleList([CLIPEncoderLayer(cfg) for _ in range(cfg.num_hidden_layers)])

    def execute(self, x: jt.Var, layers: int | None = None) -> jt.Var:
        for layer in islice(self.layers, layers):
            x = layer(x)
        return x


class CLIPEncoderLayer(nn.Module):
    def __init__(self, cfg: CLIPTextConfig):
        self.self_attn = CLIPAttention(cfg)
        self.layer_norm1 = LayerNorm(cfg.hidden_size, cfg.layer_norm_eps)
        self.mlp = CLIPMLP(cfg)
        self.layer_norm2 = LayerNorm(cfg.hidden_size, cfg.layer_norm_eps)

    def execute(self, x: jt.Var) -> jt.Var:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class CLIPAttention(nn.Module):
    """Self-attention in which every token sees itself and the tokens before it."""

    def __init__(self, cfg: CLIPTextConfig):
        dim = cfg.hidden_size
        self.num_heads = cfg.num_attention_heads
        self.scale = (dim // self.num_heads) ** -0.5
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def execute(self, x: jt.Var) -> jt.Var:
        batch, tokens, dim = x.shape
        heads = (batch, tokens, self.num_heads, dim // self.num_heads)
        q, k, v = (proj(x).reshape(heads) for proj in (self.q_proj, self.k_proj, self.v_proj))
        merged = attend(q, k, v, self.scale, causal=True).reshape((batch, tokens, dim))
        return self.out_proj(merged)


class CLIPMLP(nn.Module):
    def __init__(self, cfg: CLIPTextConfig):
        self.hidden_act = cfg.hidden_act
        self.fc1 = nn.Linear(cfg.hidden_size, cfg.intermediate_size)
        self.fc2 = nn.Linear(cfg.intermediate_size, cfg.hidden_size)

    def execute(self, x: jt.Var) -> jt.Var:
        return self.fc2(ACTIVATIONS[self.hidden_act](self.fc1(x)))
