"""Attention, and the transformer around it. `Attention.attend` is where hooks change it."""

from __future__ import annotations

from .kernels import attend
from .layers import Conv2d, FeedForward, GroupNorm, LayerNorm
from .startup import jt

nn = jt.nn


class Attention(nn.Module):
    """Multi-head attention; self-attention when no context is given."""

    def __init__(self, dim: int, context_dim: int | None, num_heads: int, qkv_bias: bool = False):
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.to_q = nn.Linear(dim, dim, bias=qkv_bias)
        self.to_k = nn.Linear(context_dim or dim, dim, bias=qkv_bias)
        self.to_v = nn.Linear(context_dim or dim, dim, bias=qkv_bias)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim), nn.Identity()])
        self.site = ""  # the module's name inside the UNet, set there

    def execute(self, x: jt.Var, context: jt.Var = None) -> jt.Var:
        """x: (B, tokens, dim); context: (B, other tokens, context_dim). Returns x's shape."""
        source = x if context is None else context
        q, k, v = (self._heads(project(s)) for project, s in self._projections(x, source))
        out = self.attend(q, k, v)
        return self.to_out[0](out.reshape(out.shape[0], out.shape[1], -1))

    def attend(self, q: jt.Var, k: jt.Var, v: jt.Var) -> jt.Var:
        """softmax(q k^T / sqrt(head_dim)) v; all (B, tokens, heads, head_dim)."""
        return attend(q, k, v, self.scale)

    def _projections(self, x, source):
        return (self.to_q, x), (self.to_k, source), (self.to_v, source)

    def _heads(self, x):
        return x.reshape(x.shape[0], x.shape[1], self.num_heads, -1)


class SpatialAttention(Attention):
    """The VAE's attention: one head over all pixels, with its own norm and residual."""

    def __init__(self, channels: int, groups: int, eps: float):
        super().__init__(channels, None, num_heads=1, qkv_bias=True)
        self.group_norm = GroupNorm(groups, channels, eps)

    def execute(self, x: jt.Var) -> jt.Var:  # type: ignore[override]  # pictures, not tokens
        """x: (B, C, H, W). Returns the same shape."""
        tokens = to_tokens(self.group_norm(x))
        return x + to_image(super().execute(tokens), x.shape)


class BasicTransformerBlock(nn.Module):
    """Self-attention, cross-attention, feed-forward; each normed before and added after."""

    def __init__(self, dim: int, context_dim: int, num_heads: int):
        self.norm1 = LayerNorm(dim)
        self.attn1 = Attention(dim, None, num_heads)
        self.norm2 = LayerNorm(dim)
        self.attn2 = Attention(dim, context_dim, num_heads)
        self.norm3 = LayerNorm(dim)
        self.ff = FeedForward(dim)

    def execute(self, x: jt.Var, context: jt.Var) -> jt.Var:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class Transformer2DModel(nn.Module):
    """A transformer block over the pixels of a feature map, with a residual around it.

    SD 1.x projects with 1x1 convolutions before flattening, SD 2.x with linear layers after it.
    """

    def __init__(self, channels: int, context_dim: int, num_heads: int, linear: bool, groups: int):
        self.linear = linear
        self.norm = GroupNorm(groups, channels, 1e-6)
        project = nn.Linear if linear else lambda i, o: Conv2d(i, o, 1)
        self.proj_in = project(channels, channels)
        self.transformer_blocks = nn.ModuleList(
            [BasicTransformerBlock(channels, context_dim, num_heads)]
        )
        self.proj_out = project(channels, channels)

    def execute(self, x: jt.Var, context: jt.Var) -> jt.Var:
        """x: (B, C, H, W); context: (B, L, D). Returns x's shape."""
        h = self.norm(x)
        h = self.proj_in(to_tokens(h)) if self.linear else to_tokens(self.proj_in(h))
        h = self.transformer_blocks[0](h, context)
        if self.linear:
            return x + to_image(self.proj_out(h), x.shape)
        return x + self.proj_out(to_image(h, x.shape))


def to_tokens(x: jt.Var) -> jt.Var:
    """(B, C, H, W) -> (B, H*W, C)."""
    return x.reshape(x.shape[0], x.shape[1], -1).transpose(0, 2, 1)


def to_image(tokens: jt.Var, shape: tuple) -> jt.Var:
    """(B, H*W, C) -> (B, C, H, W), with H and W taken from `shape`."""
    return tokens.transpose(0, 2, 1).reshape(tuple(shape))
