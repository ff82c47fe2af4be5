"""3x3 convolution with fewer multiplications: Winograd's F(2x2, 3x3), arXiv:1509.09308, sec. 4.1.

A tile of 2x2 results needs 16 products instead of 36. With d a 4x4 tile of the input and g the nine
weights of a pair of channels,

    y = A' [(G g G') * (B' d B)] A,

where * is elementwise and becomes, summed over the input channels, one matrix product for each of
the 16 positions. The input's gradient is the same with the weights turned by 180 degrees, which
only swaps positions. Rounding costs less than with oneDNN's direct sums: relative L2 against
float64 3.9e-7 and 9.5e-7 at 320 channels, 4.9e-7 and 2.3e-6 from 1920 to 640.

Weights are transformed at every call, since kept ones would take 16/9 of the weights' memory again;
so maps must be large enough to pay for that. Two threads, milliseconds here / oneDNN 2.2 (AMD EPYC
with AVX2, 2026-11-25): 320 channels at 64x64 31 / 80; 640 at 32x32 33 / 53; 1280 at 32x32 134 /
247; 1280 at 16x16 58 / 86 (`convolution.py`: 50); 128 at 512x512 485 / 556.
"""

from __future__ import annotations

from ..convolution_choice import tiles_at_once
from ..startup import jt
from .dispatch import Kernel, code

_WEIGHTS = r"""
@alias(w,in0) @alias(u,out0)
const int64_t n=w_shape0*w_shape1; const float* Wt=w_p; float* U=u_p;
#pragma omp parallel for
for (int64_t i=0; i<n; i++) {
  const float* g=Wt+i*9; float t[4][3];
  for (int k=0; k<3; k++) {
    const float a=g[k], b=g[3+k], c=g[6+k];
    t[0][k]=a; t[1][k]=0.5f*(a+b+c); t[2][k]=0.5f*(a-b+c); t[3][k]=c;
  }
  for (int r=0; r<4; r++) {
    const float a=t[r][0], b=t[r][1], c=t[r][2]; float* u=U+r*4*n+i;
    u[0]=a; u[n]=0.5f*(a+b+c); u[2*n]=0.5f*(a-b+c); u[3*n]=c;
  }
}
"""
# I channels in, J out; `back`: the input's gradient, for which in and out change places.
_PRODUCT = r"""
@alias(x,in0) @alias(u,in1) @alias(y,out0) @alias(v,out1) @alias(m,out2)
const int64_t N=x_shape0, I=x_shape1, H=x_shape2, W=x_shape3, J=y_shape1;
const int64_t tw=W/2, th=H/2, T=v_shape2, rows=T/tw; const bool back=data["back"];
const int64_t O=u_shape1, C=u_shape2;
const float *X=x_p, *U=u_p; float *Y=y_p, *V=v_p, *M=m_p;
static const int turned[4]={3,1,2,0};
for (int64_t n=0; n<N; n++) for (int64_t r0=0; r0<th; r0+=rows) {
  const int64_t used=std::min(rows, th-r0), tiles=used*tw;
  #pragma omp parallel
  {
    std::vector<float> edge(4*(W+2), 0.f), none(W, 0.f);
    #pragma omp for
    for (int64_t c=0; c<I; c++) for (int64_t r=0; r<used; r++) {
      const float* d[4];
      for (int64_t k=0; k<4; k++) {
        const int64_t at=2*(r0+r)-1+k;
        d[k] = at<0 || at>=H ? none.data() : X+((n*I+c)*H+at)*W;
      }
      float *l0=edge.data()+1, *l1=l0+W+2, *l2=l1+W+2, *l3=l2+W+2;
      for (int64_t j=0; j<W; j++) {
        const float a=d[0][j], b=d[1][j], e=d[2][j], f=d[3][j];
        l0[j]=a-e; l1[j]=b+e; l2[j]=e-b; l3[j]=b-f;
      }
      for (int64_t k=0; k<4; k++) {
        const float* l=edge.data()+k*(W+2); float* t=V+(4*k*I+c)*T+r*tw;
        float *t1=t+I*T, *t2=t1+I*T, *t3=t2+I*T;
        for (int64_t j=0; j<tw; j++) {
          const float a=l[2*j], b=l[2*j+1], e=l[2*j+2], f=l[2*j+3];
          t[j]=a-e; t1[j]=b+e; t2[j]=e-b; t3[j]=b-f;
        }
      }
    }
    #pragma omp for schedule(dynamic)
    for (int p=0; p<16; p++) {
      const float* left=U+(back ? turned[p/4]*4+turned[p%4] : p)*O*C;
      if (back) dnnl_sgemm('T','N',J,tiles,I,1.f,left,C,V+p*I*T,T,0.f,M+p*J*T,T);
      else dnnl_sgemm('N','N',J,tiles,I,1.f,left,C,V+p*I*T,T,0.f,M+p*J*T,T);
    }
    #pragma omp for
    for (int64_t o=0; o<J; o++) for (int64_t r=0; r<used; r++) {
      float *y0=Y+((n*J+o)*H+2*(r0+r))*W, *y1=y0+W;
      const float* q=M+o*T+r*tw; const int64_t s=J*T;
      for (int64_t j=0; j<tw; j++) {
        float a[4], b[4];
        for (int k=0; k<4; k++) {
          const float *k0=q+4*k*s+j; const float m1=k0[s], m2=k0[2*s];
          a[k]=k0[0]+m1+m2; b[k]=m1-m2-k0[3*s];
        }
        y0[2*j]=a[0]+a[1]+a[2]; y0[2*j+1]=b[0]+b[1]+b[2];
        y1[2*j]=a[1]-a[2]-a[3]; y1[2*j+1]=b[1]-b[2]-b[3];
      }
    }
  }
}
"""


class _Winograd(Kernel):
    def execute(self, x, w):
        self.saved = w
        return _product(x, w, back=False)

    def grad(self, g):
        return _product(g, self.saved, back=True), None


def _product(x, w, back: bool):
    """The convolution of x, or with `back` the gradient of its input from that of its output."""
    channels = w.shape[1] if back else w.shape[0]
    height, width = x.shape[2:]
    tiles = tiles_at_once(x.shape[1], channels, height, width)
    transformed = code([(16, w.shape[0], w.shape[1])], (w,), _WEIGHTS)
    shapes: list[tuple] = [(x.shape[0], channels, height, width)]
    shapes += [(16, x.shape[1], tiles), (16, channels, tiles)]  # workspace
    return code(shapes, (x, transformed), _PRODUCT, back=int(back))[0]


def convolve_3x3(x: jt.Var, w: jt.Var) -> jt.Var:
    """x: (B, C, H, W), H and W even; w: (O, C, 3, 3), constant. Returns (B, O, H, W)."""
    return _Winograd.apply(x, w)
