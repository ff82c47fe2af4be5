"""Which twin runs: the C++ kernel, or stock Jittor operations."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from ..startup import jt

# Shared by every kernel. dnnl_sgemm is row-major and already loaded with Jittor's own oneDNN
# operators.
HEADER = r"""
#include <omp.h>
#include <algorithm>
#include <cmath>
#include <vector>
extern "C" int dnnl_sgemm(char, char, int64_t, int64_t, int64_t, float, const float*, int64_t,
                          const float*, int64_t, float, float*, int64_t);
"""

_plain = False
_once = False


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Use the plain twins inside the block, whatever the device."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


@contextlib.contextmanager
def gradients_once() -> Iterator[None]:
    """Inside the block, gradients are taken once of every graph: a kernel lets go of what it saved
    when it has given its own. Otherwise Jittor would hold that until all gradients are there."""
    global _once
    before, _once = _once, True
    try:
        yield
    finally:
        _once = before


class Kernel(jt.Function):
    """A kernel with a gradient, which finds in `saved` what `execute` put there for it."""

    saved = None

    def _grad(self, *gradients):
        found = super()._grad(*gradients)
        if _once:
            self.saved = None
        return found


def on_cpu() -> bool:
    """True where C++ kernels can run at all."""
    return not _plain and not jt.flags.use_cuda


def fast(*tensors: jt.Var) -> bool:
    """True if the C++ kernels can take these tensors here: CPU, oneDNN, float32."""
    return (
        on_cpu() and bool(jt.compile_extern.use_mkl) and all(t.dtype == "float32" for t in tensors)
    )


def code(shapes: Sequence, inputs: Sequence[jt.Var], source: str, **scalars: object) -> Any:
    """Run `source` over `inputs`; float32 outputs of `shapes`. Scalars are read as data["name"].

    Neither sizes nor scalars are part of the source, so one compiled kernel serves all of them.
    """
    dtypes = ["float32"] * len(shapes)
    outputs = jt.code(shapes, dtypes, list(inputs), cpu_header=HEADER, cpu_src=source, data=scalars)
    return outputs if len(shapes) > 1 else outputs[0]
