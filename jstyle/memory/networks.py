"""The operations of the networks, as sd/unet.py, sd/vae.py and sd/clip.py ask for them.

On the CPU as the kernels in sd/kernels do them, on CUDA as their plain twins do. Element-wise
operations in a row are one: Jittor melts them together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..sd import convolution_choice as choice
from ..sd.config import CLIPTextConfig, UNetConfig, VAEConfig
from .tape import Tape, Tensor

FLOAT = 4  # bytes of a float32
PLAIN_ROWS = 1024  # of queries at a time on CUDA, as in sd/kernels/attention.py


@dataclass(frozen=True)
class Way:
    """How a network computes. item: bytes of a number between layers. widened: weights are kept in
    half precision and widened while they are used. trained: "" for nothing, "lora" or "full"."""

    cuda: bool = False
    item: int = FLOAT
    widened: bool = False
    trained: str = ""
    rank: int = 4


class Map(NamedTuple):
    """A feature map (batch, channels, height, width), or tokens with width 1."""

    batch: int
    channels: int
    height: int
    width: int

    @property
    def numbers(self) -> int:
        return math.prod(self)

    @property
    def tokens(self) -> int:
        return self.height * self.width


class Value(NamedTuple):
    """What an operation made, and its size."""

    tensor: Tensor
    size: Map


class Layers:
    """The layers that the networks are made of. Weights are there already and not counted."""

    def __init__(self, tape: Tape, way: Way):
        self.tape, self.way = tape, way

    def start(self, size: Map) -> Value:
        """What a network is given."""
        return Value(self.tape.op((), size.numbers * self.way.item), size)

    def wide(self, numbers: int) -> tuple[Tensor, ...]:
        """The float32 copy of a weight kept in half precision."""
        return (self.tape.op((), numbers * FLOAT),) if self.way.widened else ()

    def same(self, *values: Value, channels: int | None = None) -> Value:
        """Something element-wise that passes its gradient on: a bias, a residual."""
        first = values[0].size
        size = first if channels is None else first._replace(channels=channels)
        tensors = [v.tensor for v in values]
        return Value(self.tape.op(tensors, size.numbers * self.way.item, passes=True), size)

    def copied(self, x: Value, size: Map | None = None) -> Value:
        """A transposition, a slice, a padded or an enlarged map."""
        size = size or x.size
        return Value(self.tape.op([x.tensor], size.numbers * self.way.item), size)

    def conv(self, x: Value, out: int, window: int = 3, stride: int = 1, padding: int = 1) -> Value:
        """A convolution, with its bias; the bias melts into what comes next."""
        b, c, h, w = x.size
        sides = (choice.out_size(s, window, stride, padding) for s in (h, w))
        size = Map(b, out, *sides)
        numbers, trained = out * c * window * window, self.way.trained == "full"
        weights, read = numbers * FLOAT * trained, self.wide(numbers)
        saved = (x.tensor,) if trained else ()
        if self.way.cuda:
            return Value(self._cudnn(x, size, numbers, saved, weights, read), size)
        ways = (c, out, (window, window), (h, w), stride, padding, trained)
        way, scratch, more = choice.choose(*ways), 0, ()
        if way == choice.WINOGRAD:
            read += (self.tape.op((), 16 / 9 * numbers * FLOAT, also=read),)
            tiles = choice.tiles_at_once(c, out, h, w)
            more = (16 * c * tiles * FLOAT, 16 * out * tiles * FLOAT)
        elif way == choice.ONEDNN:  # reorders all three
            scratch = (x.size.numbers + size.numbers + numbers) * FLOAT
        elif way == choice.PATCHES:
            columns = window * window * size.tokens
            scratch = max(1 << 18, columns) * FLOAT
        made = self.tape.op(
            [x.tensor],
            size.numbers * FLOAT,
            saved,
            weights,
            scratch,
            also=read,
            more=more,
        )
        return Value(made, size)

    def _cudnn(self, x: Value, size: Map, numbers: int, saved, weights: int, read) -> Tensor:
        """In float32 also where the network computes in float16: with copies of all three."""
        if self.way.item == FLOAT:
            return self.tape.op([x.tensor], size.numbers * FLOAT, saved, weights, also=read)
        wide = self.tape.op([x.tensor], x.size.numbers * FLOAT)
        read = (self.tape.op((), numbers * FLOAT),)
        saved = (wide,) if saved else ()
        return self.tape.op([wide], size.numbers * FLOAT, saved, weights, also=read)

    def linear(self, x: Value, out: int) -> Value:
        """A product with a matrix, without what comes after."""
        c, trained = x.size.channels, self.way.trained == "full"
        size = x.size._replace(channels=out)
        read = self.wide(out * c)
        saved, weights = ((x.tensor,), out * c * FLOAT) if trained else ((), 0)
        nbytes = size.numbers * self.way.item
        return Value(self.tape.op([x.tensor], nbytes, saved, weights, also=read), size)

    def adapted(self, x: Value, out: int) -> Value:
        """A linear layer that has a LoRA where one is trained."""
        y = self.linear(x, out)
        if self.way.trained != "lora":
            return y
        rank, item = self.way.rank, self.way.item
        middle = x.size._replace(channels=rank).numbers * item
        down = self.tape.op([x.tensor], middle, [x.tensor], rank * x.size.channels * FLOAT)
        up = self.tape.op([down], y.tensor.nbytes, [down], rank * out * FLOAT)
        return self.same(y, Value(up, y.size))

    def norm(self, x: Value) -> Value:
        """A group or layer norm, with an activation or without."""
        if not self.way.cuda:
            small = x.size.numbers / x.size.channels * 2 * FLOAT
            made = self.tape.op(
                [x.tensor], x.tensor.nbytes, [x.tensor], more=(min(small, 1 << 16),)
            )
            return Value(made, x.size)
        centred = self.tape.op([x.tensor], x.size.numbers * FLOAT, [x.tensor])
        made = self.tape.op([centred], x.size.numbers * self.way.item, [centred])
        return Value(made, x.size)

    def attend(self, q: Value, k: Value, v: Value, heads: int) -> Value:
        """softmax(q k') v."""
        tensors = [q.tensor, k.tensor, v.tensor]
        if not self.way.cuda:
            log_sums = q.size.batch * heads * q.size.tokens * FLOAT
            made = self.tape.op(tensors, q.tensor.nbytes, tensors, keeps_out=True, more=(log_sums,))
            return Value(made, q.size)
        return self._plain_attend(q, k, v, heads)

    def _plain_attend(self, q: Value, k: Value, v: Value, heads: int) -> Value:
        q, k, v = (self.copied(x) for x in (q, k, v))  # heads before tokens
        wide_q, wide_k = q.tensor, k.tensor
        if self.way.item != FLOAT:
            wide_q, wide_k = (self.tape.op([x.tensor], x.size.numbers * FLOAT) for x in (q, k))
        parts, per_row = [], q.size.batch * heads * k.size.tokens
        width = q.tensor.nbytes // q.size.tokens
        for first in range(0, q.size.tokens, PLAIN_ROWS):
            rows = min(PLAIN_ROWS, q.size.tokens - first)
            slice_ = self.tape.op([wide_q], rows * width * FLOAT / self.way.item)
            logits = self.tape.op([slice_, wide_k], per_row * rows * FLOAT, [slice_, wide_k])
            powers = self.tape.op([logits], logits.nbytes, keeps_out=True)
            chances = self.tape.op([powers], per_row * rows * self.way.item, keeps_out=True)
            parts.append(self.tape.op([chances, v.tensor], rows * width, [chances, v.tensor]))
        out = parts[0]
        if len(parts) > 1:
            out = self.tape.op(parts, q.tensor.nbytes)
        return self.copied(Value(out, q.size))

    def gate(self, h: Value) -> Value:
        """GEGLU: half of the channels times the activation of the other half."""
        size = h.size._replace(channels=h.size.channels // 2)
        return Value(self.tape.op([h.tensor], size.numbers * self.way.item, [h.tensor]), size)

    def resnet(self, x: Value, out: int) -> Value:
        def run() -> Value:
            h = self.same(self.conv(self.norm(x), out))
            h = self.conv(self.norm(h), out)
            shortcut = x if x.size.channels == out else self.conv(x, out, 1, 1, 0)
            return self.same(h, shortcut)

        return self._block(run, [x])

    def transformer(self, x: Value, context: Value, heads: int, linear: bool) -> Value:
        def run() -> Value:
            dim, h = x.size.channels, self.norm(x)
            if linear:
                h = self.same(self.linear(self.copied(h), dim))
            else:
                h = self.copied(self.same(self.conv(h, dim, 1, 1, 0)))
            h = self.same(self._attention(self.norm(h), None, heads), h)
            h = self.same(self._attention(self.norm(h), context, heads), h)
            wide = self.same(self.linear(self.norm(h), 8 * dim))
            h = self.same(self.linear(self.gate(wide), dim), h)
            if linear:
                h = self.copied(self.same(self.linear(h, dim)))
            else:
                h = self.conv(self.copied(h), dim, 1, 1, 0)
            return self.same(h, x)

        return self._block(run, [x, context])

    def _attention(self, x: Value, context: Value | None, heads: int) -> Value:
        source, dim = context or x, x.size.channels
        q, k, v = (self.adapted(s, dim) for s in (x, source, source))
        return self.adapted(self.attend(q, k, v, heads), dim)

    def _block(self, run, inputs: Sequence[Value]) -> Value:
        size: list[Map] = []

        def call() -> Tensor:
            made = run()
            size.append(made.size)
            return made.tensor

        tensor = self.tape.block(call, [x.tensor for x in inputs])
        return Value(tensor, size[0])


def unet(
    layers: Layers, cfg: UNetConfig, batch: int, latent: tuple[int, int], tokens: int
) -> Value:
    """One evaluation for latents (batch, C, *latent) and `tokens` tokens of text each."""
    widths, heads, last = cfg.block_out_channels, cfg.num_heads, len(cfg.block_out_channels) - 1
    context = layers.start(Map(batch, cfg.cross_attention_dim, tokens, 1))
    linear = cfg.use_linear_projection
    x = layers.same(layers.conv(layers.start(Map(batch, cfg.in_channels, *latent)), widths[0]))
    skips = [x]
    for i, kind in enumerate(cfg.down_block_types):
        for _ in range(cfg.layers_per_block):
            x = layers.resnet(x, widths[i])
            if "CrossAttn" in kind:
                x = layers.transformer(x, context, heads[i], linear)
            skips.append(x)
        if i < last:
            x = layers.same(layers.conv(x, widths[i], 3, 2, 1))
            skips.append(x)
    x = layers.resnet(x, widths[-1])
    x = layers.transformer(x, context, heads[-1], linear)
    x = layers.resnet(x, widths[-1])
    for i, kind in enumerate(cfg.up_block_types):
        width = widths[last - i]
        for _ in range(cfg.layers_per_block + 1):
            x = layers.resnet(_joined(layers, x, skips.pop()), width)
            if "CrossAttn" in kind:
                x = layers.transformer(x, context, heads[last - i], linear)
        if i < last:
            x = layers.same(layers.conv(_doubled(layers, x), width))
    return layers.same(layers.conv(layers.norm(x), cfg.out_channels))


def _joined(layers: Layers, x: Value, skip: Value) -> Value:
    size = x.size._replace(channels=x.size.channels + skip.size.channels)
    nbytes = size.numbers * layers.way.item
    return Value(layers.tape.op([x.tensor, skip.tensor], nbytes), size)


def _doubled(layers: Layers, x: Value) -> Value:
    return layers.copied(x, x.size._replace(height=2 * x.size.height, width=2 * x.size.width))


def encoder(layers: Layers, cfg: VAEConfig, batch: int, size: tuple[int, int]) -> Value:
    """Pictures of size (height, width) to latents."""
    widths = cfg.block_out_channels
    x = layers.start(Map(batch, cfg.in_channels, *size))
    x = layers.same(layers.conv(x, widths[0]))
    for i, width in enumerate(widths):
        for _ in range(cfg.layers_per_block):
            x = layers.resnet(x, width)
        if i < len(widths) - 1:
            padded = x.size._replace(height=x.size.height + 1, width=x.size.width + 1)
            x = layers.same(layers.conv(layers.copied(x, padded), width, 3, 2, 0))
    x = _middle(layers, x)
    return layers.same(layers.conv(layers.norm(x), 2 * cfg.latent_channels))


def decoder(layers: Layers, cfg: VAEConfig, batch: int, latent: tuple[int, int]) -> Value:
    """Latents of size (height, width) to pictures."""
    widths = cfg.block_out_channels[::-1]
    x = layers.start(Map(batch, cfg.latent_channels, *latent))
    x = _middle(layers, layers.same(layers.conv(x, widths[0])))
    for i, width in enumerate(widths):
        for _ in range(cfg.layers_per_block + 1):
            x = layers.resnet(x, width)
        if i < len(widths) - 1:
            x = layers.same(layers.conv(_doubled(layers, x), width))
    x = layers.same(layers.conv(layers.norm(x), cfg.out_channels))
    return layers.same(layers.same(x))  # finite? then clipped


def _middle(layers: Layers, x: Value) -> Value:
    width = x.size.channels
    x = layers.resnet(x, width)
    tokens = layers.copied(layers.norm(x))
    q, k, v = (layers.same(layers.linear(tokens, width)) for _ in range(3))
    out = layers.same(layers.linear(layers.attend(q, k, v, 1), width))
    return layers.resnet(layers.same(layers.copied(out), x), width)


def text_encoder(layers: Layers, cfg: CLIPTextConfig, batch: int) -> Value:
    """Token ids to contexts."""
    dim = cfg.hidden_size
    x = layers.start(Map(batch, dim, cfg.max_position_embeddings, 1))
    for _ in range(cfg.num_hidden_layers):
        h = layers.norm(x)
        q, k, v = (layers.same(layers.linear(h, dim)) for _ in range(3))
        x = layers.same(layers.linear(layers.attend(q, k, v, cfg.num_attention_heads), dim), x)
        h = layers.same(layers.linear(layers.norm(x), cfg.intermediate_size))
        x = layers.same(layers.linear(layers.copied(h), dim), x)
    return layers.norm(x)
