"""Style Aligned (arXiv:2312.02133) in PyTorch, as its authors lay the batch out: the reference is
the first picture of both halves, without and with the words, and is put in its place again before
every step where it was inverted.
"""

from __future__ import annotations

import torch

from tests.parity.torch_walk import TorchWalk, attention, split_heads


class TorchStyleAligned(TorchWalk):
    """references: pictures of one reference; none: the first result leads the others."""

    def __init__(self, pipe, scheduler, steps, sites, window=(0, 999), adain="qk", norms=True,
                 scale=1.0, shift=0.0):  # fmt: skip
        super().__init__(pipe, scheduler, steps)
        self.window, self.adain, self.scale, self.shift = window, adain, scale, shift
        self.on, self.count = False, 0
        for site in sites:
            self.unet.get_submodule(site).set_processor(_Shared(self))
        for module in self.unet.modules():
            if norms and isinstance(module, torch.nn.GroupNorm):
                self._share(module)

    def _share(self, module):
        plain = module.forward

        def forward(x):
            if not self.on:
                return plain(x)
            out = plain(torch.cat([x, *self.first(x)], 2))[:, :, : x.shape[2]]
            return self.alone(out, plain(x))

        module.forward = forward

    def first(self, x):
        """The references' rows for every row of the batch, a list with one entry per reference."""
        half = len(x) // self.halves
        return [
            torch.cat([x[i * half + r].expand(half, *x.shape[1:]) for i in range(self.halves)])
            for r in range(self.count)
        ]

    def alone(self, out, plain):
        """The references look at nobody: their rows of `plain`."""
        half = len(out) // self.halves
        out = out.clone()
        for i in range(self.halves):
            out[i * half : i * half + self.count] = plain[i * half : i * half + self.count]
        return out

    def paint(self, z, prompts, negative, guidance, references=(), about=""):
        """Pictures from the noise z, one row per prompt; references: of `invert`."""
        with torch.no_grad():
            words = [about] * len(references) + list(prompts)
            cond, uncond = self.text(*words), self.text(negative).expand(len(words), -1, -1)
            self.count, self.halves = max(1, len(references)), 1 if guidance == 1 else 2

            def predict(z, t):
                self.on = self.window[0] <= t <= self.window[1]
                rows = torch.cat([*(r[t] for r in references), z])
                if guidance == 1:
                    out = self.network(rows, t, cond)
                else:
                    out = self.network(torch.cat([rows, rows]), t, torch.cat([uncond, cond]))
                    without, out = out.chunk(2)
                    out = without + guidance * (out - without)
                self.on = False
                return out[len(references) :]

            return self.decode(self.sample(z, predict))


class _Shared:
    def __init__(self, method):
        self.method = method

    def __call__(self, attn, hidden_states, *args, **kwargs):
        m = self.method
        q, k, v = (split_heads(attn, p(hidden_states)) for p in (attn.to_q, attn.to_k, attn.to_v))
        if not m.on:
            return attention(attn, q, k, v)
        n = q.shape[2]
        theirs = {name: torch.cat(m.first(x), 2) for name, x in zip("qkv", (q, k, v), strict=True)}
        own = dict(zip("qkv", (q, k, v), strict=True))
        for name in m.adain:
            own[name] = _statistics(own[name], theirs[name])
        keys = torch.cat([own["k"], m.scale * theirs["k"]], 2)
        values = torch.cat([own["v"], theirs["v"]], 2)
        bias = torch.zeros(keys.shape[2])
        bias[n:] = m.shift
        out = attention(attn, own["q"], keys, values, bias)
        return m.alone(out, attention(attn, q, k, v))


def _statistics(x, reference):
    def moments(y):
        return y.mean(-2, keepdim=True), (y.var(-2, keepdim=True) + 1e-5).sqrt()

    (mean, std), (mean_r, std_r) = moments(x), moments(reference)
    return (x - mean) / std * std_r + mean_r
