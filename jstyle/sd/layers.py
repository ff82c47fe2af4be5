"""Blocks without attention. Names and tensor layouts follow diffusers, so checkpoints fit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import kernels
from .startup import jt

nn = jt.nn


class GroupNorm(nn.Module):
    """GroupNorm on (B, C, ...), optionally followed by SiLU in the same pass."""

    def __init__(self, groups: int, channels: int, eps: float, silu: bool = False):
        self.groups, self.eps, self.silu = groups, eps, silu
        self.weight, self.bias = jt.ones(channels), jt.zeros(channels)

    def execute(self, x: jt.Var) -> jt.Var:
        return kernels.group_norm(x, self.groups, self.weight, self.bias, self.eps, self.silu)


class LayerNorm(nn.Module):
    """LayerNorm over the last dimension."""

    def __init__(self, dim: int, eps: float = 1e-5):
        self.eps = eps
        self.weight, self.bias = jt.ones(dim), jt.zeros(dim)

    def execute(self, x: jt.Var) -> jt.Var:
        return kernels.layer_norm(x, self.weight, self.bias, self.eps)


class Conv2d(nn.Conv):
    """Jittor's convolution, by the kernel that is the fastest for the size."""

    def execute(self, x: jt.Var) -> jt.Var:
        y = kernels.convolve(x, self.weight, self.stride[0], self.padding[0])
        return y if self.bias is None else y + self.bias.broadcast(y.shape, [0, 2, 3])


def silu(x: jt.Var) -> jt.Var:
    return x * jt.sigmoid(x)


def timestep_features(t: Any, dim: int, flip_sin_to_cos: bool, freq_shift: float) -> np.ndarray:
    """Sinusoids of the timesteps t (B,), computed in float64 on the host. Returns (B, dim) float32.

    Source: arXiv:1706.03762 section 3.5, with the order and shift that the model's config names.
    """
    half = dim // 2
    rate = np.exp(-math.log(10000) * np.arange(half) / (half - freq_shift))
    angle = np.asarray(t, np.float64).reshape(-1, 1) * rate
    parts = (np.cos(angle), np.sin(angle)) if flip_sin_to_cos else (np.sin(angle), np.cos(angle))
    return np.concatenate(parts, 1).astype(np.float32)


class TimestepEmbedding(nn.Module):
    def __init__(self, in_dim: int, dim: int):
        self.linear_1 = nn.Linear(in_dim, dim)
        self.linear_2 = nn.Linear(dim, dim)

    def execute(self, features: jt.Var) -> jt.Var:
        return self.linear_2(silu(self.linear_1(features)))


class ResnetBlock2D(nn.Module):
    """norm, SiLU, conv, + time, norm, SiLU, conv, + input. temb_dim None: no timestep (the VAE)."""

    def __init__(self, in_channels, out_channels, temb_dim, groups, eps):
        self.norm1 = GroupNorm(groups, in_channels, eps, silu=True)
        self.conv1 = Conv2d(in_channels, out_channels, 3, padding=1)
        if temb_dim is not None:
            self.time_emb_proj = nn.Linear(temb_dim, out_channels)
        self.norm2 = GroupNorm(groups, out_channels, eps, silu=True)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = (
            Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None
        )

    def execute(self, x: jt.Var, temb: jt.Var = None) -> jt.Var:
        """x: (B, C_in, H, W); temb: (B, temb_dim), already through SiLU. Returns x's size."""
        h = self.conv1(self.norm1(x))
        if temb is not None:
            h = h + self.time_emb_proj(temb).unsqueeze(2).unsqueeze(3)
        h = self.conv2(self.norm2(h))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + h


class Downsample2D(nn.Module):
    """Halve H and W. The UNet pads evenly; the VAE encoder pads only right and below."""

    def __init__(self, channels: int, asymmetric: bool = False):
        self.asymmetric = asymmetric
        self.conv = Conv2d(channels, channels, 3, stride=2, padding=0 if asymmetric else 1)

    def execute(self, x: jt.Var) -> jt.Var:
        if self.asymmetric:
            x = nn.pad(x, [0, 1, 0, 1])
        return self.conv(x)


class Upsample2D(nn.Module):
    """Double H and W: nearest neighbour, then a convolution."""

    def __init__(self, channels: int):
        self.conv = Conv2d(channels, channels, 3, padding=1)

    def execute(self, x: jt.Var) -> jt.Var:
        return self.conv(nn.interpolate(x, scale_factor=2, mode="nearest"))


class GEGLU(nn.Module):
    def __init__(self, dim: int, inner: int):
        self.proj = nn.Linear(dim, 2 * inner)

    def execute(self, x: jt.Var) -> jt.Var:
        return kernels.geglu(self.proj(x))


class FeedForward(nn.Module):
    """GEGLU of four times the width. `net.1` is diffusers' dropout, kept for the names."""

    def __init__(self, dim: int):
        self.net = nn.ModuleList([GEGLU(dim, 4 * dim), nn.Identity(), nn.Linear(4 * dim, dim)])

    def execute(self, x: jt.Var) -> jt.Var:
        return self.net[2](self.net[0](x))
