"""GroupNorm (with SiLU fused) and LayerNorm, with two-pass statistics.

Jittor's own norms use E[x^2] - E[x]^2 in float32, which is off by per cents where |mean| >> std,
and do not vectorise. Both twins here subtract the mean first.
"""

from __future__ import annotations

from ..startup import jt
from .dispatch import Kernel, code, fast

_GROUP_FORWARD = r"""
@alias(x,in0) @alias(w,in1) @alias(b,in2) @alias(y,out0) @alias(st,out1)
const int64_t N=x_shape0, C=x_shape1, G=data["groups"], Cg=C/G, HW=x->num/(N*C), M=Cg*HW;
const float eps=data["eps"];
const float *X=x_p, *W=w_p, *Bi=b_p; float *Y=y_p, *St=st_p;
#pragma omp parallel for collapse(2)
for (int64_t n=0; n<N; n++) for (int64_t g=0; g<G; g++) {
  const float* s=X+(n*C+g*Cg)*HW; float* o=Y+(n*C+g*Cg)*HW;
  double total=0;
  for (int64_t c=0; c<Cg; c++) { float t=0; for (int64_t j=0; j<HW; j++) t+=s[c*HW+j]; total+=t; }
  const float mean=total/M; double square=0;
  for (int64_t c=0; c<Cg; c++) {
    float t=0; for (int64_t j=0; j<HW; j++) { const float z=s[c*HW+j]-mean; t+=z*z; } square+=t;
  }
  const float rstd=1.f/std::sqrt((float)(square/M)+eps);
  St[(n*G+g)*2]=mean; St[(n*G+g)*2+1]=rstd;
  for (int64_t c=0; c<Cg; c++) {
    const float a=W[g*Cg+c]*rstd, shift=Bi[g*Cg+c]-mean*a; const float* si=s+c*HW; float* oi=o+c*HW;
    for (int64_t j=0; j<HW; j++) { const float z=si[j]*a+shift; oi[j]=@ACT; }
  }
}
"""

_GROUP_BACKWARD = r"""
@alias(x,in0) @alias(w,in1) @alias(b,in2) @alias(st,in3) @alias(g,in4)
@alias(dx,out0) @alias(dw,out1) @alias(db,out2)
const int64_t N=x_shape0, C=x_shape1, G=data["groups"], Cg=C/G, HW=x->num/(N*C), M=Cg*HW;
const float *X=x_p, *W=w_p, *Bi=b_p, *St=st_p, *Gr=g_p; float *DX=dx_p, *DW=dw_p, *DB=db_p;
#pragma omp parallel for
for (int64_t gi=0; gi<G; gi++) {
  for (int64_t c=0; c<Cg; c++) DW[gi*Cg+c]=DB[gi*Cg+c]=0;
  for (int64_t n=0; n<N; n++) {
    const float mean=St[(n*G+gi)*2], rstd=St[(n*G+gi)*2+1]; double s1=0, s2=0;
    for (int64_t c=0; c<Cg; c++) {
      const int64_t at=(n*C+gi*Cg+c)*HW; const float *xi=X+at, *gr=Gr+at; float* di=DX+at;
      const float wc=W[gi*Cg+c], bc=Bi[gi*Cg+c]; float t1=0, t2=0;
      for (int64_t j=0; j<HW; j++) {
        const float xh=(xi[j]-mean)*rstd; float dz=gr[j];
        if (@SILU) { const float z=xh*wc+bc, s=1.f/(1.f+std::exp(-z)); dz*=s*(1.f+z*(1.f-s)); }
        di[j]=dz; t1+=dz; t2+=dz*xh;
      }
      DB[gi*Cg+c]+=t1; DW[gi*Cg+c]+=t2; s1+=t1*wc; s2+=t2*wc;
    }
    const float m1=s1/M, m2=s2/M;
    for (int64_t c=0; c<Cg; c++) {
      const int64_t at=(n*C+gi*Cg+c)*HW; const float* xi=X+at; float* di=DX+at;
      const float wc=W[gi*Cg+c];
      for (int64_t j=0; j<HW; j++) {
        const float xh=(xi[j]-mean)*rstd; di[j]=rstd*(di[j]*wc-m1-xh*m2);
      }
    }
  }
}
"""

_LAYER_FORWARD = r"""
@alias(x,in0) @alias(w,in1) @alias(b,in2) @alias(y,out0) @alias(st,out1)
const int64_t D=w_shape0, n=x->num/D; const float eps=data["eps"];
const float *X=x_p, *W=w_p, *Bi=b_p; float *Y=y_p, *St=st_p;
#pragma omp parallel for
for (int64_t i=0; i<n; i++) {
  const float* s=X+i*D; float* o=Y+i*D;
  float t=0; for (int64_t j=0; j<D; j++) t+=s[j];
  const float mean=t/D; float v=0; for (int64_t j=0; j<D; j++) { const float z=s[j]-mean; v+=z*z; }
  const float r=1.f/std::sqrt(v/D+eps); St[i*2]=mean; St[i*2+1]=r;
  for (int64_t j=0; j<D; j++) o[j]=(s[j]-mean)*r*W[j]+Bi[j];
}
"""

# Weight gradients are summed per fixed slice of rows, not per thread, so that the bytes do not
# depend on the number of threads.
_LAYER_BACKWARD = r"""
@alias(x,in0) @alias(w,in1) @alias(st,in2) @alias(g,in3) @alias(dx,out0) @alias(dw,out1)
@alias(db,out2) const int64_t D=w_shape0, n=x->num/D, T=16;
const float *X=x_p, *W=w_p, *St=st_p, *Gr=g_p; float *DX=dx_p, *DW=dw_p, *DB=db_p;
std::vector<float> A(T*D,0.f), C(T*D,0.f);
#pragma omp parallel for
for (int64_t t=0; t<T; t++) {
  float *a=A.data()+t*D, *c=C.data()+t*D;
  for (int64_t i=t*n/T; i<(t+1)*n/T; i++) {
    const float *xi=X+i*D, *gr=Gr+i*D; float* di=DX+i*D; const float mean=St[i*2], r=St[i*2+1];
    float s1=0, s2=0;
    for (int64_t j=0; j<D; j++) {
      const float xh=(xi[j]-mean)*r, gw=gr[j]*W[j];
      s1+=gw; s2+=gw*xh; a[j]+=gr[j]*xh; c[j]+=gr[j];
    }
    s1/=D; s2/=D;
    for (int64_t j=0; j<D; j++) { const float xh=(xi[j]-mean)*r; di[j]=r*(gr[j]*W[j]-s1-xh*s2); }
  }
}
for (int64_t j=0; j<D; j++) {
  DW[j]=DB[j]=0; for (int64_t t=0; t<T; t++) { DW[j]+=A[t*D+j]; DB[j]+=C[t*D+j]; }
}
"""


class _GroupNorm(Kernel):
    def execute(self, x, w, b, groups, eps, silu):
        source = _GROUP_FORWARD.replace("@ACT", "z/(1.f+std::exp(-z))" if silu else "z")
        shapes = [tuple(x.shape), (x.shape[0], groups, 2)]
        y, stats = code(shapes, (x, w, b), source, groups=groups, eps=eps)
        self.saved = (x, w, b, stats, groups, silu)
        return y

    def grad(self, g):
        x, w, b, stats, groups, silu = self.saved
        shapes = [tuple(x.shape), tuple(w.shape), tuple(w.shape)]
        source = _GROUP_BACKWARD.replace("@SILU", str(int(silu)))
        return (*code(shapes, (x, w, b, stats, g), source, groups=groups), None, None, None)


class _LayerNorm(Kernel):
    def execute(self, x, w, b, eps):
        shapes = [tuple(x.shape), (x.numel() // w.numel(), 2)]
        y, stats = code(shapes, (x, w, b), _LAYER_FORWARD, eps=eps)
        self.saved = (x, w, stats)
        return y

    def grad(self, g):
        x, w, stats = self.saved
        shapes = [tuple(x.shape), tuple(w.shape), tuple(w.shape)]
        return (*code(shapes, (x, w, stats, g), _LAYER_BACKWARD), None)


def group_norm(
    x: jt.Var, groups: int, w: jt.Var, b: jt.Var, eps: float = 1e-5, silu: bool = False
) -> jt.Var:
    """GroupNorm over (C / groups, *space), then SiLU if asked. x: (B, C, ...); w, b: (C,)."""
    if fast(x, w, b):
        return _GroupNorm.apply(x, w, b, groups, eps, silu)
    y = x.float32().reshape(x.shape[0], groups, x.shape[1] // groups, -1)
    centred = y - y.mean(3, keepdims=True).mean(2, keepdims=True)
    variance = (centred * centred).mean(3, keepdims=True).mean(2, keepdims=True)
    y = (centred / jt.sqrt(variance + eps)).reshape(x.shape)
    shape = [1, x.shape[1]] + [1] * (x.ndim - 2)
    y = y * w.float32().reshape(shape) + b.float32().reshape(shape)
    return (y * jt.sigmoid(y) if silu else y).cast(x.dtype)


def layer_norm(x: jt.Var, w: jt.Var, b: jt.Var, eps: float = 1e-5) -> jt.Var:
    """LayerNorm over the last dimension. x: (..., D); w, b: (D,)."""
    if fast(x, w, b):
        return _LayerNorm.apply(x, w, b, eps)
    y = x.float32()
    centred = y - y.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True)
    y = centred / jt.sqrt(variance + eps) * w.float32() + b.float32()
    return y.cast(x.dtype)
