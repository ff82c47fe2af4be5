"""Softmax over the last dimension and the GEGLU gate (arXiv:2002.05202)."""

from __future__ import annotations

from ..startup import jt
from .dispatch import Kernel, code, fast

_SOFTMAX_FORWARD = r"""
@alias(x,in0) @alias(y,out0)
const int64_t m=data["m"], n=x->num/m; const float* X=x_p; float* Y=y_p;
#pragma omp parallel for
for (int64_t i=0; i<n; i++) {
  const float* s=X+i*m; float* o=Y+i*m;
  float top=s[0]; for (int64_t j=1; j<m; j++) top=std::max(top, s[j]);
  float sum=0; for (int64_t j=0; j<m; j++) { o[j]=std::exp(s[j]-top); sum+=o[j]; }
  const float inverse=1.f/sum; for (int64_t j=0; j<m; j++) o[j]*=inverse;
}
"""

_SOFTMAX_BACKWARD = r"""
@alias(y,in0) @alias(g,in1) @alias(dx,out0)
const int64_t m=data["m"], n=y->num/m; const float *Y=y_p, *G=g_p; float* D=dx_p;
#pragma omp parallel for
for (int64_t i=0; i<n; i++) {
  float t=0; for (int64_t j=0; j<m; j++) t+=Y[i*m+j]*G[i*m+j];
  for (int64_t j=0; j<m; j++) D[i*m+j]=Y[i*m+j]*(G[i*m+j]-t);
}
"""

_GEGLU_FORWARD = r"""
@alias(h,in0) @alias(y,out0)
const int64_t D=data["d"], n=y->num/D; const float* H=h_p; float* Y=y_p;
#pragma omp parallel for
for (int64_t i=0; i<n; i++) {
  const float *a=H+i*2*D, *q=a+D; float* o=Y+i*D;
  for (int64_t j=0; j<D; j++) o[j]=a[j]*q[j]*0.5f*(1.f+std::erf(q[j]*0.70710678f));
}
"""

_GEGLU_BACKWARD = r"""
@alias(h,in0) @alias(g,in1) @alias(dh,out0)
const int64_t D=data["d"], n=g->num/D; const float *H=h_p, *G=g_p; float* DH=dh_p;
#pragma omp parallel for
for (int64_t i=0; i<n; i++) {
  const float *a=H+i*2*D, *q=a+D, *r=G+i*D; float *da=DH+i*2*D, *dq=da+D;
  for (int64_t j=0; j<D; j++) {
    const float c=0.5f*(1.f+std::erf(q[j]*0.70710678f)), p=0.39894228f*std::exp(-0.5f*q[j]*q[j]);
    da[j]=r[j]*q[j]*c; dq[j]=r[j]*a[j]*(c+q[j]*p);
  }
}
"""


class _Softmax(Kernel):
    def execute(self, x):
        self.saved = code([tuple(x.shape)], (x,), _SOFTMAX_FORWARD, m=x.shape[-1])
        return self.saved

    def grad(self, g):
        return code([tuple(g.shape)], (self.saved, g), _SOFTMAX_BACKWARD, m=g.shape[-1])


class _Geglu(Kernel):
    def execute(self, h):
        self.saved = h
        half = h.shape[-1] // 2
        return code([(*h.shape[:-1], half)], (h,), _GEGLU_FORWARD, d=half)

    def grad(self, g):
        return code([tuple(self.saved.shape)], (self.saved, g), _GEGLU_BACKWARD, d=g.shape[-1])


def softmax(x: jt.Var) -> jt.Var:
    """Softmax over the last dimension, in float32."""
    if fast(x):
        return _Softmax.apply(x)
    return jt.nn.softmax(x.float32(), dim=-1).cast(x.dtype)


def geglu(h: jt.Var) -> jt.Var:
    """First half of the last dimension times gelu (erf form) of the second half."""
    if fast(h):
        return _Geglu.apply(h)
    a, gate = h.chunk(2, dim=-1)
    if h.dtype == "float32":
        return a * jt.nn.gelu(gate)
    return (a.float32() * jt.nn.gelu(gate.float32())).cast(h.dtype)
