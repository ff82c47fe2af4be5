"""Reference-only in PyTorch, in two passes as the web extension has it: one over the noised
reference that writes down what its layers see, and one over the results that reads it.
"""

from __future__ import annotations

import math

import torch

from tests.parity.torch_walk import TorchWalk, attention, split_heads


class TorchReferenceOnly(TorchWalk):
    def __init__(self, pipe, scheduler, steps, sites, window=(0, 999), mode="attention",
                 fidelity=0.5):  # fmt: skip
        super().__init__(pipe, scheduler, steps)
        self.window, self.fidelity, self.phase = window, fidelity, None
        if mode != "adain":
            for site in sites:
                self.unet.get_submodule(site).set_processor(_Bank(self))
        if mode != "attention":
            blocks = self.unet.down_blocks
            deep = [b for i, b in enumerate(blocks) if 2 * (1 - i / len(blocks)) < 1]
            ups = self.unet.up_blocks
            deep += [b for i, b in enumerate(ups) if 2 * i / len(ups) < 1]
            for block in deep:
                for layer in getattr(block, "attentions", None) or block.resnets:
                    self._watch(layer)
            self._watch(self.unet.mid_block)

    def _watch(self, layer):
        written = []

        def hook(module, args, output):
            x = output[0] if isinstance(output, tuple) else output
            if self.phase == "write":
                written[:] = [_moments(_side_by_side(x, self.count))]
            elif self.phase == "read":
                (mean, std), (mean_r, std_r) = _moments(x), written[0]
                x = self.faithful(x, (x - mean) / std * std_r + mean_r)
            return (x,) if isinstance(output, tuple) else x

        layer.register_forward_hook(hook)

    def faithful(self, plain, changed):
        """In the half without words, only a part of the change."""
        if self.halves == 1:
            return changed
        half = len(plain) // 2
        kept = self.fidelity * plain[:half] + (1 - self.fidelity) * changed[:half]
        return torch.cat([kept, changed[half:]])

    def paint(self, z, prompts, negative, guidance, references, noise):
        """references: clean latents (1, C, h, w) each; noise: (C, h, w)."""
        with torch.no_grad():
            cond, uncond = self.text(*prompts), self.text(negative).expand(len(prompts), -1, -1)
            self.count, self.halves = len(references), 1 if guidance == 1 else 2
            context = cond if guidance == 1 else torch.cat([uncond, cond])

            def predict(z, t):
                if self.window[0] <= t <= self.window[1]:
                    a, s = math.sqrt(self.level(t)), math.sqrt(1 - self.level(t))
                    noised = torch.cat([a * r + s * noise for r in references])
                    self.phase = "write"
                    many = noised.repeat(len(context), 1, 1, 1)
                    self.network(many, t, context.repeat_interleave(self.count, 0))
                    self.phase = "read"
                out = self.network(z.repeat(self.halves, 1, 1, 1), t, context)
                self.phase = None
                if guidance == 1:
                    return out
                without, out = out.chunk(2)
                return without + guidance * (out - without)

            return self.decode(self.sample(z, predict))


class _Bank:
    def __init__(self, method):
        self.method, self.bank = method, None

    def __call__(self, attn, hidden_states, *args, **kwargs):
        m, x = self.method, hidden_states
        if m.phase == "write":
            self.bank = x.unflatten(0, (-1, m.count)).flatten(1, 2)
        plain = self.attend(attn, x, x)
        if m.phase != "read":
            return plain
        return m.faithful(plain, self.attend(attn, x, torch.cat([x, self.bank], 1)))

    def attend(self, attn, x, source):
        parts = ((attn.to_q, x), (attn.to_k, source), (attn.to_v, source))
        return attention(attn, *(split_heads(attn, project(y)) for project, y in parts))


def _side_by_side(x, count):
    """(n * count, C, H, W) -> (n, C, H, count * W)."""
    return torch.cat(list(x.unflatten(0, (-1, count)).unbind(1)), 3)


def _moments(x):
    var, mean = torch.var_mean(x, (2, 3), keepdim=True, correction=0)
    return mean, (var + 1e-6).sqrt()
