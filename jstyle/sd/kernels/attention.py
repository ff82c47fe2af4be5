"""softmax(scale * q k^T) v without the (tokens x tokens) matrix.

CPU kernel: blocks of query rows; the products go through dnnl_sgemm straight on the (B, tokens,
heads, head_dim) layout of the projections, so heads are never split or merged by a copy. The
backward pass recomputes the probabilities from the saved log-sum-exp (the idea of FlashAttention,
arXiv:2205.14135).
"""

from __future__ import annotations

from ..startup import jt
from .dispatch import Kernel, code, fast

ROWS = 128  # query rows per block
PLAIN_ROWS = 1024  # query rows at a time in the plain twin, to bound its memory

_FORWARD = r"""
@alias(q,in0) @alias(k,in1) @alias(v,in2) @alias(o,out0) @alias(lse,out1)
const int64_t B=q_shape0, n=q_shape1, H=q_shape2, d=q_shape3, m=k_shape1, ld=H*d, R=@ROWS;
const float scale=data["scale"];
const float *Q=q_p, *K=k_p, *V=v_p; float *O=o_p, *L=lse_p;
const int64_t blocks=(n+R-1)/R;
#pragma omp parallel
{
  std::vector<float> S(R*m);
  #pragma omp for schedule(dynamic) collapse(3)
  for (int64_t b=0; b<B; b++) for (int64_t h=0; h<H; h++) for (int64_t t=0; t<blocks; t++) {
    const int64_t i0=t*R, rows=std::min(R, n-i0);
    const int64_t qo=((b*n+i0)*H+h)*d, ko=(b*m*H+h)*d;
    dnnl_sgemm('N','T',rows,m,d,scale,Q+qo,ld,K+ko,ld,0.f,S.data(),m);
    for (int64_t i=0; i<rows; i++) {
      float* s=S.data()+i*m;
      const int64_t used=@CAUSAL ? std::min(m, i0+i+1) : m;
      float top=s[0]; for (int64_t j=1; j<used; j++) top=std::max(top, s[j]);
      float sum=0; for (int64_t j=0; j<used; j++) { s[j]=std::exp(s[j]-top); sum+=s[j]; }
      for (int64_t j=used; j<m; j++) s[j]=0;
      const float inverse=1.f/sum; for (int64_t j=0; j<used; j++) s[j]*=inverse;
      L[(b*H+h)*n+i0+i]=top+std::log(sum);
    }
    dnnl_sgemm('N','N',rows,d,m,1.f,S.data(),m,V+ko,ld,0.f,O+qo,ld);
  }
}
"""

_BACKWARD = r"""
@alias(q,in0) @alias(k,in1) @alias(v,in2) @alias(o,in3) @alias(lse,in4) @alias(g,in5)
@alias(dq,out0) @alias(dk,out1) @alias(dv,out2)
const int64_t B=q_shape0, n=q_shape1, H=q_shape2, d=q_shape3, m=k_shape1, ld=H*d, R=@ROWS;
const float scale=data["scale"];
const float *Q=q_p, *K=k_p, *V=v_p, *O=o_p, *L=lse_p, *G=g_p; float *DQ=dq_p, *DK=dk_p, *DV=dv_p;
const int64_t blocks=(n+R-1)/R;
#pragma omp parallel
{
  std::vector<float> P(R*m), D(R*m);
  #pragma omp for schedule(dynamic) collapse(2)
  for (int64_t b=0; b<B; b++) for (int64_t h=0; h<H; h++) {
    const int64_t ko=(b*m*H+h)*d;
    for (int64_t t=0; t<blocks; t++) {
      const int64_t i0=t*R, rows=std::min(R, n-i0), qo=((b*n+i0)*H+h)*d;
      const float beta = t ? 1.f : 0.f;
      dnnl_sgemm('N','T',rows,m,d,scale,Q+qo,ld,K+ko,ld,0.f,P.data(),m);
      for (int64_t i=0; i<rows; i++) {
        float* p=P.data()+i*m; const float l=L[(b*H+h)*n+i0+i];
        const int64_t used=@CAUSAL ? std::min(m, i0+i+1) : m;
        for (int64_t j=0; j<used; j++) p[j]=std::exp(p[j]-l);
        for (int64_t j=used; j<m; j++) p[j]=0;
      }
      dnnl_sgemm('T','N',m,d,rows,1.f,P.data(),m,G+qo,ld,beta,DV+ko,ld);
      dnnl_sgemm('N','T',rows,m,d,1.f,G+qo,ld,V+ko,ld,0.f,D.data(),m);
      for (int64_t i=0; i<rows; i++) {
        const float *oi=O+qo+i*ld, *gi=G+qo+i*ld; float dot=0;
        for (int64_t c=0; c<d; c++) dot+=oi[c]*gi[c];
        const float* p=P.data()+i*m; float* s=D.data()+i*m;
        for (int64_t j=0; j<m; j++) s[j]=p[j]*(s[j]-dot)*scale;
      }
      dnnl_sgemm('N','N',rows,d,m,1.f,D.data(),m,K+ko,ld,0.f,DQ+qo,ld);
      dnnl_sgemm('T','N',m,d,rows,1.f,D.data(),m,Q+qo,ld,beta,DK+ko,ld);
    }
  }
}
"""


def _source(template: str, causal: bool) -> str:
    return template.replace("@ROWS", str(ROWS)).replace("@CAUSAL", str(int(causal)))


class _Attend(Kernel):
    def execute(self, q, k, v, scale, causal):
        batch, tokens, heads, _ = q.shape
        shapes = [tuple(q.shape), (batch, heads, tokens)]
        out, lse = code(shapes, (q, k, v), _source(_FORWARD, causal), scale=scale)
        self.saved = (q, k, v, out, lse, scale, causal)
        return out

    def grad(self, g):
        q, k, v, out, lse, scale, causal = self.saved
        shapes = [tuple(q.shape), tuple(k.shape), tuple(v.shape)]
        source = _source(_BACKWARD, causal)
        return (*code(shapes, (q, k, v, out, lse, g), source, scale=scale), None, None)


def attend(q: jt.Var, k: jt.Var, v: jt.Var, scale: float, causal: bool = False) -> jt.Var:
    """Scaled dot-product attention.

    q: (B, tokens, heads, head_dim); k, v: (B, other tokens, heads, head_dim). Returns q's shape.
    causal: token i attends to tokens 0..i only. Logits and softmax in float32 whatever the dtype:
    queries and keys of 1e3 are enough for products beyond float16.
    """
    if fast(q, k, v):
        return _Attend.apply(q, k, v, float(scale), causal)
    return _plain_attend(q, k, v, scale, causal)


def _plain_attend(q, k, v, scale, causal):
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))  # -> (B, heads, tokens, head_dim)
    batch, heads, tokens, dim = q.shape
    q, k, v = (x.reshape(batch * heads, -1, dim) for x in (q, k, v))
    q, k_t = (x if x.dtype == "float32" else x.float32() for x in (q, k.transpose(0, 2, 1)))
    rows = []
    for i in range(0, tokens, PLAIN_ROWS):
        logits = jt.matmul(q[:, i : i + PLAIN_ROWS] * scale, k_t)
        if causal:
            row = jt.arange(logits.shape[1]).reshape(-1, 1) + i
            logits = logits - 1e30 * (jt.arange(logits.shape[2]).reshape(1, -1) > row).float32()
        rows.append(jt.matmul(jt.nn.softmax(logits, dim=-1).cast(v.dtype), v))
    out = rows[0] if len(rows) == 1 else jt.concat(rows, 1)
    return out.reshape(batch, heads, tokens, dim).transpose(0, 2, 1, 3)
