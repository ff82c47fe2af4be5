"""How many numbers a network's weights hold, counted over the layers that it is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..sd.config import CLIPTextConfig, UNetConfig, VAEConfig


@dataclass
class Count:
    """matrices: of linear layers, convolutions and tables; vectors: biases and norms.

    attention: (in, out) of each layer that the usual LoRA changes.
    """

    matrices: int = 0
    vectors: int = 0
    attention: list[tuple[int, int]] = field(default_factory=list)

    @property
    def all(self) -> int:
        return self.matrices + self.vectors

    def lora(self, rank: int) -> int:
        """Numbers of a LoRA of this rank on the attention layers."""
        return rank * sum(map(sum, self.attention))

    def linear(self, inner: int, out: int, bias: bool = True, adapted: bool = False) -> None:
        self.matrices += inner * out
        self.vectors += out * bias
        if adapted:
            self.attention.append((inner, out))

    def conv(self, inner: int, out: int, window: int = 3) -> None:
        self.linear(inner * window * window, out)

    def norm(self, channels: int) -> None:
        self.vectors += 2 * channels

    def resnet(self, inner: int, out: int, time: int = 0) -> None:
        self.norm(inner)
        self.conv(inner, out)
        if time:
            self.linear(time, out)
        self.norm(out)
        self.conv(out, out)
        if inner != out:
            self.conv(inner, out, 1)

    def transformer(self, dim: int, context: int) -> None:
        for _ in range(4):
            self.norm(dim)
        for source in (dim, context):
            self.linear(dim, dim, bias=False, adapted=True)
            self.linear(source, dim, bias=False, adapted=True)
            self.linear(source, dim, bias=False, adapted=True)
            self.linear(dim, dim, adapted=True)
        self.linear(dim, 8 * dim)
        self.linear(4 * dim, dim)
        self.linear(dim, dim)  # projections in and out
        self.linear(dim, dim)


def count_parameters(config: UNetConfig | VAEConfig | CLIPTextConfig) -> Count:
    """Of a UNet, an autoencoder or a text encoder."""
    count = Count()
    if isinstance(config, UNetConfig):
        _unet(count, config)
    elif isinstance(config, VAEConfig):
        _vae(count, config)
    else:
        _text(count, config)
    return count


def _unet(count: Count, cfg: UNetConfig) -> None:
    widths, last = cfg.block_out_channels, len(cfg.block_out_channels) - 1
    time, context, layers = 4 * widths[0], cfg.cross_attention_dim, cfg.layers_per_block
    count.conv(cfg.in_channels, widths[0])
    count.linear(widths[0], time)
    count.linear(time, time)
    skips, before = [widths[0]], widths[0]
    for i, kind in enumerate(cfg.down_block_types):
        for _ in range(layers):
            count.resnet(before, widths[i], time)
            before = widths[i]
            skips.append(before)
            if "CrossAttn" in kind:
                count.transformer(before, context)
        if i < last:
            count.conv(before, before)
            skips.append(before)
    count.resnet(before, before, time)
    count.transformer(before, context)
    count.resnet(before, before, time)
    for i, kind in enumerate(cfg.up_block_types):
        width = widths[last - i]
        for _ in range(layers + 1):
            count.resnet(before + skips.pop(), width, time)
            before = width
            if "CrossAttn" in kind:
                count.transformer(width, context)
        if i < last:
            count.conv(width, width)
    count.norm(widths[0])
    count.conv(widths[0], cfg.out_channels)


def _vae(count: Count, cfg: VAEConfig) -> None:
    widths, latent = cfg.block_out_channels, cfg.latent_channels
    _side(count, cfg.in_channels, 2 * latent, widths, cfg.layers_per_block)
    _side(count, latent, cfg.out_channels, widths[::-1], cfg.layers_per_block + 1)
    for width in (widths[-1], widths[-1]):  # the encoder's end, and the decoder's beginning
        _middle(count, width)
    count.conv(2 * latent, 2 * latent, 1)
    count.conv(latent, latent, 1)


def _side(count: Count, inner: int, out: int, widths: tuple[int, ...], layers: int) -> None:
    """An encoder or a decoder, without its middle."""
    before = widths[0]
    count.conv(inner, before)
    for i, width in enumerate(widths):
        for _ in range(layers):
            count.resnet(before, width)
            before = width
        if i < len(widths) - 1:
            count.conv(width, width)
    count.norm(before)
    count.conv(before, out)


def _middle(count: Count, width: int) -> None:
    count.resnet(width, width)
    count.norm(width)
    for _ in range(4):
        count.linear(width, width)
    count.resnet(width, width)


def _text(count: Count, cfg: CLIPTextConfig) -> None:
    dim = cfg.hidden_size
    count.matrices += (cfg.vocab_size + cfg.max_position_embeddings) * dim
    for _ in range(cfg.num_hidden_layers):
        count.norm(dim)
        count.norm(dim)
        for _ in range(4):
            count.linear(dim, dim)
        count.linear(dim, cfg.intermediate_size)
        count.linear(cfg.intermediate_size, dim)
    count.norm(dim)
