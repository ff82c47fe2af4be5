"""OpenAI's CLIP RN50: a residual network with attention pooling, and a text transformer.

The text side is Stable Diffusion's text encoder under other names. Names of the image side are
those of OpenAI's file. Position embeddings of the attention pool are left out, as CLIP-IQA does
(arXiv:2207.12396), so that pictures of any size can be read.
Source: Radford et al., arXiv:2103.00020, section 2.4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...sd.clip import CLIPTextTransformer
from ...sd.config import CLIPTextConfig
from ...sd.kernels import attend
from ...sd.startup import jt
from ...sd.weights import Rule, WeightsError
from .frozen import FrozenBatchNorm, avg_pool, load_frozen

nn = jt.nn

SHRINKS = 32  # a side of the picture against a side of the last feature map
HEAD_DIM = 64
EXPANSION = 4  # of a block's output to its inner width
UNUSED = (
    Rule(r"^(input_resolution|context_length|vocab_size)$", None, "numbers kept beside weights"),
    Rule(r"^logit_scale$", None, "100, which CLIP-IQA writes out"),
    Rule(r"^visual\.attnpool\.positional_embedding$", None, "CLIP-IQA reads without positions"),
)
TEXT_NAMES = (  # OpenAI's name -> the text encoder's
    (r"^token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^ln_final\.", "text_model.final_layer_norm."),
    (r"^transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"\.attn\.out_proj\.", ".self_attn.out_proj."),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)


@dataclass(frozen=True)
class ClipResNetConfig:
    """Sizes of one such network; RN50: 64, (3, 4, 6, 3), 1024."""

    width: int
    blocks: tuple[int, ...]
    embed_dim: int
    text: CLIPTextConfig

    @classmethod
    def of(cls, tensors: Mapping[str, np.ndarray], where: object) -> ClipResNetConfig:
        """Read the sizes off the weights. Raises WeightsError if they are of another network."""
        try:
            width = tensors["visual.layer1.0.conv1.weight"].shape[0]
            text_width, embed_dim = tensors["text_projection"].shape
            vocab_size = tensors["token_embedding.weight"].shape[0]
            positions = tensors["positional_embedding"].shape[0]
        except (KeyError, IndexError, ValueError) as error:
            raise WeightsError(f"{where}: is not OpenAI's CLIP with a ResNet ({error})") from None
        text = CLIPTextConfig(
            vocab_size=vocab_size,
            hidden_size=text_width,
            intermediate_size=4 * text_width,
            num_hidden_layers=_count(tensors, r"transformer\.resblocks\.(\d+)\."),
            num_attention_heads=max(1, text_width // HEAD_DIM),
            max_position_embeddings=positions,
            hidden_act="quick_gelu",
        )
        blocks = tuple(_count(tensors, rf"visual\.layer{i}\.(\d+)\.") for i in (1, 2, 3, 4))
        return cls(width, blocks, embed_dim, text)


def _count(tensors: Mapping[str, np.ndarray], pattern: str) -> int:
    return len({found[1] for name in tensors if (found := re.match(pattern, name))})


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a residual. The stride is an average pool, never a convolution's."""

    def __init__(self, channels: int, width: int, stride: int):
        out = width * EXPANSION
        self.stride = stride
        self.conv1, self.bn1 = nn.Conv(channels, width, 1, bias=False), FrozenBatchNorm(width)
        self.conv2 = nn.Conv(width, width, 3, padding=1, bias=False)
        self.bn2 = FrozenBatchNorm(width)
        self.conv3, self.bn3 = nn.Conv(width, out, 1, bias=False), FrozenBatchNorm(out)
        self.shortcut = stride > 1 or channels != out
        if self.shortcut:
            self.downsample = nn.Sequential(nn.Conv(channels, out, 1, bias=False))
            self.downsample.append(FrozenBatchNorm(out))

    def execute(self, x: jt.Var) -> jt.Var:
        y = nn.relu(self.bn1(self.conv1(x)))
        y = self._shrink(nn.relu(self.bn2(self.conv2(y))))
        y = self.bn3(self.conv3(y))
        return nn.relu(y + (self.downsample(self._shrink(x)) if self.shortcut else x))

    def _shrink(self, x):
        return avg_pool(x, self.stride, self.stride) if self.stride > 1 else x


class AttentionPool2d(nn.Module):
    """The mean of all pixels asks the pixels and itself; its answer is the picture's feature."""

    def __init__(self, channels: int, num_heads: int, out: int):
        self.num_heads = num_heads
        self.q_proj, self.k_proj = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.v_proj, self.c_proj = nn.Linear(channels, channels), nn.Linear(channels, out)

    def execute(self, x: jt.Var) -> jt.Var:
        """x: (B, C, h, w). Returns (B, out)."""
        batch, channels = x.shape[:2]
        pixels = x.reshape(batch, channels, -1).transpose(0, 2, 1)  # -> (B, h*w, C)
        mean = pixels.mean(1, keepdims=True)
        tokens = jt.concat([mean, pixels], 1)
        heads = (batch, -1, self.num_heads, channels // self.num_heads)
        q = self.q_proj(mean).reshape(heads)
        k, v = self.k_proj(tokens).reshape(heads), self.v_proj(tokens).reshape(heads)
        answer = attend(q, k, v, heads[-1] ** -0.5)
        return self.c_proj(answer.reshape(batch, channels))


class ModifiedResNet(nn.Module):
    """Three convolutions instead of one at the start, four levels of blocks, attention pooling."""

    def __init__(self, cfg: ClipResNetConfig):
        half, width = cfg.width // 2, cfg.width
        self.conv1 = nn.Conv(3, half, 3, stride=2, padding=1, bias=False)
        self.conv2 = nn.Conv(half, half, 3, padding=1, bias=False)
        self.conv3 = nn.Conv(half, width, 3, padding=1, bias=False)
        self.bn1, self.bn2 = FrozenBatchNorm(half), FrozenBatchNorm(half)
        self.bn3 = FrozenBatchNorm(width)
        channels = width
        for i, count in enumerate(cfg.blocks):
            inner = width * 2**i
            level = []
            for k in range(count):
                level.append(Bottleneck(channels, inner, 2 if i and not k else 1))
                channels = inner * EXPANSION
            setattr(self, f"layer{i + 1}", nn.Sequential(*level))
        self.attnpool = AttentionPool2d(channels, channels // HEAD_DIM, cfg.embed_dim)

    def execute(self, x: jt.Var) -> jt.Var:
        """x: (B, 3, H, W), normalised, at least 32 x 32. Returns (B, embed_dim)."""
        if min(x.shape[2:]) < SHRINKS:
            raise ValueError(f"CLIP needs {SHRINKS} x {SHRINKS} pixels, got {tuple(x.shape[2:])}")
        x = nn.relu(self.bn1(self.conv1(x)))
        x = nn.relu(self.bn2(self.conv2(x)))
        x = avg_pool(nn.relu(self.bn3(self.conv3(x))), 2, 2)
        for level in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = level(x)
        return self.attnpool(x)


class ClipResNet(nn.Module):
    """Both sides, into the same space."""

    def __init__(self, cfg: ClipResNetConfig):
        self.config = cfg
        self.visual = ModifiedResNet(cfg)
        self.text_model = CLIPTextTransformer(cfg.text)
        self.text_projection = jt.zeros((cfg.text.hidden_size, cfg.embed_dim))

    def encode_image(self, x: jt.Var) -> jt.Var:
        """x: (B, 3, H, W), normalised. Returns (B, embed_dim)."""
        return self.visual(x)

    def encode_text(self, ids: np.ndarray) -> jt.Var:
        """ids: (B, L), each row ending in the vocabulary's last id. Returns (B, embed_dim)."""
        last = self.text_model(jt.array(ids.astype(np.int32)))[:, -1]
        return jt.matmul(last, self.text_projection)


def load_clip_resnet(tensors: Mapping[str, np.ndarray], where: object) -> ClipResNet:
    """The network of OpenAI's file. Raises WeightsError for anything that does not fit."""
    network = ClipResNet(ClipResNetConfig.of(tensors, where))
    load_frozen(network, _our_names(tensors), where, UNUSED)
    return network


def _our_names(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """OpenAI's names -> ours; the joint projection of queries, keys and values becomes three."""
    found = {}
    for name, values in tensors.items():
        if not name.startswith("visual."):
            for pattern, becomes in TEXT_NAMES:
                name = re.sub(pattern, becomes, name)
        joint = re.fullmatch(r"(text_model\..*)\.attn\.in_proj_(weight|bias)", name)
        if joint and len(values) % 3 == 0:
            for part, third in zip("qkv", np.split(values, 3), strict=True):
                found[f"{joint[1]}.self_attn.{part}_proj.{joint[2]}"] = third
        else:
            found[name] = values
    return found
