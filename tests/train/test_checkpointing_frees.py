"""A recomputed block holds nothing once its gradients are there."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from jdreambooth.checkpointing import checkpointed
from jstyle.sd.attention import Transformer2DModel
from jstyle.sd.kernels.dispatch import Kernel
from jstyle.sd.startup import jt


def held() -> int:
    """Kernels that are alive and keep tensors for a backward pass."""
    gc.collect()
    return sum(isinstance(x, Kernel) and x.saved is not None for x in gc.get_objects())


@pytest.fixture
def block_and_inputs():
    jt.sync_all()
    jt.gc()
    rng = np.random.default_rng(0)
    block = Transformer2DModel(8, 20, 2, True, 4)
    x, context = (
        jt.array(rng.standard_normal(shape).astype(np.float32))
        for shape in ((1, 8, 4, 6), (1, 77, 20))
    )
    return block, x, context


def test_after_checkpointed_gradients_no_kernel_keeps_its_tensors(block_and_inputs):
    block, x, context = block_and_inputs
    before = held()
    with checkpointed(block):
        gradient = jt.grad((block(x, context) ** 2).sum(), [x])[0]
        assert held() == before  # before anything has run
        gradient.sync()


def test_without_checkpointing_gradients_can_be_taken_again(block_and_inputs):
    block, x, context = block_and_inputs
    before = held()
    loss = (block(x, context) ** 2).sum()
    first = jt.grad(loss, [x])[0].numpy()
    assert held() > before
    np.testing.assert_array_equal(jt.grad(loss, [x])[0].numpy(), first)
