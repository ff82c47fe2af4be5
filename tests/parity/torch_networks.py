"""The networks of the score in PyTorch, as small as they can be written, and files of weights.

Names and sizes are those of torchvision, torch-fidelity, art-fid and OpenAI's CLIP, to whose state
dictionaries they were compared by name and shape.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def fill(module: nn.Module) -> nn.Module:
    """Weights that are a function of their names; activations keep about their size."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            rng = np.random.default_rng(zlib.crc32(name.encode()))
            values = rng.standard_normal(tuple(tensor.shape), dtype=np.float32)
            if name.endswith("running_var"):
                values = np.exp(values * 0.3)
            elif tensor.ndim == 1:
                values = values * 0.2 + float(name.endswith("weight"))
            elif tensor.ndim > 1:
                values *= (2 / np.prod(tensor.shape[1:])) ** 0.5
            if tensor.is_floating_point():
                tensor.copy_(torch.from_numpy(np.asarray(values, np.float32)))
    return module.eval()


# ---- torchvision: the part called `features`


class Fire(nn.Module):
    def __init__(self, channels, squeezed, expanded):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x):
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x).relu(), self.expand3x3(x).relu()], 1)


def squeezenet():
    def pool():
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    fires = [(64, 16, 64), (128, 16, 64), (128, 32, 128), (256, 32, 128)]
    fires += [(256, 48, 192), (384, 48, 192), (384, 64, 256), (512, 64, 256)]
    a, b, c, d, *rest = (Fire(*sizes) for sizes in fires)
    first = nn.Conv2d(3, 64, 3, stride=2)
    return nn.Sequential(first, nn.ReLU(), pool(), a, b, pool(), c, d, pool(), *rest)


def alexnet():
    def conv(*sizes, **options):
        return nn.Conv2d(*sizes, **options), nn.ReLU()

    return nn.Sequential(
        *conv(3, 64, 11, stride=4, padding=2),
        nn.MaxPool2d(3, 2),
        *conv(64, 192, 5, padding=2),
        nn.MaxPool2d(3, 2),
        *conv(192, 384, 3, padding=1),
        *conv(384, 256, 3, padding=1),
        *conv(256, 256, 3, padding=1),
        nn.MaxPool2d(3, 2),
    )


def vgg19(convolutions=16):
    """The first `convolutions` of VGG-19's 16."""
    widths = [64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"]
    layers, channels = [], 3
    for width in widths:
        if width == "M":
            layers.append(nn.MaxPool2d(2, 2))
        elif convolutions:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels, convolutions = width, convolutions - 1
    return nn.Sequential(*layers)


# ---- Inception v3


class BasicConv2d(nn.Module):
    def __init__(self, channels, out, kernel, **options):
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, bias=False, **options)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x):
        return self.bn(self.conv(x)).relu()


class Inception(nn.Module):
    """form "fid" as in torch-fidelity 0.4, "art" as in torchvision and art-fid."""

    def __init__(self, form):
        super().__init__()
        self.form = form
        for name, sizes in {
            "Conv2d_1a_3x3": (3, 32, 3, {"stride": 2}),
            "Conv2d_2a_3x3": (32, 32, 3, {}),
            "Conv2d_2b_3x3": (32, 64, 3, {"padding": 1}),
            "Conv2d_3b_1x1": (64, 80, 1, {}),
            "Conv2d_4a_3x3": (80, 192, 3, {}),
        }.items():
            setattr(self, name, BasicConv2d(*sizes[:3], **sizes[3]))
        for letter, channels, out in (("b", 192, 32), ("c", 256, 64), ("d", 288, 64)):
            setattr(self, f"Mixed_5{letter}", self.block_a(channels, out))
        self.Mixed_6a = self.block_b(288)
        for letter, width in zip("bcde", (128, 160, 160, 192), strict=True):
            setattr(self, f"Mixed_6{letter}", self.block_c(768, width))
        self.Mixed_7a = self.block_d(768)
        self.Mixed_7b, self.Mixed_7c = self.block_e(1280), self.block_e(2048)
        if form == "fid":
            self.fc = nn.Linear(2048, 1008)

    @staticmethod
    def make(**branches):
        """name = (channels, out, kernel, options)"""
        return nn.ModuleDict({n: BasicConv2d(*s[:3], **s[3]) for n, s in branches.items()})

    def block_a(self, c, pool):
        return self.make(
            branch1x1=(c, 64, 1, {}),
            branch5x5_1=(c, 48, 1, {}),
            branch5x5_2=(48, 64, 5, {"padding": 2}),
            branch3x3dbl_1=(c, 64, 1, {}),
            branch3x3dbl_2=(64, 96, 3, {"padding": 1}),
            branch3x3dbl_3=(96, 96, 3, {"padding": 1}),
            branch_pool=(c, pool, 1, {}),
        )

    def block_b(self, c):
        return self.make(
            branch3x3=(c, 384, 3, {"stride": 2}),
            branch3x3dbl_1=(c, 64, 1, {}),
            branch3x3dbl_2=(64, 96, 3, {"padding": 1}),
            branch3x3dbl_3=(96, 96, 3, {"stride": 2}),
        )

    def block_c(self, c, n):
        row, column = ((1, 7), {"padding": (0, 3)}), ((7, 1), {"padding": (3, 0)})
        return self.make(
            branch1x1=(c, 192, 1, {}),
            branch7x7_1=(c, n, 1, {}),
            branch7x7_2=(n, n, *row),
            branch7x7_3=(n, 192, *column),
            branch7x7dbl_1=(c, n, 1, {}),
            branch7x7dbl_2=(n, n, *column),
            branch7x7dbl_3=(n, n, *row),
            branch7x7dbl_4=(n, n, *column),
            branch7x7dbl_5=(n, 192, *row),
            branch_pool=(c, 192, 1, {}),
        )

    def block_d(self, c):
        return self.make(
            branch3x3_1=(c, 192, 1, {}),
            branch3x3_2=(192, 320, 3, {"stride": 2}),
            branch7x7x3_1=(c, 192, 1, {}),
            branch7x7x3_2=(192, 192, (1, 7), {"padding": (0, 3)}),
            branch7x7x3_3=(192, 192, (7, 1), {"padding": (3, 0)}),
            branch7x7x3_4=(192, 192, 3, {"stride": 2}),
        )

    def block_e(self, c):
        row, column = ((1, 3), {"padding": (0, 1)}), ((3, 1), {"padding": (1, 0)})
        return self.make(
            branch1x1=(c, 320, 1, {}),
            branch3x3_1=(c, 384, 1, {}),
            branch3x3_2a=(384, 384, *row),
            branch3x3_2b=(384, 384, *column),
            branch3x3dbl_1=(c, 448, 1, {}),
            branch3x3dbl_2=(448, 384, 3, {"padding": 1}),
            branch3x3dbl_3a=(384, 384, *row),
            branch3x3dbl_3b=(384, 384, *column),
            branch_pool=(c, 192, 1, {}),
        )

    def average(self, x):
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=self.form == "art")

    def forward(self, x):
        """Returns the averages after 64, 192, 768 and 2048 channels."""
        taps = []

        def tap(x):
            taps.append(x.mean((2, 3)))
            return x

        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(tap(F.max_pool2d(x, 3, 2))))
        x = tap(F.max_pool2d(x, 3, 2))
        for m in (self.Mixed_5b, self.Mixed_5c, self.Mixed_5d):
            y = m.branch5x5_2(m.branch5x5_1(x))
            z = m.branch3x3dbl_3(m.branch3x3dbl_2(m.branch3x3dbl_1(x)))
            x = torch.cat([m.branch1x1(x), y, z, m.branch_pool(self.average(x))], 1)
        m = self.Mixed_6a
        z = m.branch3x3dbl_3(m.branch3x3dbl_2(m.branch3x3dbl_1(x)))
        x = torch.cat([m.branch3x3(x), z, F.max_pool2d(x, 3, 2)], 1)
        for m in (self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e):
            y = m.branch7x7_3(m.branch7x7_2(m.branch7x7_1(x)))
            z = x
            for i in range(1, 6):
                z = m[f"branch7x7dbl_{i}"](z)
            x = torch.cat([m.branch1x1(x), y, z, m.branch_pool(self.average(x))], 1)
        m, z = self.Mixed_7a, tap(x)
        for i in range(1, 5):
            z = m[f"branch7x7x3_{i}"](z)
        x = torch.cat([m.branch3x3_2(m.branch3x3_1(x)), z, F.max_pool2d(x, 3, 2)], 1)
        for m in (self.Mixed_7b, self.Mixed_7c):
            y, z = m.branch3x3_1(x), m.branch3x3dbl_2(m.branch3x3dbl_1(x))
            p = self.average(x)
            if m is self.Mixed_7c and self.form == "fid":
                p = F.max_pool2d(x, 3, 1, 1)
            parts = [m.branch1x1(x), m.branch3x3_2a(y), m.branch3x3_2b(y)]
            parts += [m.branch3x3dbl_3a(z), m.branch3x3dbl_3b(z), m.branch_pool(p)]
            x = torch.cat(parts, 1)
        tap(x)
        return taps


# ---- OpenAI's CLIP with a ResNet


class Bottleneck(nn.Module):
    def __init__(self, channels, width, stride):
        super().__init__()
        for i, (a, b, k) in enumerate(
            ((channels, width, 1), (width, width, 3), (width, 4 * width, 1))
        ):
            setattr(self, f"conv{i + 1}", nn.Conv2d(a, b, k, padding=k // 2, bias=False))
            setattr(self, f"bn{i + 1}", nn.BatchNorm2d(b))
        self.shrink = nn.AvgPool2d(stride)
        self.downsample = None
        if stride > 1 or channels != 4 * width:
            conv = nn.Conv2d(channels, 4 * width, 1, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(4 * width))

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        y = self.bn3(self.conv3(self.shrink(y)))
        return (y + (x if self.downsample is None else self.downsample(self.shrink(x)))).relu()


class AttentionPool(nn.Module):
    def __init__(self, places, dim, out):
        super().__init__()
        self.heads = dim // 64
        self.positional_embedding = nn.Parameter(torch.zeros(places, dim))
        self.q_proj, self.k_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.v_proj, self.c_proj = nn.Linear(dim, dim), nn.Linear(dim, out)

    def forward(self, x):
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(1, keepdim=True), x], 1)
        q, k, v = (
            p(x).unflatten(2, (self.heads, 64)).transpose(1, 2)
            for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.c_proj(y)[:, 0]


class Visual(nn.Module):
    def __init__(self, width, blocks, places, out):
        super().__init__()
        half = width // 2
        self.conv1 = nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False)
        self.conv2 = nn.Conv2d(half, half, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(half, width, 3, padding=1, bias=False)
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(n) for n in (half, half, width))
        channels = width
        for i, count in enumerate(blocks):
            level = []
            for k in range(count):
                level.append(Bottleneck(channels, width * 2**i, 2 if i and k == 0 else 1))
                channels = width * 2**i * 4
            setattr(self, f"layer{i + 1}", nn.Sequential(*level))
        self.attnpool = AttentionPool(places, channels, out)

    def forward(self, x):
        for i in (1, 2, 3):
            x = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)).relu()
        x = F.avg_pool2d(x, 2)
        return self.attnpool(self.layer4(self.layer3(self.layer2(self.layer1(x)))))


class TextBlock(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.attn = nn.MultiheadAttention(dim, dim // 64, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        layers = {"c_fc": nn.Linear(dim, 4 * dim), "c_proj": nn.Linear(4 * dim, dim)}
        self.mlp = nn.ModuleDict(layers)

    def forward(self, x):
        y = self.ln_1(x)
        mask = torch.full((x.shape[1], x.shape[1]), float("-inf")).triu(1)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        y = self.mlp.c_fc(self.ln_2(x))
        return x + self.mlp.c_proj(y * torch.sigmoid(1.702 * y))


class ClipResNet(nn.Module):
    """Sizes of RN50: 64, (3, 4, 6, 3), 7, 1024, 512, 12."""

    def __init__(self, width, blocks, grid, out, text_width, text_layers, vocab_size=49408):
        super().__init__()
        self.visual = Visual(width, blocks, grid**2 + 1, out)
        self.transformer = nn.ModuleDict(
            {"resblocks": nn.Sequential(*[TextBlock(text_width) for _ in range(text_layers)])}
        )
        self.token_embedding = nn.Embedding(vocab_size, text_width)
        self.positional_embedding = nn.Parameter(torch.zeros(77, text_width))
        self.ln_final = nn.LayerNorm(text_width)
        self.text_projection = nn.Parameter(torch.zeros(text_width, out))
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def encode_image(self, x, pos_embedding=False):
        assert not pos_embedding
        return self.visual(x)

    def encode_text(self, ids):
        x = self.token_embedding(ids) + self.positional_embedding
        x = self.ln_final(self.transformer.resblocks(x))
        return x[torch.arange(len(ids)), ids.argmax(1)] @ self.text_projection
