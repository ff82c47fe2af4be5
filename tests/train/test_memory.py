"""Gradient checkpointing on blocks as wide as Stable Diffusion's, 320 channels at 64 x 64."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.cli.conftest import environment
from tests.tolerances import rel_l2

STACK = """
import contextlib, json, resource, sys
import numpy as np
from jdreambooth.checkpointing import checkpointed
from jstyle.sd.attention import Transformer2DModel
from jstyle.sd.layers import ResnetBlock2D
from jstyle.sd.startup import jt

class Stack(jt.nn.Module):
    def __init__(self, width=320, count=6):
        self.resnets = jt.nn.ModuleList(
            [ResnetBlock2D(width, width, 1280, 32, 1e-5) for _ in range(count)])
        self.attentions = jt.nn.ModuleList(
            [Transformer2DModel(width, 1024, 5, True, 32) for _ in range(count)])
    def execute(self, x, temb, context):
        for resnet, attention in zip(self.resnets, self.attentions):
            x = attention(resnet(x, temb), context)
        return x

rng = np.random.default_rng(0)
draw = lambda *shape: jt.array(rng.standard_normal(shape).astype(np.float32))
stack = Stack()
for parameter in stack.parameters():
    parameter.update(draw(*parameter.shape) * 0.02 + float(parameter.ndim == 1))
x, temb, context = draw(1, 320, 64, 64), draw(1, 1280), draw(1, 77, 1024)
trained = stack.parameters()
jt.sync_all()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
with checkpointed(stack) if sys.argv[1] == "on" else contextlib.nullcontext():
    loss = (stack(x, temb, context) ** 2).mean()
    gradients = [g.stop_grad() for g in jt.grad(loss, trained)]
    jt.sync_all()
print(json.dumps({"mib": peak() - before, "loss": loss.item(),
                  "norms": [float(np.linalg.norm(g.numpy())) for g in gradients],
                  "first": gradients[0].numpy().tolist()}))
"""


def measure(switch: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", STACK, switch],
        capture_output=True, text=True, env=environment(), timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_peak_memory_falls_by_two_fifths_and_gradients_stay():
    on, off = measure("on"), measure("off")
    print(f"peak {off['mib']:.0f} MiB, with checkpointing {on['mib']:.0f} MiB")
    assert on["mib"] <= 0.6 * off["mib"]
    assert on["loss"] == off["loss"]
    assert rel_l2(on["first"], off["first"]) < 1e-5
    np.testing.assert_allclose(on["norms"], off["norms"], rtol=1e-4)
