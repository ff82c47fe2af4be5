"""Which of the CPU's convolutions is the fastest for a size. Standard library only.

What was measured stands in kernels/convolution.py and kernels/winograd.py.
"""

from __future__ import annotations

PIXELS_PER_CHANNEL = 1.0  # output pixels to input channels, up to which patches are the faster way
FEWEST_PIXELS = 1024  # of a map, below which Winograd's transform of the weights costs too much
FEWEST_CHANNELS = 128  # in and out, below which its transforms of the tiles do
WORKSPACE = 1 << 22  # floats for its tiles, which should stay in the last cache
WINOGRAD, POINTS, PATCHES, ONEDNN = "winograd", "points", "patches", "onednn"


def choose(
    channels: int,
    out: int,
    window: tuple[int, int],
    size: tuple[int, int],
    stride: int,
    padding: int,
    trained: bool,
) -> str:
    """One of the four. size: (height, width) of the input; trained: its weights are."""
    height, width = size
    same = (window, stride, padding) == ((3, 3), 1, 1)
    large = height * width >= FEWEST_PIXELS and min(channels, out) >= FEWEST_CHANNELS
    if same and large and height % 2 == width % 2 == 0 and not trained:
        return WINOGRAD
    if (window, stride, padding) == ((1, 1), 1, 0):
        return POINTS
    rows, columns = (
        out_size(side, k, stride, padding) for side, k in zip(size, window, strict=True)
    )
    return PATCHES if rows * columns <= PIXELS_PER_CHANNEL * channels else ONEDNN


def out_size(side: int, window: int, stride: int, padding: int) -> int:
    return (side + 2 * padding - window) // stride + 1


def tiles_at_once(channels: int, out: int, height: int, width: int) -> int:
    """How many of Winograd's 2x2 tiles are transformed together: whole rows of them."""
    rows = max(1, WORKSPACE // (16 * (channels + out)) // (width // 2))
    return min(rows, height // 2) * (width // 2)
