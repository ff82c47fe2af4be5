"""Convolution as matrix products with the weights as they lie in memory.

oneDNN's convolution first copies the weights, and the input and output too, into layouts of its
own, at every call. Where a feature map has fewer pixels than the layer has channels (the two lowest
levels of Stable Diffusion's UNet), that copy takes longer than the arithmetic. Here the input is
laid out instead, as columns of patches: (O, C*kh*kw) is what the weights are, so the product needs
no copy of them, and its result is NCHW. Columns are made for a slice of channels at a time, to stay
in the cache. A 1x1 convolution needs no columns either: it is the product itself.

One thread, milliseconds here / oneDNN 2.2 (AMD EPYC, 2026-11-20): 3x3 1280 channels at 8x8 9.8 /
44.5, at 16x16 36.7 / 67.4; 640 at 32x32 38 / 35; 1x1 960 to 320 at 64x64 11.3 / 17.1.
"""

from __future__ import annotations

from typing import NamedTuple

from .. import convolution_choice
from ..startup import jt
from . import winograd
from .dispatch import Kernel, code, fast

# What all three kernels share: sizes, and the walk from columns to pixels.
_SIZES = r"""
const int64_t N=@X_shape0, C=@X_shape1, H=@X_shape2, W=@X_shape3;
const int64_t O=@W_shape0, kh=@W_shape2, kw=@W_shape3, taps=kh*kw, K=C*taps;
const int64_t stride=data["stride"], pad=data["padding"];
const int64_t oh=(H+2*pad-kh)/stride+1, ow=(W+2*pad-kw)/stride+1, P=oh*ow;
const int64_t slice=std::max<int64_t>(1, std::min(C, (int64_t)(1<<18)/(taps*P)));
"""
# Of an output row, columns first..end lie inside the input at this tap, the others in its padding.
_EACH_ROW = r"""
    for (int64_t a=0; a<kh; a++) for (int64_t b=0; b<kw; b++) {
      float* tap=cols.data()+((c-c0)*taps+a*kw+b)*P;
      const int64_t first=std::min(ow, std::max<int64_t>(0, (pad-b+stride-1)/stride));
      const int64_t reach=W-1+pad-b, end=reach<0 ? first : std::min(ow, reach/stride+1);
      for (int64_t i=0; i<oh; i++) {
        const int64_t y=i*stride+a-pad; float* row=tap+i*ow;
        @OUTSIDE
        float* line=plane+y*W+first*stride+b-pad;
        @INSIDE
      }
    }
"""
_GATHER = (
    r"""
  #pragma omp parallel for
  for (int64_t c=c0; c<c0+used; c++) {
    float* plane=(float*)X+(n*C+c)*H*W;
"""
    + _EACH_ROW.replace(
        "@OUTSIDE",
        "if (y<0 || y>=H) { std::fill(row, row+ow, 0.f); continue; }"
        "std::fill(row, row+first, 0.f); std::fill(row+end, row+ow, 0.f);",
    ).replace(
        "@INSIDE",
        "if (stride==1) std::copy(line, line+end-first, row+first);"
        "else for (int64_t j=first; j<end; j++) row[j]=line[(j-first)*stride];",
    )
    + "  }\n"
)
_SCATTER = (
    r"""
  #pragma omp parallel for
  for (int64_t c=c0; c<c0+used; c++) {
    float* plane=DX+(n*C+c)*H*W;
    std::fill(plane, plane+H*W, 0.f);
"""
    + _EACH_ROW.replace("@OUTSIDE", "if (y<0 || y>=H) continue;").replace(
        "@INSIDE", "for (int64_t j=first; j<end; j++) line[(j-first)*stride]+=row[j];"
    )
    + "  }\n"
)
_SLICES = r"""
std::vector<float> cols(slice*taps*P);
for (int64_t n=0; n<N; n++) for (int64_t c0=0; c0<C; c0+=slice) {
  const int64_t used=std::min(slice, C-c0);
"""

_FORWARD = (
    "@alias(x,in0) @alias(w,in1) @alias(y,out0)"
    + _SIZES.replace("@X", "x").replace("@W", "w")
    + "const float *X=x_p, *Wt=w_p; float* Y=y_p;"
    + _SLICES
    + _GATHER
    + r"""
  dnnl_sgemm('N','N',O,P,used*taps,1.f,Wt+c0*taps,K,cols.data(),P,c0?1.f:0.f,Y+n*O*P,P);
}
"""
)
_POINTS_FORWARD = r"""
@alias(x,in0) @alias(w,in1) @alias(y,out0)
const int64_t N=x_shape0, C=x_shape1, O=w_shape0, P=x_shape2*x_shape3;
for (int64_t n=0; n<N; n++)
  dnnl_sgemm('N','N',O,P,C,1.f,w_p,C,x_p+n*C*P,P,0.f,y_p+n*O*P,P);
"""
_BACKWARD_INPUT = (
    "@alias(g,in0) @alias(w,in1) @alias(dx,out0)"
    + _SIZES.replace("@X", "dx").replace("@W", "w")
    + "const float *G=g_p, *Wt=w_p; float* DX=dx_p;"
    + _SLICES
    + r"""
  dnnl_sgemm('T','N',used*taps,P,O,1.f,Wt+c0*taps,K,G+n*O*P,P,0.f,cols.data(),P);
"""
    + _SCATTER
    + "}\n"
)
_BACKWARD_WEIGHT = (
    "@alias(g,in0) @alias(x,in1) @alias(dw,out0)"
    + _SIZES.replace("@X", "x").replace("@W", "dw")
    + "const float *G=g_p, *X=x_p; float* DW=dw_p;"
    + _SLICES
    + _GATHER
    + r"""
  dnnl_sgemm('N','T',O,used*taps,P,1.f,G+n*O*P,P,cols.data(),P,n?1.f:0.f,DW+c0*taps,K);
}
"""
)


_POINTS_INPUT = r"""
@alias(g,in0) @alias(w,in1) @alias(dx,out0)
const int64_t N=g_shape0, C=w_shape1, O=w_shape0, P=g_shape2*g_shape3;
for (int64_t n=0; n<N; n++)
  dnnl_sgemm('T','N',C,P,O,1.f,w_p,C,g_p+n*O*P,P,0.f,dx_p+n*C*P,P);
"""
_POINTS_WEIGHT = r"""
@alias(g,in0) @alias(x,in1) @alias(dw,out0)
const int64_t N=g_shape0, C=x_shape1, O=g_shape1, P=g_shape2*g_shape3;
for (int64_t n=0; n<N; n++)
  dnnl_sgemm('N','T',O,C,P,1.f,g_p+n*O*P,P,x_p+n*C*P,P,n?1.f:0.f,dw_p,C);
"""


class _Sources(NamedTuple):
    """Of the output, the gradient of the input, and that of the weights."""

    forward: str
    input: str
    weight: str


_PATCHES = _Sources(_FORWARD, _BACKWARD_INPUT, _BACKWARD_WEIGHT)
_POINTS = _Sources(_POINTS_FORWARD, _POINTS_INPUT, _POINTS_WEIGHT)
_SOURCES = {convolution_choice.PATCHES: _PATCHES, convolution_choice.POINTS: _POINTS}


class _Convolve(Kernel):
    def execute(self, x, w, sources, stride, padding):
        how = {"stride": stride, "padding": padding}
        self.saved = (x, w, sources, how)
        shape = (x.shape[0], w.shape[0], *_out_size(x, w, stride, padding))
        return code([shape], (x, w), sources.forward, **how)

    def grad(self, g):
        x, w, sources, how = self.saved
        dx = code([tuple(x.shape)], (g, w), sources.input, **how)
        dw = code([tuple(w.shape)], (g, x), sources.weight, **how)
        return dx, dw, None, None, None


def _out_size(x, w, stride: int, padding: int) -> tuple[int, int]:
    return tuple((x.shape[i] + 2 * padding - w.shape[i]) // stride + 1 for i in (2, 3))


def convolve(x: jt.Var, w: jt.Var, stride: int = 1, padding: int = 0) -> jt.Var:
    """2-D cross-correlation. x: (B, C, H, W); w: (O, C, kh, kw). Returns (B, O, H', W')."""
    if fast(x, w):
        way = fastest(x, w, stride, padding)
        if way == convolution_choice.WINOGRAD:
            return winograd.convolve_3x3(x, w)
        if way in _SOURCES:
            return _Convolve.apply(x, w, _SOURCES[way], stride, padding)
    if x.dtype == "float16" and jt.flags.use_cuda:
        # Jittor has cuDNN sum thousands of products in float16, and may give it an algorithm that
        # was chosen for float32 and cannot do that. GPUs since 2020 take TensorFloat-32 for this.
        return jt.nn.conv2d(x.float32(), w.float32(), None, stride, padding).float16()
    return jt.nn.conv2d(x, w, None, stride, padding)


def fastest(x: jt.Var, w: jt.Var, stride: int, padding: int) -> str:
    """The way for these sizes, by convolution_choice.py."""
    out, channels, *window = w.shape
    sizes = (channels, out, tuple(window), tuple(x.shape[2:]))
    return convolution_choice.choose(*sizes, stride, padding, not w.is_stop_grad())
