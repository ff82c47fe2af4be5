"""Methods that take attention from a source picture, in PyTorch on diffusers' models.

Written for the tests from the papers' formulas; shares nothing with the package. Rows that guidance
leads away from are evaluated by themselves, and attention is written out.
"""

from __future__ import annotations

import math

import torch
from torch.nn.functional import interpolate

from tests.parity.torch_walk import TorchWalk


class TorchSourced(TorchWalk):
    """A walk whose attentions ask `self_attention` and `cross_attention`.

    now: what runs, one of "content", "style" and "result"; t: its timestep; conditional: whether
    the row is the one that guidance leads to.
    """

    now, t, conditional = "", None, True

    def __init__(self, pipe, scheduler, steps, **options):
        super().__init__(pipe, scheduler, steps)
        self.kept = {}
        for name, value in options.items():
            setattr(self, name, value)
        for name, module in pipe.unet.named_modules():
            if name.endswith(("attn1", "attn2")):
                module.set_processor(_Processor(self, name))

    def network(self, z, t, context):
        self.t, self.height, self.width = t, *z.shape[2:]
        return super().network(z, t, context)

    def inverted(self, role, image, prompt=""):
        """{t: latent at level t}; what is to be kept is kept on the way."""
        self.now = role
        levels = self.invert(image, prompt)
        self.now = ""
        return levels

    def before(self, z, t):
        """The latent of the result before its evaluation at t; t = -1: after the last one."""
        return z

    def painted(self, z, prompt="", negative="", guidance=1.0):
        """The picture of noise z."""

        def predict(z, t):
            self.conditional = True
            out = self.network(z, t, self.text(prompt))
            if guidance == 1.0:
                return out
            self.conditional = False
            away = self.network(z, t, self.text(negative))
            return away + guidance * (out - away)

        self.now = "result"
        for t in reversed(self.ascending):
            z = self.before(z, t)
            z = self.move(z, predict(z, t), self.level(t), self.level(t - self.stride))
        z = self.before(z, -1)
        self.now = ""
        return self.decode(z)

    def inside(self, window):
        return window[0] <= self.t <= window[1]

    def self_attention(self, site, q, k, v):
        return attend(q, k, v)

    def cross_attention(self, site, q, k, v):
        return attend(q, k, v)


class _Processor:
    """Attention for diffusers' `Attention`; q, k and v are (heads, tokens, head_dim)."""

    def __init__(self, walk, site):
        self.walk, self.site = walk, site

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, *args, **kwargs):
        walk, crossed = self.walk, encoder_hidden_states is not None
        source = encoder_hidden_states if crossed else hidden_states
        parts = ((attn.to_q, hidden_states), (attn.to_k, source), (attn.to_v, source))
        q, k, v = (p(x)[0].unflatten(-1, (attn.heads, -1)).transpose(0, 1) for p, x in parts)
        out = (walk.cross_attention if crossed else walk.self_attention)(self.site, q, k, v)
        return attn.to_out[0](out.transpose(0, 1).flatten(1))[None]


def weights(q, k, extra=0.0):
    logits = torch.einsum("hqd,hkd->hqk", q, k) / math.sqrt(q.shape[-1])
    return (logits + extra).softmax(-1)


def attend(q, k, v, extra=0.0):
    return weights(q, k, extra) @ v


def only(mask):
    """For the logits: keys where the mask is 1, or all where it is 1 nowhere."""
    return torch.where(mask > 0, 0.0, -torch.inf) if mask.any() else torch.zeros_like(mask)


def swap_statistics(content, style):
    """AdaIN per channel; torch.var is unbiased."""

    def moments(x):
        flat = x.flatten(2)
        var = flat.var(-1, unbiased=True)
        return flat.mean(-1)[..., None, None], (var + 1e-5).sqrt()[..., None, None]

    (mean_c, std_c), (mean_s, std_s) = moments(content), moments(style)
    return (content - mean_c) / std_c * std_s + mean_s


class TorchMasaCtrl(TorchSourced):
    """arXiv:2304.08465, eq. 5; with masks eq. 6 to 8.

    sites, window, weight; tokens: None, or (places of the subject in the source's prompt, in the
    result's); threshold of the masks.
    """

    def stylize(self, source, source_prompt, prompt, negative, guidance):
        with torch.no_grad():
            noise = self.inverted("content", source, source_prompt)[self.ascending[-1]]
            return self.painted(noise, prompt, negative, guidance)

    def network(self, z, t, context):
        self.maps = []
        return super().network(z, t, context)

    def cross_attention(self, site, q, k, v):
        quarter = (self.height // 4) * (self.width // 4)
        if self.tokens is not None and q.shape[1] == quarter:
            places = self.tokens[self.now == "result"]
            self.maps.append(weights(q, k)[..., places].mean(0).sum(-1))
        return attend(q, k, v)

    def mask(self, tokens):
        """1 where the subject is, for a self-attention of so many tokens."""
        mean = torch.stack(self.maps).mean(0).reshape(1, 1, self.height // 4, self.width // 4)
        scaled = (mean - mean.min()) / (mean.max() - mean.min())
        shrink = math.isqrt(self.height * self.width // tokens)
        size = self.height // shrink, self.width // shrink
        return (interpolate(scaled, size) >= self.threshold).float().flatten()

    def self_attention(self, site, q, k, v):
        tokens, masked = q.shape[1], self.tokens is not None and len(self.maps) > 0
        if site not in self.sites or not self.inside(self.window):
            return attend(q, k, v)
        if self.now == "content":
            self.kept[site, self.t] = k, v, self.mask(tokens) if masked else None
            return attend(q, k, v)
        k_s, v_s, mask_s = self.kept[site, self.t]
        if masked:
            if self.conditional:
                self.kept["target", site, self.t] = self.mask(tokens)
            mask_t = self.kept["target", site, self.t][:, None]
            subject, around = (attend(q, k_s, v_s, only(m)) for m in (mask_s, 1 - mask_s))
            mutual = subject * mask_t + around * (1 - mask_t)
        else:
            mutual = attend(q, k_s, v_s)
        return self.weight * mutual + (1 - self.weight) * attend(q, k, v)


class TorchCrossImage(TorchSourced):
    """arXiv:2311.03335, section 4. sites, window, weight, gamma, contrast, guidance, adain_window;
    skip: how many of the noisiest steps are left out."""

    def stylize(self, structure, appearance):
        with torch.no_grad():
            levels = self.inverted("content", structure)
            self.levels = self.inverted("style", appearance)
            self.levels[-1] = self.encode(appearance)
            whole, self.started = self.ascending, False
            self.ascending = whole[: len(whole) - self.skip]
            return self.painted(levels[self.ascending[-1]], guidance=self.guidance)

    def before(self, z, t):
        """After a step that began in both windows: the style's statistics at the level there."""
        began = self.t if self.started else None
        self.started = True
        if self.adain_window is None or began is None or not self.inside(self.window):
            return z
        if not self.adain_window[0] <= began <= self.adain_window[1]:
            return z
        return z + self.weight * (swap_statistics(z, self.levels[t]) - z)

    def self_attention(self, site, q, k, v):
        if site not in self.sites or not self.inside(self.window):
            return attend(q, k, v)
        if self.now != "result":
            self.kept[self.now, site, self.t] = q, k, v
        if self.now != "result" or not self.conditional:
            return attend(q, k, v)
        q_c, _, _ = self.kept["content", site, self.t]
        _, k_s, v_s = self.kept["style", site, self.t]
        map_ = weights(self.gamma * q_c + (1 - self.gamma) * q, k_s)
        mean = map_.mean(-1, keepdim=True)
        map_ = ((map_ - mean) * self.contrast + mean).clamp(0, 1)
        return self.weight * (map_ @ v_s) + (1 - self.weight) * attend(q, k, v)


class TorchAppearanceEncoder(TorchSourced):
    """arXiv:2311.16498, section 3.2, and arXiv:2307.10157. sites, window, weight; at: "clean" or
    "same", the timestep at which the copy of the network sees the clean reference; both: whether
    the rows that guidance leads away from see it too."""

    def stylize(self, noise, reference, prompt, negative, guidance):
        with torch.no_grad():
            self.clean = self.encode(reference)
            return self.painted(torch.as_tensor(noise).double(), prompt, negative, guidance)

    def network(self, z, t, context):
        if self.now == "result":
            self.now = "style"
            super().network(self.clean, 0 if self.at == "clean" else t, self.text(""))
            self.now = "result"
        return super().network(z, t, context)

    def self_attention(self, site, q, k, v):
        if self.now == "style":
            self.kept[site] = k, v
        seen = site in self.sites and self.inside(self.window) and (self.conditional or self.both)
        if self.now == "style" or not seen or self.weight == 0:
            return attend(q, k, v)
        k_r, v_r = self.kept[site]
        share = torch.cat([torch.zeros(k.shape[1]), torch.full((k_r.shape[1],), self.weight).log()])
        return attend(q, torch.cat([k, k_r], 1), torch.cat([v, v_r], 1), share)


class TorchPlugAndPlay(TorchSourced):
    """arXiv:2211.12572, section 4. sites and window of the self-attention, blocks and
    feature_window of the residual features, weight."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        for name in self.blocks:
            self.pipe.unet.get_submodule(name).conv2.register_forward_hook(self.features(name))

    def stylize(self, source, source_prompt, prompt, negative, guidance):
        with torch.no_grad():
            noise = self.inverted("content", source, source_prompt)[self.ascending[-1]]
            return self.painted(noise, prompt, negative, guidance)

    def features(self, name):
        def hook(module, inputs, out):
            if self.now == "content":
                self.kept[name, self.t] = out
            elif self.inside(self.feature_window):
                return self.weight * self.kept[name, self.t] + (1 - self.weight) * out
            return None

        return hook

    def self_attention(self, site, q, k, v):
        if site in self.sites and self.inside(self.window):
            if self.now == "content":
                self.kept[site, self.t] = q, k
            else:
                q_s, k_s = self.kept[site, self.t]
                q = self.weight * q_s + (1 - self.weight) * q
                k = self.weight * k_s + (1 - self.weight) * k
        return attend(q, k, v)
