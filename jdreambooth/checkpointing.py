"""Gradient checkpointing (arXiv:1604.06174): blocks forget their inner values and recompute them.

A block is a resnet, a transformer or a layer of the text encoder. Its output and its inputs stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from jstyle.sd.attention import Transformer2DModel
from jstyle.sd.clip import CLIPEncoderLayer
from jstyle.sd.hooks import around
from jstyle.sd.kernels import gradients_once
from jstyle.sd.layers import ResnetBlock2D
from jstyle.sd.lora import lora_parameters
from jstyle.sd.startup import jt

BLOCKS = (ResnetBlock2D, Transformer2DModel, CLIPEncoderLayer)


class _Recomputed(jt.Function):
    """call(*inputs), given the parameters too so that their gradients flow through here."""

    def execute(self, call, trained, count, *tensors):
        self.call, self.trained, self.inputs = call, trained, tensors[:count]
        self.wanted = [not x.is_stop_grad() for x in self.inputs]
        with jt.no_grad():
            return call(*self.inputs)

    def grad(self, g):
        inputs = [x.detach() for x in self.inputs]
        with jt.enable_grad(), gradients_once():
            for x, wanted in zip(inputs, self.wanted, strict=True):
                x.start_grad() if wanted else x.stop_grad()
            sources = [x for x in inputs if not x.is_stop_grad()] + self.trained
            out = self.call(*inputs)
            found = jt.grad((out * g.detach()).sum(), sources, retain_graph=False)
        # gradients that could be differentiated again would keep the recomputed values alive
        found = iter([gradient.stop_grad() for gradient in found])
        of_inputs = [next(found) if wanted else None for wanted in self.wanted]
        return (None, None, None, *of_inputs, *found)


def _trained(block) -> list:
    parameters = [*block.parameters(), *lora_parameters(block).values()]
    return [p for p in parameters if not p.is_stop_grad()]


def _checkpoint(trained: list) -> Callable:
    def hook(call, *inputs):
        if not trained and all(x.is_stop_grad() for x in inputs):
            return call(*inputs)
        return _Recomputed.apply(call, trained, len(inputs), *inputs, *trained)

    return hook


@contextmanager
def checkpointed(*modules: jt.nn.Module) -> Iterator[int]:
    """Recompute the blocks of these modules in the backward pass; yields how many there are.

    What is trained has to be known before. Gradients are the same. Undone on exit, also after an
    exception.
    """
    blocks = [block for module in modules for block in module.modules() if type(block) in BLOCKS]
    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(around(block, "execute", _checkpoint(_trained(block))))
        yield len(blocks)
