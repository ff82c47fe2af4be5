"""What is compiled: how many kernels the demo needs, and that a warm-up leaves none to compile."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from jstyle.commands import inputs, warmup
from jstyle.config import StyleConfig
from jstyle.pipeline import JStyleID
from jstyle.sd.startup import jt

# The number at the time of writing; each further one is about half a second of every first start.
# To lower it is good; to raise it needs a reason.
DEMO_KERNELS = 44


class Bar(contextlib.nullcontext):
    """A progress bar that counts."""

    def __init__(self, total):
        super().__init__(self)
        self.total, self.done = total, 0
        Bar.last = self

    def set_postfix_str(self, text, refresh=True):
        assert text

    def update(self):
        self.done += 1


def kernels(run) -> set[str]:
    """Keys of the compiled kernels that the operations of `run` use."""
    with jt.profile_scope() as report:
        run()
    head, *lines = report
    return {line[head.index("Name")] for line in lines}


@pytest.fixture(scope="module")
def started():
    with inputs.start(inputs.find_model("tiny"), "cpu") as started:
        yield started


def stylise(sd, steps: int, styles: int = 1, **options):
    cfg = StyleConfig(steps=steps, size_px=64, **options)
    styler, rng = JStyleID(sd), np.random.default_rng(0)
    content = rng.uniform(-1, 1, (1, 3, 64, 64)).astype(np.float32)
    style = rng.uniform(-1, 1, (styles, 3, 64, 64)).astype(np.float32)
    return styler.stylize(content, style, cfg).numpy()


def test_the_demo_needs_few_kernels(started):
    needed = kernels(lambda: stylise(started.sd, steps=2))
    assert len(needed) <= DEMO_KERNELS


def test_after_a_warm_up_the_task_needs_no_other_kernel(started):
    stages = warmup.STAGES["stylize"](started, StyleConfig(size_px=64))
    warm = kernels(lambda: [run() for _, run in stages])
    real = kernels(lambda: stylise(started.sd, steps=3, styles=2, gamma="cosine:0.9:0.3"))
    assert real <= warm


def test_after_a_warm_up_generation_needs_no_other_kernel(started):
    stages = warmup.STAGES["generate"](started, StyleConfig(size_px=64))
    warm = kernels(lambda: [run() for _, run in stages])
    real = kernels(lambda: started.sd.generate(["a", "b"], 3, 2, height=128, width=64).numpy())
    assert real <= warm


def test_a_task_without_injection_or_another_type_of_features_is_another_task(started):
    def stages(**options):
        return warmup.STAGES["stylize"](started, StyleConfig(size_px=64, **options))

    warm = kernels(lambda: [run() for _, run in stages(feature_dtype="float16")])
    assert kernels(lambda: stylise(started.sd, 2, feature_dtype="float16")) <= warm
    plain = kernels(lambda: [run() for _, run in stages(inject=False)])
    assert plain < warm


def test_progress_and_what_was_done(tmp_path):
    done = warmup.warm_up(StyleConfig(size_px=64), Bar, ("generate",), device="cpu")
    assert Bar.last.done == Bar.last.total == 3
    assert done.kernels_after == warmup.count_kernels() >= DEMO_KERNELS
    assert done.compiled == done.kernels_after - done.kernels_before >= 0
    assert list(done.seconds)[:2] == ["start", "load"] and len(done.seconds) == 5


def test_a_task_or_size_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="task must be one of stylize, generate, got 'paint'"):
        warmup.warm_up(StyleConfig(), Bar, ("paint",))
    with pytest.raises(ValueError, match="height must be a multiple of 32, got 40"):
        warmup.warm_up(StyleConfig(size_px=40), Bar, ("stylize",), device="cpu")
