"""What is compared with what, what matters most first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from benchmarks.works import Setting

# relative L2 to the first side; TensorFloat-32 and fast math included
AGREEMENT = {"float32": 2e-3, "float16": 2e-2, "bfloat16": 6e-2}
SMALL_WORKS = ("matrix", "text", "unet", "unet_batch2", "vae", "style", "style_nth", "lora")
FULL_WORKS = ("unet", "vae", "style", "lora")
HALF_WORKS = ("unet", "lora")  # of this package, with a dtype of their own
PARTS = ("cpu", "torch", "half", "speed")


class Side(NamedTuple):
    """who: "ours" or "torch". limit: how far its result may be from ours on CUDA; None where it is
    measured and not judged."""

    who: str
    setting: Setting
    limit: float | None = None

    @property
    def name(self) -> str:
        return f"{self.who} {self.setting.device} {self.setting.dtype}"


class Check(NamedTuple):
    """The first side is ours on CUDA. rounds: turns of each side, in alternation."""

    name: str
    part: str
    work: str
    sides: tuple[Side, ...]
    rounds: int = 1
    repeats: int = 1


def plan(small: Setting, full: Setting | None, torch_device: str, rounds: int) -> list[Check]:
    """torch_device: empty where PyTorch is missing. small, full: settings on CUDA in float32."""
    return [
        *_against_the_cpu(small),
        *(_against_torch(small, torch_device) if torch_device else ()),
        *_half(small, "small"),
        *(_half(full, "full") if full else ()),
        *_speed(full or small, "full" if full else "small", torch_device, rounds),
    ]


def _against_the_cpu(small: Setting) -> Iterator[Check]:
    cpu = Side("ours", replace(small, device="cpu"), AGREEMENT["float32"])
    for work in SMALL_WORKS:
        yield Check(f"small {work}, CPU", "cpu", work, (Side("ours", small), cpu))


def _against_torch(small: Setting, device: str) -> Iterator[Check]:
    torch = Side("torch", replace(small, device=device), AGREEMENT["float32"])
    for work in SMALL_WORKS:
        yield Check(f"small {work}, PyTorch", "torch", work, (Side("ours", small), torch))


def _half(setting: Setting, size: str) -> Iterator[Check]:
    """In half precision against float32, both on CUDA."""
    for work in HALF_WORKS:
        half = replace(setting, dtype="float16")
        single = Side("ours", setting, AGREEMENT["float16"])
        yield Check(f"{size} {work} float16", "half", work, (Side("ours", half), single))


def _speed(setting: Setting, size: str, torch_device: str, rounds: int) -> Iterator[Check]:
    """In turns with PyTorch where it computes on CUDA; alone, for the times, where it does not."""
    for work in FULL_WORKS:
        sides = [Side("ours", setting)]
        if work in HALF_WORKS:
            sides.append(Side("ours", replace(setting, dtype="float16"), AGREEMENT["float16"]))
        if torch_device == "cuda":
            for dtype in ("float32", "bfloat16", "float16"):
                other = replace(setting, dtype=dtype)
                sides.append(Side("torch", other, AGREEMENT[dtype]))
        yield Check(f"{size} {work}, speed", "speed", work, tuple(sides), rounds, 5)
