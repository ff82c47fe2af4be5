"""Styles made of a material: glass, thread, stone, light. Each takes a Canvas (see paints.py)."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, colours, mix, smoothstep


def mosaic(c: Canvas) -> np.ndarray:
    flat = c.fill("2f7f98 4f9a9a 2f5f88,d9622b b83a2a e09a3a,e8c45a 2f6f9f,2b2f45,f2e6cc", 0.04)
    cells = c.cells(12, 0.5)
    tone = c.per_cell(cells, np.zeros((c.size, c.size, 1), np.float32), 0.13)
    tiles = flat + tone + 0.012 * (cells.border[..., None] - 3)
    grout = np.maximum(smoothstep(cells.border, 1.7, 0.7), 0.6 * c.edges(2))
    return mix(tiles, colours("cfc8b8")[0] - 0.08 * c.grain()[..., None], grout)


def neon(c: Canvas) -> np.ndarray:
    tubes = c.fill("7a1fa0,ff2d95 00e5ff,ffb020 39ff6a,b44dff,fff0a0", 0.02)
    line = c.edges(3.2)
    colour = c.blur(tubes * (c.labels > 0)[..., None], 2)
    colour = colour / (colour.max(-1, keepdims=True) + 0.15)
    glow = 1.1 * c.blur(line, 3) + 2.4 * c.blur(line, 12)
    wall = colours("14061f")[0] + 0.30 * (c.wave(0, 8) > 0.5)[..., None] * colours("6a1a9a")[0]
    wall = wall + 0.35 * c.noise(90, 2)[..., None] * colours("5a10a0")[0]
    spread = c.blur(colour, 14) * 1.3
    lit = wall + glow[..., None] * np.maximum(spread, colour * c.mask[..., None]) * 0.9
    return mix(lit, 0.55 * colour + 0.45, line * np.minimum(1, 4 * colour.max(-1)))


def stained_glass(c: Canvas) -> np.ndarray:
    glass = c.fill("1f3fa8 5a1f8a 0f6a5a,e01f3a f08a1f,f5c81f 1fa85a,3a1a5a,bfe8f5", 0.05)
    cells = c.cells(42, 0.9)
    tone = c.per_cell(cells, np.ones((c.size, c.size, 1), np.float32), 0.3)
    lit = glass * tone * (0.75 + 0.75 * c.noise(28, 2)[..., None]) + 0.04
    lead = np.maximum(smoothstep(cells.border, 2.3, 1.4), c.edges(5.5))
    return mix(lit, colours("0a090c")[0], lead)


def embroidery(c: Canvas) -> np.ndarray:
    thread = c.fill("d9c7a0 b8c9b0 c9a9a0,b8283c 2a5a9a 7a2a7a,e0a02a 3a8a5a,3a2418,f5ecd8", 0.04)
    angle = c.by_role(0, 55, -35, 80, 20)
    stitch = c.streaks(angle, 22, 4.2)
    a = np.radians(angle)
    ridge = np.abs(np.sin((c.y * np.cos(a) - c.x * np.sin(a) + 512) * np.float32(np.pi / 4.2)))
    weave = 0.5 + 0.5 * np.sign(c.wave(0, 9)) * np.sign(c.wave(90, 9))
    shade = np.where(
        c.roles > 0, 0.62 + 0.3 * ridge + 0.28 * stitch, 0.68 + 0.2 * weave + 0.2 * ridge
    )
    rim = c.edges(5) * (np.sin((c.x + c.y) * 0.45) * np.sin((c.x - c.y) * 0.45) > -0.35)
    shadow = 1 - 0.35 * np.clip(c.shift(c.blur(c.mask, 4), 4, 4) - c.mask, 0, 1)
    return mix(thread * (shade * shadow)[..., None], thread * 0.35, 0.8 * rim)


def stone_relief(c: Canvas) -> np.ndarray:
    bumps = c.by_role(0, 1.0, 1.35, 0.55, 1.6)
    height = 0.6 * c.soft(bumps, 14) + 0.4 * c.soft(bumps, 5)
    rough = c.noise(26, 4)
    crack = smoothstep(np.abs(c.noise(64, 3) - 0.5), 0.012, 0.0) * (1 - 0.6 * c.mask)
    lit = 0.46 + 2.6 * c.light(height) + 1.2 * c.light(rough) + 0.12 * (rough - 0.5) + 0.07 * c.mask
    lit = lit - 0.3 * crack + 0.06 * (c.grain() - 0.5)
    return lit[..., None] * colours("f4f0e8 eef0f2 f5ece0")[c.rng.integers(3)]


def paper_cut(c: Canvas) -> np.ndarray:
    paper = c.fill("f2a65a f2a65a,2f8f9d 5a4fa0 c8453b,f7d65a 9dd08a,34344e,fffaf0", 0.02)
    level = np.floor(c.noise(120) * 5)
    sheets = mix(
        colours("f6c89a")[0], colours("c2452d 3d5a98 3f8a6a")[c.rng.integers(3)], level / 4
    )
    picture = np.where((c.labels > 0)[..., None], paper, sheets)
    height = np.where(c.labels > 0, 5.5 + 0.2 * c.labels, level)
    rise = np.clip(c.shift(height, 5, 6) - height, 0, 1.5) / 1.5
    near = np.clip(c.shift(height, 2, 2) - height, 0, 1.5) / 1.5
    shadow = 0.3 * c.blur(rise, 3.5) + 0.22 * c.blur(near, 1)
    rim = c.light(c.blur(height / 16, 0.5), 2.0)
    return (
        picture * (1 - shadow)[..., None]
        + np.clip(rim, 0, 0.12)[..., None]
        + 0.04 * (c.noise(3)[..., None] - 0.5)
    )


def gold(c: Canvas) -> np.ndarray:
    sheen = 0.5 + 0.5 * np.sin(c.x * 0.021 + c.y * 0.034 + 5 * c.noise(90) + c.rng.uniform(0, 6))
    foil = mix(colours("8a5a14")[0], colours("ffe9a0")[0], 0.15 + 0.8 * sheen)
    row = np.floor(c.y / 20)
    fan = np.hypot((c.x + 16 * (row % 2)) % 32 - 16, c.y % 20 - 20)
    pattern = 0.42 * (np.abs(fan % 8 - 4) < 0.9)
    amount = np.where(c.labels > 0, c.by_role(0, 0.95, 0.6, 0.1, 1.0), pattern)
    picture = mix(colours("0b0a0f")[0], foil, amount)
    return mix(picture, foil * 1.1, c.edges(3.6)) + 0.04 * (c.grain()[..., None] - 0.5)


def candy(c: Canvas) -> np.ndarray:
    top, low = (
        colours("ff9ad5 a8f0e0 ffd08a")[c.rng.integers(3)],
        colours("b08aff 8ac8ff")[c.rng.integers(2)],
    )
    stripe = smoothstep(c.wave(35, 34), -0.15, 0.15)
    ground = mix(top, low, c.y / 256) + 0.12 * stripe[..., None]
    jelly = c.fill("ffffff,ff4fa0 a34fff 2fd0c0,ffb52f 4fe06a,7a2f9a,fff5fb", 0.03)
    bumps = c.by_role(0, 1, 1.4, 1.3, 1.5)
    lit = c.light(0.5 * c.soft(bumps, 22) + 0.5 * c.soft(bumps, 9), 1.0)
    body = jelly + 1.3 * lit[..., None] + 0.9 * smoothstep(lit, 0.05, 0.1)[..., None]
    shadow = 1 - 0.3 * c.shift(c.blur(c.mask, 6), 4, 8)
    return mix(ground * shadow[..., None], body, c.blur(c.mask, 0.6))


def pottery(c: Canvas) -> np.ndarray:
    clay = mix(colours("d0703a")[0], colours("b5562a")[0], c.noise(60, 3))
    y, x = c.y, c.x
    band = (y < 30) | (y > 226)
    step = (np.floor(x / 6) % 4, np.floor(np.where(y < 30, y, y - 226) / 6))
    key = np.isin(step[0] + 4 * step[1], [4, 8, 12, 13, 14, 6, 16, 17, 18, 7, 11, 15])
    figure = c.by_role(0, 1, 0, 1, 0) + c.by_role(0, 0, 0.62, 0, 0)
    incised = (c.wave(30, 12, 5 * c.noise(40)) > 0.9) * c.by_role(0, 1, 1, 0, 0)
    back = np.where(band & (c.labels == 0), key * 1.0, 0.25 * (c.wave(0, 40) > 0.97))
    black = np.where(c.labels > 0, np.clip(figure - incised, 0, 1), back)
    black = np.maximum(black * (c.roles != 4), c.edges(2.4) * (c.roles != 1))
    return mix(clay, colours("1a100c")[0], black) + 0.05 * (c.grain()[..., None] - 0.5)


CRAFTS = {
    "mosaic": mosaic,
    "neon": neon,
    "stained glass": stained_glass,
    "embroidery": embroidery,
    "stone relief": stone_relief,
    "paper cut": paper_cut,
    "gold leaf": gold,
    "candy": candy,
    "pottery": pottery,
}
