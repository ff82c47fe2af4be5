"""How much can be asked for at most: beyond these a number is a slip, and would only end in hours
of work or without memory. Standard library only."""

from __future__ import annotations

import os

SIDE_PX = 8192  # of a picture that is painted or trained on
SAMPLING_STEPS = 1000  # as many as there are timesteps
TRAINING_STEPS = 1_000_000
TOGETHER = 1024  # pictures in one evaluation, forward passes in one step, processes
PICTURES = 100_000  # that one command makes
PER_PICTURE = 1000  # crops, seeds or draws of a picture or prompt
RANK = 4096
TEXT_LAYERS = 1000  # of a text encoder; the model has its own limit
SEED = 2**64 - 1  # as PyTorch


def require_whole(name: str, value: object, least: int, most: int) -> None:
    """Raise ValueError unless the value is an integer in least..most."""
    if not is_whole(value, least, most):
        raise ValueError(f"{name} must be an integer {told(least, most)}, got {shown(value)}")


def is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def told(least: int, most: int) -> str:
    return f"from {least} to {most}"


def shown(value: object) -> str:
    """repr, also of an integer of more digits than Python writes out."""
    try:
        return repr(value)
    except ValueError:
        return "a number of thousands of digits"


def switched(variable: str, usual: int, least: int = 0, told: str = "a whole number") -> int:
    """A limit: the environment variable's, or the usual one. Raises ValueError."""
    text = os.environ.get(variable, "").strip()
    if not text:
        return usual
    if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text) >= least):
        raise ValueError(f"{variable} must be {told}, got {text!r}")
    return int(text)
