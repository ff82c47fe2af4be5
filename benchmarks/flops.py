"""How many floating-point operations the networks take, counted from their configurations.

A multiplication with its addition is two operations. Counted are convolutions, linear layers and
the two products of attention, which are all that matters; causal attention is counted in full, as
if nothing were masked.
"""

from __future__ import annotations

from collections import Counter

from jstyle.sd.config import CLIPTextConfig, UNetConfig, VAEConfig

GROUPS = ("convolution", "linear", "attention")
Flops = Counter  # group -> operations


def convolution(inputs: int, outputs: int, pixels: int, kernel: int = 3) -> Flops:
    return Flops(convolution=2 * kernel * kernel * inputs * outputs * pixels)


def linear(inputs: int, outputs: int, rows: int) -> Flops:
    return Flops(linear=2 * inputs * outputs * rows)


def attention(width: int, queries: int, keys: int) -> Flops:
    """q k^T and the sum over the values; any number of heads."""
    return Flops(attention=4 * width * queries * keys)


def _resnet(inputs: int, outputs: int, pixels: int, temb: int = 0) -> Flops:
    count = convolution(inputs, outputs, pixels) + convolution(outputs, outputs, pixels)
    if inputs != outputs:
        count += convolution(inputs, outputs, pixels, kernel=1)
    return count + linear(temb, outputs, 1)


def _transformer(cfg: UNetConfig, width: int, pixels: int, tokens: int) -> Flops:
    if cfg.use_linear_projection:
        count = linear(width, 2 * width, pixels)  # in and out
    else:
        count = convolution(width, 2 * width, pixels, kernel=1)
    count += linear(width, 4 * width, pixels) + attention(width, pixels, pixels)
    count += linear(width, 2 * width, pixels) + attention(width, pixels, tokens)
    count += linear(cfg.cross_attention_dim, 2 * width, tokens)
    return count + linear(width, 8 * width, pixels) + linear(4 * width, width, pixels)


def unet(cfg: UNetConfig, height: int, width: int, tokens: int = 77, batch: int = 1) -> Flops:
    """One evaluation; height and width of the latents."""
    widths, layers = cfg.block_out_channels, cfg.layers_per_block
    temb, last, pixels = 4 * widths[0], len(widths) - 1, height * width
    count = convolution(cfg.in_channels, widths[0], pixels)
    count += linear(widths[0], temb, 1) + linear(temb, temb, 1)
    skips, channels = [widths[0]], widths[0]
    for i, (kind, wide) in enumerate(zip(cfg.down_block_types, widths, strict=True)):
        for _ in range(layers):
            count += _resnet(channels, wide, pixels, temb)
            if "CrossAttn" in kind:
                count += _transformer(cfg, wide, pixels, tokens)
            skips.append(wide)
            channels = wide
        if i < last:
            pixels //= 4
            count += convolution(wide, wide, pixels)
            skips.append(wide)
    count += _resnet(channels, channels, pixels, temb) + _resnet(channels, channels, pixels, temb)
    count += _transformer(cfg, channels, pixels, tokens)
    for i, kind in enumerate(cfg.up_block_types):
        wide = widths[last - i]
        for _ in range(layers + 1):
            count += _resnet(channels + skips.pop(), wide, pixels, temb)
            if "CrossAttn" in kind:
                count += _transformer(cfg, wide, pixels, tokens)
            channels = wide
        if i < last:
            pixels *= 4
            count += convolution(wide, wide, pixels)
    return times(count + convolution(widths[0], cfg.out_channels, pixels), batch)


def _vae_middle(width: int, pixels: int) -> Flops:
    count = times(_resnet(width, width, pixels), 2)
    return count + linear(width, 4 * width, pixels) + attention(width, pixels, pixels)


def vae_encode(cfg: VAEConfig, height: int, width: int) -> Flops:
    """Height and width in pixels."""
    pixels, channels, last = height * width, cfg.block_out_channels[0], len(cfg.block_out_channels)
    count = convolution(cfg.in_channels, channels, pixels)
    for i, wide in enumerate(cfg.block_out_channels, 1):
        for _ in range(cfg.layers_per_block):
            count += _resnet(channels, wide, pixels)
            channels = wide
        if i < last:
            pixels //= 4
            count += convolution(wide, wide, pixels)
    count += _vae_middle(channels, pixels)
    moments = 2 * cfg.latent_channels
    return count + convolution(channels, moments, pixels) + convolution(moments, moments, pixels, 1)


def vae_decode(cfg: VAEConfig, height: int, width: int) -> Flops:
    """Height and width in pixels."""
    widths = cfg.block_out_channels[::-1]
    pixels = height * width // 4 ** (len(widths) - 1)
    latent, channels = cfg.latent_channels, widths[0]
    count = convolution(latent, latent, pixels, 1) + convolution(latent, channels, pixels)
    count += _vae_middle(channels, pixels)
    for i, wide in enumerate(widths, 1):
        for _ in range(cfg.layers_per_block + 1):
            count += _resnet(channels, wide, pixels)
            channels = wide
        if i < len(widths):
            pixels *= 4
            count += convolution(wide, wide, pixels)
    return count + convolution(channels, cfg.out_channels, pixels)


def text_encoder(cfg: CLIPTextConfig, tokens: int = 77, batch: int = 1) -> Flops:
    wide, inner = cfg.hidden_size, cfg.intermediate_size
    layer = linear(wide, 4 * wide, tokens) + attention(wide, tokens, tokens)
    layer += linear(wide, 2 * inner, tokens)
    return times(layer, cfg.num_hidden_layers * batch)


def lora_step(forward: Flops, checkpointing: bool) -> Flops:
    """A step that trains a LoRA on frozen weights: forward, and gradients of activations only.

    The backward pass takes one product per product, and for attention five for two, one of which
    makes the probabilities again. Checkpointing adds the forward pass again. The LoRA's own
    products, a per cent at low ranks, are left out; gradients below the first LoRA are not needed,
    and counted.
    """
    backward = Flops({g: n * (5 / 2 if g == "attention" else 1) for g, n in forward.items()})
    return forward + backward + (forward if checkpointing else Flops())


def times(count: Flops, factor: int) -> Flops:
    return Flops({group: n * factor for group, n in count.items()})


def total(count: Flops) -> float:
    return float(sum(count.values()))
