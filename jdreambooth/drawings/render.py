"""draw() one subject in one style, scene() many things without a caption, recolour() either."""

from __future__ import annotations

import zlib
from colorsys import hsv_to_rgb

import numpy as np
from PIL import Image

from .animals import ANIMALS
from .canvas import Canvas, hue_rotation, mix, smoothstep
from .colours import DARK as DARK_HEX
from .colours import LIGHT as LIGHT_HEX
from .colours import USUAL, rgb
from .crafts import CRAFTS
from .held_out import HELD_OUT
from .paints import PAINTS
from .shapes import ACCENT, BODY, DARK, GROUND, LIGHT, poly
from .things import THINGS

_SUBJECTS = {**THINGS, **ANIMALS}
_PAINTERS = {**PAINTS, **CRAFTS, **HELD_OUT}

OBJECTS = tuple(_SUBJECTS)
# Drawn most often for the shipped model, which knows their names best.
COMMON_OBJECTS = (
    "star", "house", "tree", "sun", "moon", "apple", "car", "cup", "flower", "heart",
    "mushroom", "umbrella", "cloud", "leaf", "bottle", "cactus", "snowman", "ladder", "ring",
    "envelope", "bell", "fish", "butterfly", "balloon",
)  # fmt: skip
FAMILIES = {"animals": tuple(ANIMALS)}
STYLES = (*PAINTS, *CRAFTS)
HELD_OUT_STYLES = tuple(HELD_OUT)

_OVERSAMPLE = 2
_COLLECTIVE = {"glasses"}  # takes no article


def _rng(*key) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(str(k).encode()) for k in key])


def caption(obj: str, style: str | None = None) -> str:
    """ "a star", "an apple in mosaic style". Raises ValueError for unknown names."""
    _check(obj, style)
    article = "" if obj in _COLLECTIVE else "an " if obj[0] in "aeiou" else "a "
    return f"{article}{obj}" + (f" in {style} style" if style is not None else "")


def draw(obj: str, style: str | None, seed: int, size_px: int = 128) -> Image.Image:
    """One subject filling 60..90 % of a square RGB picture.

    style None is a clean flat drawing in the subject's usual colours. The layout depends on
    (obj, seed) only: one seed gives the same drawing in every style. Raises ValueError for an
    unknown object or style.
    """
    _check(obj, style)
    canvas = Canvas(_OVERSAMPLE * size_px, _rng("paint", style, obj, seed))
    matrix, offset = _placement(_SUBJECTS[obj], canvas.size, _rng("place", obj, seed))
    canvas.add(_SUBJECTS[obj], matrix, offset)
    return _finish(_plain(canvas, obj) if style is None else _PAINTERS[style](canvas), size_px)


def scene(seed: int, size_px: int = 128) -> Image.Image:
    """A random landscape, table top or scatter; half are shaded, half in a training style."""
    rng = _rng("scene", seed)
    canvas = Canvas(_OVERSAMPLE * size_px, rng)
    (_landscape, _table, _scatter)[rng.choice(3, p=(0.5, 0.25, 0.25))](canvas)
    if rng.random() < 0.5:
        return _finish(_PAINTERS[STYLES[rng.integers(len(STYLES))]](canvas), size_px)
    return _finish(_shaded(canvas), size_px)


def recolour(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Turn the hues by any angle about the grey axis, then change gain and gamma per channel."""
    rgb = np.asarray(image.convert("RGB"), np.float32) / 255
    rgb = np.clip(rgb @ hue_rotation(-rng.uniform(0, 2 * np.pi)), 0, 1)
    rgb = rgb ** rng.uniform(0.8, 1.25, 3) * rng.uniform(0.8, 1.15, 3)
    return Image.fromarray((np.clip(rgb, 0, 1) * 255 + 0.5).astype(np.uint8))


def _check(obj, style):
    if obj not in _SUBJECTS:
        raise ValueError(f"no drawing of {obj!r}; there are {', '.join(OBJECTS)}")
    if style is not None and style not in _PAINTERS:
        raise ValueError(f"no style {style!r}; there are {', '.join(_PAINTERS)}")


def _placement(parts, size, rng):
    """A matrix and offset that put the parts, slightly turned, somewhere inside the frame."""
    angle, flip = rng.normal(0, 7), rng.choice((-1.0, 1.0))
    stretch = np.exp(rng.normal(0, 0.06))
    a = np.radians(np.clip(angle, -18, 18))
    matrix = np.diag((flip * stretch, 1 / stretch))
    matrix = matrix @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
    low = np.min([(p.points @ matrix).min(0) - p.width / 2 for p in parts], 0)
    high = np.max([(p.points @ matrix).max(0) + p.width / 2 for p in parts], 0)
    scale = rng.uniform(0.65, 0.9) * size / (high - low).max()
    room = 0.97 * size - scale * (high - low)
    corner = 0.015 * size + room * rng.uniform(0.25, 0.75, 2)
    return matrix * scale, corner - scale * low


def _finish(picture, size_px):
    image = Image.fromarray((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8))
    return image.resize((size_px, size_px), Image.Resampling.BOX)


def _usual_palette(obj, rng):
    """Five colours by role: the subject's own, a little off each time, on a pale ground."""
    ground = hsv_to_rgb(rng.uniform(0.5, 0.6), rng.uniform(0.15, 0.3), rng.uniform(0.8, 0.9))
    table = [ground, *map(rgb, (*USUAL[obj], DARK_HEX, LIGHT_HEX))]
    return np.clip(table + rng.normal(0, 0.025, (5, 3)), 0, 1).astype(np.float32)


def _plain(c: Canvas, obj: str):
    table = _usual_palette(obj, c.rng)
    flat = np.stack([c.by_role(*table[:, k]) for k in range(3)], -1)
    angle = c.rng.uniform(0, 2 * np.pi)
    slope = (c.x / 256 - 0.5) * np.cos(angle) + (c.y / 256 - 0.5) * np.sin(angle)
    variation = 0.16 * slope + 0.12 * (c.noise(110, 2) - 0.5)
    return flat + (variation * (c.labels == 0))[..., None]


def _stamp(c: Canvas, x, y, height, shuffle=True):
    """One random subject whose foot stands at (x, y), sizes in parts of the frame."""
    parts = _SUBJECTS[OBJECTS[c.rng.integers(len(OBJECTS))]]
    low = np.min([p.points.min(0) for p in parts], 0)
    high = np.max([p.points.max(0) for p in parts], 0)
    scale = height * c.size / (high - low).max()
    matrix = np.diag((scale * c.rng.choice((-1, 1)), scale))
    foot = np.array([(low[0] + high[0]) / 2, high[1]]) @ matrix
    roles = np.array(
        [GROUND, *(c.rng.permutation((BODY, ACCENT, DARK, LIGHT)) if shuffle else range(1, 5))]
    )
    c.add(parts, matrix, np.array([x, y]) * c.size - foot, roles)


def _ridge(c: Canvas, role, height, roughness):
    """A filled band under a random skyline at `height` (0 top .. 1 bottom)."""
    count = 40
    walk = np.cumsum(c.rng.normal(0, 1, count))
    walk = np.convolve(np.pad(walk, 4, mode="edge"), np.ones(9) / 9, "valid")
    walk = (walk - walk.mean()) / (np.abs(walk - walk.mean()).max() + 1e-6)
    top = np.stack([np.linspace(-0.02, 1.02, count), height + roughness * walk], 1)
    c.add([poly(role, *top, (1.02, 1.02), (-0.02, 1.02))], np.eye(2) * c.size, np.zeros(2))


def _landscape(c: Canvas):
    rng = c.rng
    horizon = rng.uniform(0.35, 0.7)
    if rng.random() < 0.6:
        _stamp(c, rng.uniform(0.1, 0.9), horizon * rng.uniform(0.4, 0.9), rng.uniform(0.1, 0.25))
    for step in range(rng.integers(1, 4)):
        role = rng.choice((BODY, ACCENT, DARK, LIGHT))
        _ridge(c, role, horizon + 0.12 * step, rng.uniform(0.01, 0.15))
    for depth in np.sort(rng.random(rng.integers(1, 6))):
        foot = horizon + 0.08 + (0.9 - horizon) * depth
        _stamp(c, rng.uniform(0.05, 0.95), foot, 0.12 + 0.45 * depth * rng.uniform(0.6, 1.2))


def _table(c: Canvas):
    rng = c.rng
    edge = rng.uniform(0.5, 0.75)
    _ridge(c, rng.choice((BODY, ACCENT, DARK, LIGHT)), edge, 0.004)
    for foot in np.sort(rng.uniform(edge + 0.05, 0.98, rng.integers(2, 5))):
        _stamp(c, rng.uniform(0.12, 0.88), foot, rng.uniform(0.3, 0.65))


def _scatter(c: Canvas):
    for _ in range(c.rng.integers(2, 9)):
        x, y = c.rng.uniform(0.05, 0.95), c.rng.uniform(0.2, 1.1)
        _stamp(c, x, y, c.rng.uniform(0.12, 0.6))


def _shaded(c: Canvas):
    """Light, texture, shadows, haze and grain, for statistics nearer to a photograph's."""
    rng, parts = c.rng, int(c.labels.max()) + 1
    table = rng.uniform(0.1, 0.9, (parts, 1)) + rng.normal(0, rng.uniform(0.03, 0.2), (parts, 3))
    table = np.clip(table + rng.normal(0, 0.06, 3), 0.03, 0.97)
    picture = table.astype(np.float32)[c.labels]
    sky = mix(
        table[0], table[0] + rng.uniform(-0.3, 0.4) + rng.normal(0, 0.1, 3), c.y / 256
    ) + 0.25 * (c.noise(80, 4)[..., None] - 0.5)
    picture = np.where((c.labels == 0)[..., None], sky, picture)
    rough = c.by_part(rng.uniform(0, 0.5, parts) ** 1.5)
    texture = np.where(c.by_part(rng.random(parts)) > 0.5, c.noise(14, 4), c.noise(70, 3))
    height = c.soft(c.by_part(rng.random(parts)), 20)
    shade = 1 + rough * 2 * (texture - 0.5) + rng.uniform(0, 2) * c.light(height, 4)
    shade = shade - 0.4 * np.clip(c.shift(c.soft(c.mask, 14), 6, 6) - c.mask, 0, 1)
    centre = np.hypot(c.x - 256 * rng.random(), c.y - 256 * rng.random())
    shade = shade * (1.15 - rng.uniform(0, 0.5) * smoothstep(centre, 40, 300))
    picture = c.blur(picture * shade[..., None], rng.uniform(0.3, 1.6))
    picture = picture ** rng.uniform(0.7, 1.5) * rng.uniform(0.85, 1.15, 3)
    return picture + rng.uniform(0, 0.08) * (c.grain()[..., None] - 0.5)
