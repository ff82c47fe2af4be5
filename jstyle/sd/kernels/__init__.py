"""The operations that Jittor 1.3.11 runs slowly or inexactly on the CPU, each written twice.

The fast version is a C++ kernel for float32 on the CPU; the plain twin uses stock Jittor
operations, runs anywhere (CUDA, half precision, no oneDNN) and is the reference of the tests. Both
have gradients.
"""

from .attention import attend
from .convolution import convolve
from .dispatch import fast, gradients_once, plain
from .gates import geglu, softmax
from .norms import group_norm, layer_norm
from .widen import widen, widened

__all__ = [
    "attend",
    "convolve",
    "fast",
    "geglu",
    "gradients_once",
    "group_norm",
    "layer_norm",
    "plain",
    "softmax",
    "widen",
    "widened",
]
