"""The number types in which a model can be kept: the option --dtype. Standard library only."""

from __future__ import annotations

from . import toolchain

AUTO, FLOAT32, FLOAT16, BFLOAT16 = "auto", "float32", "float16", "bfloat16"
DTYPES = (AUTO, FLOAT32, FLOAT16, BFLOAT16)
HELP = (
    "in which the model's weights are kept: float32; float16, which takes half the memory (on CUDA "
    "the UNet and the text encoder compute in it too, on the CPU all arithmetic stays in float32); "
    "bfloat16, for the CPU; auto: float16 on CUDA, float32 on the CPU"
)


def require_dtype(dtype: object) -> None:
    """Raise ValueError for another name."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be {', '.join(DTYPES[:-1])} or {DTYPES[-1]}, got {dtype!r}")


def stated_dtype(dtype: str) -> dict[str, str]:
    """For records: what moves pixels against float32."""
    return {} if dtype == FLOAT32 else {"dtype": dtype}


def resolved_dtype(dtype: str, device: str = AUTO) -> str:
    """What "auto" stands for on a device; looks for CUDA without starting Jittor.

    Raises ValueError for another name, and for bfloat16 on CUDA.
    """
    require_dtype(dtype)
    if dtype in (FLOAT32, FLOAT16) or (dtype == AUTO and device == "cpu"):
        return FLOAT32 if dtype == AUTO else dtype
    cuda = device == "cuda" or (device == AUTO and toolchain.uses_cuda())
    if dtype == AUTO:
        return FLOAT16 if cuda else FLOAT32
    if cuda:
        raise ValueError(
            "dtype bfloat16 is for the CPU: what Jittor computes with it on CUDA was not checked; "
            "use float16, or --device cpu"
        )
    return dtype
