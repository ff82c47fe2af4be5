"""Half-precision numbers as float32: of a mapped file into a Var's memory, or of a Var.

By several threads, in one pass. NumPy widens them one by one in software, four nanoseconds each,
and looking for values that are not finite would read everything once more; Jittor's cast on the
CPU takes as long, and may melt into the product that follows, which then is no call of oneDNN.
"""

from __future__ import annotations

import numpy as np

from ..startup import jt
from .dispatch import HEADER, code, on_cpu

_WIDEN = r"""
const uint16_t* from=(const uint16_t*)(uintptr_t)data["from"];
float* to=(float*)(uintptr_t)data["to"]; const int64_t n=data["count"]; uint32_t most=0;
#pragma omp parallel for reduction(max:most)
for (int64_t i=0; i<n; i++) {
  const uint32_t rest=from[i]&0x7fffu, sign=(uint32_t)(from[i]&0x8000u)<<16;
  union { uint32_t bits; float value; } normal, small;
  normal.bits=(rest<<13)+0x38000000u; small.value=(int32_t)rest*5.9604644775390625e-8f;
  normal.bits=(rest<0x400u ? small.bits : normal.bits)|sign;
  to[i]=normal.value; most=std::max(most,rest);
}
out0_p[0]=most<0x7c00u;
"""

_WIDENED = r"""
@alias(w,in0) @alias(y,out0)
const uint16_t* from=(const uint16_t*)w_p; float* to=y_p; const int64_t n=w->num;
#pragma omp parallel for
for (int64_t i=0; i<n; i++) {
  @BITS
}
"""
_BITS = {
    "float16": r"""
  const uint32_t rest=from[i]&0x7fffu, sign=(uint32_t)(from[i]&0x8000u)<<16;
  union { uint32_t bits; float value; } normal, small;
  normal.bits=(rest<<13)+(rest<0x7c00u ? 0x38000000u : 0x70000000u);
  small.value=(int32_t)rest*5.9604644775390625e-8f;
  normal.bits=(rest<0x400u ? small.bits : normal.bits)|sign; to[i]=normal.value;
""",
    "bfloat16": r"""
  union { uint32_t bits; float value; } wide; wide.bits=(uint32_t)from[i]<<16; to[i]=wide.value;
""",
}


def widened(w: jt.Var) -> jt.Var:
    """A float16 or bfloat16 Var as float32, without a gradient; the values are the same."""
    if not on_cpu():
        wide = w.float32()
        wide.stop_fuse()  # what is fused with a product keeps it from cuBLAS
        return wide
    source = _WIDENED.replace("@BITS", _BITS[str(w.dtype)])
    return jt.code(w.shape, "float32", [w], cpu_header=HEADER, cpu_src=source).stop_grad()


def widen(values: np.ndarray, memory: np.ndarray) -> bool:
    """Write float16 `values` into float32 `memory`, both contiguous and of one size.

    Returns whether all values are finite; where not, `memory` holds no meaning.
    """
    places = {"from": values.ctypes.data, "to": memory.ctypes.data, "count": values.size}
    finite = code([(1,)], [], _WIDEN, **places)
    finite.sync(False, False)  # at once, and nothing else that waits
    return bool(finite.data[0])
