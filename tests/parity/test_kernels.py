"""Kernels and layers against PyTorch: values and gradients, fast and plain twin."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from jstyle.sd import kernels
from jstyle.sd.startup import jt
from tests.tolerances import assert_close
from tests.unit.test_kernels import CASES, normal


def torch_attend(q, k, v, causal):
    import torch.nn.functional as F

    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=0.35)
    return out.transpose(1, 2)


def theirs(name):
    import torch.nn.functional as F

    def geglu(h):
        a, gate = h.chunk(2, -1)
        return a * F.gelu(gate)

    return {
        "attend": lambda q, k, v: torch_attend(q, k, v, False),
        "attend causal": lambda q, k, v: torch_attend(q, k, v, True),
        "group_norm": lambda x, w, b: F.group_norm(x, 3, w, b, 1e-5),
        "group_norm silu": lambda x, w, b: F.silu(F.group_norm(x, 4, w, b, 1e-6)),
        "layer_norm": lambda x, w, b: F.layer_norm(x, w.shape, w, b, 1e-5),
        "softmax": lambda x: F.softmax(x, -1),
        "geglu": geglu,
    }[name]


@pytest.mark.parametrize("twin", ["fast", "plain"])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_agree_with_pytorch(name, twin):
    import torch

    function, arrays = CASES[name]
    leaves = [torch.tensor(a, requires_grad=True) for a in arrays]
    out = theirs(name)(*leaves)
    weight = normal(*out.shape, seed=7)
    (out * torch.tensor(weight)).sum().backward()

    with kernels.plain() if twin == "plain" else contextlib.nullcontext():
        inputs = [jt.array(a) for a in arrays]
        ours = function(*inputs)
        gradients = [g.numpy() for g in jt.grad((ours * jt.array(weight)).sum(), inputs)]
    assert_close("kernel.torch", ours.numpy(), out.detach().numpy())
    for gradient, leaf in zip(gradients, leaves, strict=True):
        assert_close("kernel.torch_gradient", gradient, np.asarray(leaf.grad))
