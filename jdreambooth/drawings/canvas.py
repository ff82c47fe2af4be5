"""What a style paints from: a map of part numbers, and the tools that all styles share.

Arrays are float32 (S, S) or (S, S, 3) in [0, 1] at the supersampled size S; lengths are in units of
a 256-pixel canvas, so a style looks the same at every size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .shapes import GROUND, Part


class Cells(NamedTuple):
    """A Voronoi diagram: each pixel's distance to its seed, to the border, and the seed itself."""

    near: np.ndarray
    border: np.ndarray
    index: np.ndarray  # number of the seed
    seed_y: np.ndarray  # int pixel rows of all seeds, by number
    seed_x: np.ndarray


@cache
def _coordinates(size: int):
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) * np.float32(256 / size)
    y.flags.writeable = x.flags.writeable = False
    return y, x


def smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def mix(a: np.ndarray, b: np.ndarray, t: np.ndarray | float) -> np.ndarray:
    """a where t = 0, b where t = 1; t is (S, S), a and b colours or pictures."""
    t = np.asarray(t, np.float32)
    return a + (b - a) * (t[..., None] if t.ndim == 2 else t)


def colours(text: str) -> np.ndarray:
    """ "c0392b fff" -> (n, 3) float32 in [0, 1]."""
    return np.array(
        [[int(word[i : i + 2], 16) / 255 for i in (0, 2, 4)] for word in text.split()], np.float32
    )


class Canvas:
    """labels: (S, S) part numbers, 0 the ground; roles: the role of each part number."""

    def __init__(self, size: int, rng: np.random.Generator):
        self.size, self.rng = size, rng
        self.unit = size / 256
        self.y, self.x = _coordinates(size)
        self._image = Image.new("L", (size, size), 0)
        self._draw = ImageDraw.Draw(self._image)
        self._roles = [GROUND]

    def add(
        self,
        parts: Sequence[Part],
        matrix: np.ndarray,
        offset: Sequence[float] | np.ndarray,
        roles: Sequence[int] | np.ndarray | None = None,
    ) -> None:
        """Paint parts over what is there: pixel = point @ matrix + offset; roles: a remapping."""
        stroke = abs(np.linalg.det(matrix)) ** 0.5
        for part in parts:
            label = 0
            if part.role != GROUND:
                label = len(self._roles)
                self._roles.append(part.role if roles is None else roles[part.role])
            points = part.points @ matrix + offset
            flat = [tuple(p) for p in points.tolist()]
            if not part.width:
                self._draw.polygon(flat, fill=label)
                continue
            width = max(part.width * stroke, 2 * self.unit)
            self._draw.line(flat, fill=label, width=round(width), joint="curve")
            r = width / 2
            for x, y in (flat[0], flat[-1]):
                self._draw.ellipse((x - r, y - r, x + r, y + r), fill=label)

    @property
    def labels(self) -> np.ndarray:
        return np.asarray(self._image)

    @property
    def roles(self) -> np.ndarray:
        """(S, S) role of each pixel."""
        return np.asarray(self._roles)[self.labels]

    @property
    def mask(self) -> np.ndarray:
        return (self.labels > 0).astype(np.float32)

    def by_part(self, values: float | np.ndarray) -> np.ndarray:
        """Spread one value per part number over the picture."""
        return np.asarray(values, np.float32)[self.labels]

    def by_role(self, *values: float | np.ndarray) -> np.ndarray:
        """Spread five values (ground, body, accent, dark, light) over the picture."""
        return np.asarray(values, np.float32)[np.asarray(self._roles)][self.labels]

    def palette(self, text: str, jitter: float = 0.03) -> np.ndarray:
        """One colour per part number. text: five groups joined by ",", each with choices."""
        chosen = [c[self.rng.integers(len(c))] for c in map(colours, text.split(","))]
        table = np.stack(chosen)[np.asarray(self._roles)]
        return np.clip(table + self.rng.uniform(-jitter, jitter, table.shape), 0, 1).astype(
            np.float32
        )

    def fill(self, text: str, jitter: float = 0.03) -> np.ndarray:
        return self.palette(text, jitter)[self.labels]

    def wobble(self, amount: float, cell: float = 24.0) -> None:
        """Move the outlines by smooth noise, as a hand would."""
        dy, dx = ((self.noise(cell) - 0.5) * (2 * amount * self.unit) for _ in range(2))
        top = self.size - 1
        y = np.clip(self.y * self.unit + dy, 0, top).astype(np.intp)
        x = np.clip(self.x * self.unit + dx, 0, top).astype(np.intp)
        self._image = Image.fromarray(self.labels[y, x])

    def shift(self, array: np.ndarray, dx: float, dy: float) -> np.ndarray:
        """Move a picture right and down; the border repeats."""
        pixel = np.arange(self.size)
        y, x = (np.clip(pixel - round(d * self.unit), 0, self.size - 1) for d in (dy, dx))
        return array[y][:, x]

    def grain(self) -> np.ndarray:
        return self.rng.random((self.size, self.size), dtype=np.float32)

    def noise(self, cell: float, octaves: int = 1) -> np.ndarray:
        """Smooth value noise whose bumps are about `cell` wide, spread over [0, 1]."""
        total, weight = 0.0, 1.0
        for octave in range(octaves):
            count = max(2, round(256 / cell * 2**octave)) + 1
            grid = self.rng.random((count, count), dtype=np.float32)
            total = total + weight * self.enlarge(grid)
            weight /= 2
        total = total / (2 - 2 * weight)
        return np.clip(0.5 + (total - 0.5) * 1.3, 0, 1)

    def enlarge(self, grid: np.ndarray) -> np.ndarray:
        return np.asarray(
            Image.fromarray(grid).resize((self.size, self.size), Image.Resampling.BICUBIC)
        )

    def blur(self, array: np.ndarray, radius: float) -> np.ndarray:
        image = Image.fromarray((np.clip(array, 0, 1) * 255).astype(np.uint8))
        blurred = image.filter(ImageFilter.GaussianBlur(radius * self.unit))
        return np.asarray(blurred, np.float32) / 255

    def soft(self, array: np.ndarray, radius: float) -> np.ndarray:
        """A wide blur without 8-bit steps, for heights: shrink, then enlarge smoothly."""
        count = max(2, round(256 / radius))
        image = Image.fromarray(np.ascontiguousarray(array, np.float32))
        return self.enlarge(np.asarray(image.resize((count, count), Image.Resampling.BOX)))

    def edges(self, width: float) -> np.ndarray:
        """1 on the outlines of all parts, `width` wide, 0 elsewhere."""
        labels = self.labels
        edge = np.zeros(labels.shape, np.uint8)
        edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
        edge[1:] |= labels[1:] != labels[:-1]
        radius = width * self.unit / 2
        spread = Image.fromarray(edge * 255).filter(ImageFilter.BoxBlur(radius))
        return (np.asarray(spread) > 100 / (2 * radius + 1)).astype(np.float32)

    def light(self, height: np.ndarray, strength: float = 1.0) -> np.ndarray:
        """Light from the upper left on a height map: about 0 where flat."""
        slope = np.zeros_like(height)
        slope[1:, 1:] = height[1:, 1:] - height[:-1, :-1]
        return slope * (strength * 256 / self.size)

    def wave(self, angle: float, period: float, bend: np.ndarray | float = 0.0) -> np.ndarray:
        """Parallel stripes in [-1, 1], bent by an optional array of lengths."""
        a = np.radians(angle)
        across = self.y * np.float32(np.cos(a)) - self.x * np.float32(np.sin(a)) + bend
        return np.sin(across * np.float32(2 * np.pi / period))

    def streaks(self, angle: np.ndarray | float, length: float, width: float) -> np.ndarray:
        """Random strokes `length` by `width`; angle in degrees, a number or an array."""
        a = np.radians(np.asarray(angle, np.float32))
        c, s = np.cos(a), np.sin(a)
        across = ((self.y * c - self.x * s) / width + 512).astype(np.intp) & 255
        offsets = self.rng.random(256, dtype=np.float32)[across]
        along = ((self.x * c + self.y * s) / length + offsets + 512).astype(np.intp) & 255
        return self.rng.random((256, 256), dtype=np.float32)[across, along]

    def cells(self, pitch: float, jitter: float = 0.8) -> Cells:
        """Voronoi cells around a jittered grid of the given pitch."""
        count = int(np.ceil(256 / pitch)) + 2
        where = np.arange(count, dtype=np.float32) - 0.5
        move = self.rng.uniform(-jitter / 2, jitter / 2, (2, count, count)).astype(np.float32)
        sy, sx = where[:, None] + move[0], where[None] + move[1]
        y, x = self.y / pitch, self.x / pitch
        iy, ix = y.astype(np.intp), x.astype(np.intp)
        first = np.full(y.shape, 99, np.float32)
        second, index = first.copy(), np.zeros(y.shape, np.intp)
        for dy in (0, 1, 2):
            for dx in (0, 1, 2):
                number = (iy + dy) * count + (ix + dx)
                number = np.minimum(number, count * count - 1)
                d = (y - sy.ravel()[number]) ** 2 + (x - sx.ravel()[number]) ** 2
                closer = d < first
                second = np.minimum(second, np.maximum(d, first))
                index = np.where(closer, number, index)
                first = np.minimum(first, d)
        near, far = np.sqrt(first) * pitch, np.sqrt(second) * pitch
        pixel = [
            np.clip(s.ravel() * pitch * self.unit, 0, self.size - 1).astype(np.intp)
            for s in (sy, sx)
        ]
        return Cells(near, (far - near) / 2, index, *pixel)

    def per_cell(self, cells: Cells, picture: np.ndarray, jitter: float = 0.0) -> np.ndarray:
        """Each cell in the colour that `picture` has at its seed, lighter or darker at random."""
        table = picture[cells.seed_y, cells.seed_x]
        if jitter:
            table = table + self.rng.uniform(-jitter, jitter, (len(table), 1)).astype(np.float32)
        return table[cells.index]


def hue_rotation(angle: float) -> np.ndarray:
    """Rotation of RGB space about the grey axis, for row vectors."""
    cos, sin = np.cos(angle), np.sin(angle)
    third, root = (1 - cos) / 3, np.sqrt(1 / 3) * sin
    a, b, c = cos + third, third - root, third + root
    return np.array([[a, b, c], [c, a, b], [b, c, a]], np.float32)
