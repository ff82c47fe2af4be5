"""Styles made by hand or press on paper. Each takes a Canvas, returns (S, S, 3) in [0, 1].

A palette names colours for ground, body, accent, dark and light, with choices in each.
"""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, colours, mix, smoothstep

_BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) / 16 - 0.47


def chalk(c: Canvas) -> np.ndarray:
    c.wobble(2)
    line = c.fill("8fa39b,f4f1e4 ffe98a,ff9fb0 9fd8ff,d8d8d0,ffffff", 0.02)
    dust = c.noise(6, 2) * 0.6 + c.grain() * 0.4
    hatch = smoothstep(c.wave(-40, 9, 6 * c.noise(20)), 0.1, 0.6) * c.by_role(
        0.05, 0.55, 0.65, 0.1, 0.9
    )
    cover = np.maximum(hatch * (dust > 0.42), c.blur(c.edges(3.4), 0.6) * (dust > 0.22))
    smear = (c.noise(70, 3) - 0.3) * 0.22 + (c.streaks(-20, 60, 3) - 0.5) * 0.06
    return mix(colours("24352f")[0] + smear[..., None], line, cover)


def watercolour(c: Canvas) -> np.ndarray:
    c.wobble(5)
    wash = c.fill("cfe3ea f3dfc4 e3d6ea,7fa8c9 c98a8a 8bb598,e0ab6a c7a0c9,6b6f8c,f4efe2", 0.05)
    bloom = mix(
        wash,
        colours("f2d3c6 c9dde8 d9e6c8")[c.rng.integers(3)],
        0.75 * (c.roles == 0) * c.noise(80, 2),
    )
    wet = c.blur(bloom, 1.5)
    pool = 0.45 * c.noise(40, 3) + 0.2 * c.blur(c.edges(3), 1.2)
    paper = (c.noise(4) - 0.5) * 0.06
    return mix(wet, wet**2.4, pool) + 0.02 + paper[..., None]


def ink(c: Canvas) -> np.ndarray:
    c.wobble(2)
    reach = c.by_role(-0.93, -0.45, 0.1, 0.75, -1.1) + 0.5 * (c.noise(50) - 0.5)
    bend = 3 * c.noise(30)
    hatch = np.where(c.by_role(0, 1, 0, 1, 0) > 0, c.wave(45, 7, bend), c.wave(-45, 7, bend))
    black = np.maximum(smoothstep(reach - hatch, -0.15, 0.15), c.edges(3.4))
    paper = colours("f3ead2")[0] - 0.07 * c.noise(60, 3)[..., None]
    return mix(paper, colours("1c1a1e")[0], black * (0.85 + 0.15 * c.grain()))


def woodcut(c: Canvas) -> np.ndarray:
    c.wobble(3)
    flat = c.fill("efe3c8,b3231c c8401e,e0a23a d98c2b,15120f,efe3c8", 0.02)
    angle_noise = 14 * c.noise(45, 2)
    gouge = c.by_role(-0.4, -0.62, -0.62, -1.2, -0.78)
    cut = np.where(c.labels > 0, c.wave(60, 13, angle_noise), c.wave(4, 11, angle_noise))
    black = np.maximum(
        smoothstep(gouge - cut + 0.5 * (c.streaks(0, 26, 2) - 0.5), -0.1, 0.1), c.edges(5)
    )
    return mix(flat, colours("15120f")[0], black * (c.grain() > 0.03))


def pointillism(c: Canvas) -> np.ndarray:
    base = c.fill("7fb6d9 e8c66a b6d48a,e2543d 3f6fb5 d9518f,f0a532 5aa55a,4a3b7a,fff3d0", 0.05)
    base = mix(base, colours("a8c070")[0], 0.7 * (c.roles == 0) * smoothstep(c.y, 120, 250))
    picture = np.broadcast_to(colours("f5ecd9")[0], base.shape)
    for _ in range(2):
        cells = c.cells(7.5, 0.9)
        table = base[cells.seed_y, cells.seed_x]
        table = np.clip(table + c.rng.normal(0, 0.13, table.shape), 0, 1).astype(np.float32)
        picture = mix(picture, table[cells.index], smoothstep(cells.near, 4.0, 3.0))
    return picture


def pixel_art(c: Canvas) -> np.ndarray:
    count = 32
    pick = ((np.arange(count) + 0.5) * c.size / count).astype(np.intp)
    shade = 0.12 * (c.by_role(1, 1, 1, 1, 1) * (0.9 - c.y / 256) + 0.25 * (c.noise(60) - 0.5))
    picture = c.fill("5b6ee1 639bff 37946e,d95763 d77bba 99e550,fbf236 df7126,222034,ffffff", 0)
    edge = c.blur(c.edges(5), 2)[np.ix_(pick, pick)] > 0.45
    small = picture[np.ix_(pick, pick)] + shade[np.ix_(pick, pick)][..., None]
    small = small + 0.16 * np.tile(_BAYER, (count // 4, count // 4))[..., None]
    small = np.clip(np.round(small * 5) / 5, 0, 1)
    small[edge] = colours("222034")[0]
    pixel = (c.y[:, 0] * count / 256).astype(np.intp)
    gap = ((c.y * count / 256) % 1 < 0.13) | ((c.x * count / 256) % 1 < 0.13)
    return mix(small[np.ix_(pixel, pixel)], np.zeros(3, np.float32), 0.22 * gap)


def crayon(c: Canvas) -> np.ndarray:
    c.wobble(4)
    wax = c.fill("a9d8f5 ffe08a c8ecb0,ff5a5f 3aa0e8 8a5ad8,ff9d2e 3fbf6f,4a3728,fff7d6", 0.04)
    stroke = 0.5 * c.streaks(-38, 40, 3.2) + 0.5 * c.streaks(-30, 60, 2.2)
    tooth = c.noise(3.2) * 0.6 + c.grain() * 0.3
    cover = smoothstep(
        0.75 * stroke + 0.55 * tooth + c.by_role(0.02, 0.25, 0.25, 0.3, 0.1), 0.42, 0.72
    )
    picture = mix(colours("fdf8ec")[0], wax - 0.12 * (stroke[..., None] - 0.5), cover)
    return mix(picture, wax * 0.55, c.edges(4.5) * (tooth > 0.28))


def oil(c: Canvas) -> np.ndarray:
    c.wobble(4)
    paint = c.fill("27496d 3d6b4f 8a5a3c,e0a526 c23b22 e8d9a8,d96c2c 4f8a8b,241a2e,f5e6c0", 0.04)
    paint = mix(paint, paint[::-1, ::-1] * 0.5 + 0.3, 0.25 * (c.roles == 0) * c.noise(60))
    flow = 160 * c.noise(110) + c.by_role(0, 70, 30, 10, 50)
    stroke = c.streaks(np.round(flow / 20) * 20, 26, 6)
    bristle = c.streaks(np.round(flow / 20) * 20, 40, 1.6)
    paint = mix(paint, paint * 0.5, 0.6 * c.edges(4)) + c.by_role(0.16, 0.22, 0.22, 0.1, 0.16)[
        ..., None
    ] * (stroke[..., None] - 0.5)
    relief = c.light(c.blur(0.6 * stroke + 0.4 * bristle, 1.0), 0.6)
    return paint + relief[..., None] + 0.08 * (bristle[..., None] - 0.5)


def comic(c: Canvas) -> np.ndarray:
    flat = c.fill("ffe23a 41b8f0 ff7ab8,e5202b 2667d8 27a844,ff8a1f ffd51f,1b1464,ffffff", 0)
    size = np.where(
        c.labels > 0, 0.9 - 1.3 * smoothstep(c.y + c.x, 130, 440), 0.3 + 0.004 * (c.y - 128)
    )
    dots = smoothstep(c.wave(45, 9) * c.wave(-45, 9) - size, 0.0, 0.25)
    other = np.where((c.labels > 0)[..., None], flat * 0.62, colours("ffffff")[0])
    return mix(mix(flat, other, dots), colours("0d0d12")[0], c.blur(c.edges(6), 0.5))


def engraving(c: Canvas) -> np.ndarray:
    height = c.soft(c.mask, 26)
    tone = (
        c.by_role(-0.55, -0.05, 0.35, 0.95, -0.85)
        - 1.2 * c.light(height, 8)
        + 0.3 * (c.noise(60) - 0.5)
    )
    lines = c.wave(8, 6.4, 26 * height + 5 * c.noise(70))
    cross = c.wave(-52, 7, 20 * height)
    black = np.maximum(
        smoothstep(tone - lines, -0.2, 0.2), smoothstep(tone - 0.75 - cross, -0.2, 0.2)
    )
    paper = colours("e3cfa4")[0] - 0.12 * c.noise(90, 3)[..., None]
    return mix(paper, colours("4a2a12")[0], np.maximum(black, c.edges(3)))


def poster(c: Canvas) -> np.ndarray:
    cy, cx = 128 + c.rng.uniform(-40, 40), 128 + c.rng.uniform(-40, 40)
    rays = np.sin(np.arctan2(c.y - cy, c.x - cx) * 12 + c.rng.uniform(0, 6)) > 0
    ground = mix(colours("f2e2bd")[0], colours("e8592b")[0], rays)
    flat = c.fill("000000,14404d 123a5a,b3201f,0a1d26,f2e2bd", 0.01)
    right = smoothstep(c.x - 256 * c.noise(200) + c.y * 0.3, 35, 45) * (c.roles == 1)
    flat = mix(flat, colours("1f6f78")[0], 0.8 * right)
    picture = np.where((c.labels > 0)[..., None], flat, ground)
    return picture - 0.05 * (c.grain()[..., None] > 0.8)


def risograph(c: Canvas) -> np.ndarray:
    pink, blue = colours("ff4f8b")[0], colours("1f5fd0")[0]
    grain = c.grain()
    a = c.rng.uniform(0, 2 * np.pi)
    slope = (c.y - 128) * np.sin(a) + (c.x - 128) * np.cos(a)
    fade = 0.65 * smoothstep(slope + 60 * c.noise(90), -110, 170)
    first = c.by_role(0, 0.95, 0.15, 0.8, 0.02) + fade * (c.roles == 0)
    second = c.by_role(0.12, 0.08, 0.95, 0.95, 0.0) + 0.35 * c.mask * smoothstep(c.x, 60, 256)
    dx, dy = c.rng.uniform(3, 6, 2) * c.rng.choice((-1, 1), 2)
    second = c.shift(second, dx, dy)
    paper = colours("f7f0dc")[0]
    picture = mix(paper, pink, 0.92 * (first > grain * 0.9 + 0.04))
    return picture * mix(
        np.ones(3, np.float32), blue + 0.08, 0.95 * (second > grain[::-1] * 0.9 + 0.04)
    )


def blueprint(c: Canvas) -> np.ndarray:
    ground = colours("153f86")[0] + 0.10 * (c.noise(60, 3)[..., None] - 0.5)
    fine = ((c.x % 16) < 1.3) | ((c.y % 16) < 1.3)
    bold = ((c.x % 64) < 2.2) | ((c.y % 64) < 2.2)
    hatch = (c.wave(-45, 10) > 0.75) * c.by_role(0, 0.3, 0.0, 0.75, 0.0)
    tint = c.by_role(0, 0.08, 0.2, 0.05, 0.35)
    white = np.maximum.reduce([0.16 * fine, 0.3 * bold, hatch, tint, 0.95 * c.edges(3)])
    return mix(ground, colours("eaf4ff")[0], white * (0.85 + 0.15 * c.grain()))


PAINTS = {
    "chalk": chalk,
    "watercolour": watercolour,
    "ink": ink,
    "woodcut": woodcut,
    "pointillism": pointillism,
    "pixel art": pixel_art,
    "crayon": crayon,
    "oil painting": oil,
    "comic": comic,
    "engraving": engraving,
    "poster": poster,
    "risograph": risograph,
    "blueprint": blueprint,
}
