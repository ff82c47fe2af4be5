"""AutoencoderKL of Stable Diffusion (arXiv:2112.10752, appendix G), with diffusers' names.

Pixels (B, 3, H, W) in [-1, 1]; latents (B, C, H/f, W/f) with f = 2 ** (levels - 1). The scaling
factor is not applied here but in the pipeline.
"""

from __future__ import annotations

from .attention import SpatialAttention
from .config import VAEConfig
from .layers import Conv2d, Downsample2D, GroupNorm, ResnetBlock2D, Upsample2D
from .startup import jt

nn = jt.nn

EPS = 1e-6


class _Block(nn.Module):
    """Resnets, then a down- or upsampler if there is one."""

    def __init__(self, in_channels, out_channels, layers, groups, down=False, up=False):
        inputs = [in_channels] + [out_channels] * (layers - 1)
        self.resnets = nn.ModuleList(
            [ResnetBlock2D(i, out_channels, None, groups, EPS) for i in inputs]
        )
        self.downsamplers = (
            nn.ModuleList([Downsample2D(out_channels, asymmetric=True)]) if down else None
        )
        self.upsamplers = nn.ModuleList([Upsample2D(out_channels)]) if up else None

    def execute(self, x):
        for resnet in self.resnets:
            x = resnet(x)
        for sampler in self.downsamplers or self.upsamplers or []:
            x = sampler(x)
        return x


class _MidBlock(nn.Module):
    def __init__(self, channels, groups):
        self.resnets = nn.ModuleList(
            [ResnetBlock2D(channels, channels, None, groups, EPS) for _ in range(2)]
        )
        self.attentions = nn.ModuleList([SpatialAttention(channels, groups, EPS)])

    def execute(self, x):
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Encoder(nn.Module):
    def __init__(self, cfg: VAEConfig):
        widths, groups = cfg.block_out_channels, cfg.norm_num_groups
        self.conv_in = Conv2d(cfg.in_channels, widths[0], 3, padding=1)
        inputs = (widths[0], *widths[:-1])
        self.down_blocks = nn.ModuleList(
            [
                _Block(i, o, cfg.layers_per_block, groups, down=n < len(widths) - 1)
                for n, (i, o) in enumerate(zip(inputs, widths, strict=True))
            ]
        )
        self.mid_block = _MidBlock(widths[-1], groups)
        self.conv_norm_out = GroupNorm(groups, widths[-1], EPS, silu=True)
        self.conv_out = Conv2d(widths[-1], 2 * cfg.latent_channels, 3, padding=1)

    def execute(self, x: jt.Var) -> jt.Var:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(self.conv_norm_out(self.mid_block(x)))


class Decoder(nn.Module):
    def __init__(self, cfg: VAEConfig):
        widths, groups = cfg.block_out_channels[::-1], cfg.norm_num_groups
        self.conv_in = Conv2d(cfg.latent_channels, widths[0], 3, padding=1)
        self.mid_block = _MidBlock(widths[0], groups)
        inputs = (widths[0], *widths[:-1])
        self.up_blocks = nn.ModuleList(
            [
                _Block(i, o, cfg.layers_per_block + 1, groups, up=n < len(widths) - 1)
                for n, (i, o) in enumerate(zip(inputs, widths, strict=True))
            ]
        )
        self.conv_norm_out = GroupNorm(groups, widths[-1], EPS, silu=True)
        self.conv_out = Conv2d(widths[-1], cfg.out_channels, 3, padding=1)

    def execute(self, z: jt.Var) -> jt.Var:
        x = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(self.conv_norm_out(x))


class AutoencoderKL(nn.Module):
    def __init__(self, cfg: VAEConfig):
        self.config = cfg
        latent = cfg.latent_channels
        self.encoder = Encoder(cfg)
        self.decoder = Decoder(cfg)
        self.quant_conv = Conv2d(2 * latent, 2 * latent, 1)
        self.post_quant_conv = Conv2d(latent, latent, 1)

    def encode(self, x: jt.Var) -> jt.Var:
        """x: (B, 3, H, W) in [-1, 1]. Returns mean and log variance, (B, 2C, H/f, W/f)."""
        return self.quant_conv(self.encoder(x))

    def decode(self, z: jt.Var) -> jt.Var:
        """z: (B, C, h, w), unscaled. Returns (B, 3, h*f, w*f), not clipped."""
        return self.decoder(self.post_quant_conv(z))
