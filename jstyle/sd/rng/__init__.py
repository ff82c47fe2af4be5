"""Where the noise of a seed comes from: NumPy, or PyTorch's generators without PyTorch.

A picture that diffusers made with `torch.Generator("cpu").manual_seed(seed)` starts from the noise
of rng "torch-cpu", one made with a generator on the GPU from that of "torch-cuda". Pipelines in
half precision draw their noise in it: "torch-cpu:float16", "torch-cuda:float16". Needs nothing but
the standard library until noise is drawn, so a command line can name the choices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

NUMPY = "numpy"
SOURCES = (NUMPY, "torch-cpu", "torch-cuda")
HALF = ":float16"
RNGS = (*SOURCES, *(source + HALF for source in SOURCES[1:]))
LAST_TORCH_SEED = 2**64 - 1


def check_rng(rng: str) -> None:
    """Raise ValueError unless `rng` names a source of noise."""
    if rng not in RNGS:
        raise ValueError(f"rng must be one of {', '.join(RNGS)}, got {rng!r}")


def torch_noise(shape: Sequence[int], seed: int, rng: str) -> np.ndarray:
    """float32: the first `torch.randn(shape)` after seeding with `seed`, from any rng but "numpy".

    Raises ValueError for another rng, and for a seed that PyTorch does not take.
    """
    return torch_generator(seed, rng)(shape)


def torch_generator(seed: int, rng: str) -> Callable[[Sequence[int]], np.ndarray]:
    """draw(shape), which gives one `torch.randn(shape)` after the other, as float32.

    Raises ValueError as torch_noise does.
    """
    check_rng(rng)
    if not 0 <= seed <= LAST_TORCH_SEED:
        raise ValueError(f"seed must be in 0..{LAST_TORCH_SEED} for rng {rng}, got {seed}")
    source, _, dtype = rng.partition(":")
    if source == "torch-cpu":
        from .torch_cpu import TorchCPU as Generator
    elif source == "torch-cuda":
        from .torch_cuda import TorchCUDA as Generator
    else:
        raise ValueError(f"rng {rng} is none of PyTorch's")
    generator = Generator(seed)
    return lambda shape: generator.randn(shape, dtype or "float32").astype("float32")
