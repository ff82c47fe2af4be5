"""UNet2DConditionModel of Stable Diffusion 1.x and 2.x (arXiv:2112.10752), with diffusers'
names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .attention import Transformer2DModel
from .config import UNetConfig
from .layers import (
    Conv2d,
    Downsample2D,
    GroupNorm,
    ResnetBlock2D,
    TimestepEmbedding,
    Upsample2D,
    silu,
    timestep_features,
)
from .startup import jt

nn = jt.nn


class _Factory:
    """Makes the repeated parts of one UNet, so that blocks name only what differs."""

    def __init__(self, cfg: UNetConfig):
        self.cfg, self.temb_dim = cfg, 4 * cfg.block_out_channels[0]

    def resnet(self, in_channels: int, out_channels: int):
        groups, eps = self.cfg.norm_num_groups, self.cfg.norm_eps
        return ResnetBlock2D(in_channels, out_channels, self.temb_dim, groups, eps)

    def attention(self, channels: int, num_heads: int):
        cfg = self.cfg
        return Transformer2DModel(
            channels,
            cfg.cross_attention_dim,
            num_heads,
            cfg.use_linear_projection,
            cfg.norm_num_groups,
        )


class DownBlock(nn.Module):
    """`layers` x (resnet, attention if num_heads is given), then a downsampler but for the last."""

    def __init__(self, make, in_channels, out_channels, layers, num_heads, downsample):
        inputs = [in_channels] + [out_channels] * (layers - 1)
        self.resnets = nn.ModuleList([make.resnet(i, out_channels) for i in inputs])
        self.attentions = _attentions(make, out_channels, num_heads, layers)
        self.downsamplers = nn.ModuleList([Downsample2D(out_channels)]) if downsample else None

    def execute(self, x: jt.Var, temb: jt.Var, context: jt.Var) -> tuple[jt.Var, list]:
        """Returns the output and, for the skip connections, every intermediate one."""
        skips = []
        for i, resnet in enumerate(self.resnets):
            x = resnet(x, temb)
            if self.attentions is not None:
                x = self.attentions[i](x, context)
            skips.append(x)
        if self.downsamplers is not None:
            x = self.downsamplers[0](x)
            skips.append(x)
        return x, skips


class MidBlock(nn.Module):
    def __init__(self, make, channels, num_heads):
        self.resnets = nn.ModuleList([make.resnet(channels, channels) for _ in range(2)])
        self.attentions = nn.ModuleList([make.attention(channels, num_heads)])

    def execute(self, x: jt.Var, temb: jt.Var, context: jt.Var) -> jt.Var:
        x = self.attentions[0](self.resnets[0](x, temb), context)
        return self.resnets[1](x, temb)


class UpBlock(nn.Module):
    """Like DownBlock, but every resnet first takes one skip connection off the stack."""

    def __init__(self, make, in_channels, skip_channels, out_channels, num_heads, upsample):
        inputs = [in_channels] + [out_channels] * (len(skip_channels) - 1)
        self.resnets = nn.ModuleList(
            [make.resnet(i + s, out_channels) for i, s in zip(inputs, skip_channels, strict=True)]
        )
        self.attentions = _attentions(make, out_channels, num_heads, len(skip_channels))
        self.upsamplers = nn.ModuleList([Upsample2D(out_channels)]) if upsample else None

    def execute(self, x: jt.Var, skips: list, temb: jt.Var, context: jt.Var) -> jt.Var:
        for i, resnet in enumerate(self.resnets):
            x = resnet(jt.concat([x, skips.pop()], 1), temb)
            if self.attentions is not None:
                x = self.attentions[i](x, context)
        return x if self.upsamplers is None else self.upsamplers[0](x)


def _attentions(make, channels, num_heads, count):
    if num_heads is None:
        return None
    return nn.ModuleList([make.attention(channels, num_heads) for _ in range(count)])


class UNet2DConditionModel(nn.Module):
    """Predicts noise, velocity or image (the schedule knows which) from a noised latent."""

    def __init__(self, cfg: UNetConfig):
        self.config = cfg
        make, widths, layers = _Factory(cfg), cfg.block_out_channels, cfg.layers_per_block
        self.conv_in = Conv2d(cfg.in_channels, widths[0], 3, padding=1)
        self.time_embedding = TimestepEmbedding(widths[0], make.temb_dim)

        last = len(widths) - 1
        skips, down, channels = [widths[0]], [], widths[0]
        for i, (kind, width) in enumerate(zip(cfg.down_block_types, widths, strict=True)):
            heads = cfg.num_heads[i] if "CrossAttn" in kind else None
            down.append(DownBlock(make, channels, width, layers, heads, downsample=i < last))
            skips += [width] * (layers + (i < last))
            channels = width
        self.down_blocks = nn.ModuleList(down)
        self.mid_block = MidBlock(make, widths[-1], cfg.num_heads[-1])

        up = []
        for i, kind in enumerate(cfg.up_block_types):
            width = widths[last - i]
            heads = cfg.num_heads[last - i] if "CrossAttn" in kind else None
            taken = [skips.pop() for _ in range(layers + 1)]
            up.append(UpBlock(make, channels, taken, width, heads, upsample=i < last))
            channels = width
        self.up_blocks = nn.ModuleList(up)
        self.conv_norm_out = GroupNorm(cfg.norm_num_groups, widths[0], cfg.norm_eps, silu=True)
        self.conv_out = Conv2d(widths[0], cfg.out_channels, 3, padding=1)
        self._sites = _name_sites(self)
        self.facts = None  # of the evaluation that runs, see facts.py

    def execute(self, z: jt.Var, t: float | Sequence[float] | jt.Var, context: jt.Var) -> jt.Var:
        """z: (B, C, h, w), h and w multiples of 2**(levels - 1); t: an int or B of them, 0..T-1;
        context: (B, L, cross_attention_dim). Returns (B, C_out, h, w)."""
        step = 2 ** (len(self.config.block_out_channels) - 1)
        if z.shape[2] % step or z.shape[3] % step:
            raise ValueError(
                f"latent height and width must be multiples of {step}, got {tuple(z.shape[2:])}"
            )
        temb = silu(self._time(t, z.shape[0]).cast(z.dtype))
        x = self.conv_in(z)
        skips = [x]
        for block in self.down_blocks:
            x, more = block(x, temb, context)
            skips += more
        skips, x = self.residuals(skips, self.mid_block(x, temb, context))
        for block in self.up_blocks:
            x = block(x, skips, temb, context)
        return self.conv_out(self.conv_norm_out(x))

    def residuals(self, skips: list, x: jt.Var) -> tuple[list, jt.Var]:
        """What the up blocks start from: the skip connections, outermost first, and the middle
        block's output. Hooks add to them here."""
        return skips, x

    def _time(self, t, batch: int):
        cfg = self.config
        t = np.broadcast_to(np.asarray(t).reshape(-1), (batch,))
        features = timestep_features(
            t, cfg.block_out_channels[0], cfg.flip_sin_to_cos, cfg.freq_shift
        )
        bias = self.time_embedding.linear_1.bias  # a weight may be kept in half and used in float32
        return self.time_embedding(jt.array(features).cast(bias.dtype))

    def attention(self, site: str) -> Transformer2DModel:
        """The attention module called `site`. Raises KeyError that lists the valid names."""
        if site not in self._sites:
            raise KeyError(f"no attention called {site!r}; valid: {', '.join(self._sites)}")
        return self._sites[site]

    def attention_sites(self, self_only: bool = True) -> tuple[str, ...]:
        """Names of the attentions in the order in which they run."""
        return tuple(s for s in self._sites if s.endswith("attn1") or not self_only)


def _name_sites(unet) -> dict:
    sites = {}
    stages = [(f"down_blocks.{i}", b) for i, b in enumerate(unet.down_blocks)]
    stages.append(("mid_block", unet.mid_block))
    stages += [(f"up_blocks.{i}", b) for i, b in enumerate(unet.up_blocks)]
    for stage, block in stages:
        for i, transformer in enumerate(block.attentions or []):
            for name in ("attn1", "attn2"):
                site = f"{stage}.attentions.{i}.transformer_blocks.0.{name}"
                module = getattr(transformer.transformer_blocks[0], name)
                module.site, sites[site] = site, module
    return sites
