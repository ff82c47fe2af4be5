"""Styles kept out of training, so that fine-tuning has something new to learn."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, colours, mix, smoothstep


def low_poly(c: Canvas) -> np.ndarray:
    base = c.fill("2a9d8f 8ab6d6 264653,e76f51 e9c46a 9b5de5,f4a261 00bbf9,1d2433,fefae0", 0.03)
    pitch = 16.0
    y = c.y + 22 * (c.noise(30) - 0.5)
    x = c.x + 22 * (c.noise(30) - 0.5)
    row, col = np.floor(y / pitch) + 1, np.floor(x / pitch) + 1
    upper = (y / pitch) % 1 + (x / pitch) % 1 < 1
    count = int(256 / pitch) + 4
    index = ((row * count + col) * 2 + upper).astype(np.intp)
    light = c.rng.uniform(-0.24, 0.24, index.max() + 1).astype(np.float32)[index]
    return base * (1 + light + 0.3 * (0.5 - c.y / 256))[..., None]


def knitted(c: Canvas) -> np.ndarray:
    width, height = 9.0, 7.5
    yarn = c.fill("f0e6d6 8a2a3a 2f4a6a,c8323c d88ab0 3a8a5a,e8b04a 6aa0c8,22222e,ffffff", 0.02)
    col = np.floor(c.x / width)
    inside = c.x / width - col - 0.5
    lean = c.y + 5.5 * (0.5 - np.abs(inside)) * 2
    row = np.floor(lean / height)
    top = c.size - 1
    at = [
        np.clip(k * c.unit, 0, top).astype(np.intp) for k in ((row) * height, (col + 0.5) * width)
    ]
    ridge = np.sin((lean / height - row) * np.pi) * (
        0.35 + 0.65 * np.sin(np.abs(inside) * 2 * np.pi)
    )
    fuzz = 0.14 * (c.grain() - 0.5) + 0.12 * c.wave(0, 2.8, 9 * np.abs(inside))
    return yarn[at[0], at[1]] * (0.42 + 0.72 * ridge + fuzz)[..., None]


def thermal(c: Canvas) -> np.ndarray:
    heat = c.by_role(0.1, 0.8, 0.62, 0.42, 0.98)
    heat = 0.55 * c.blur(heat, 3) + 0.45 * c.soft(heat, 18) + 0.28 * (c.noise(50, 2) - 0.4)
    stops = colours("05051a 1a0a6a 6a0f9a c8266a f0641a ffc81a ffffe0")
    at = np.clip(heat, 0, 0.999) * (len(stops) - 1)
    low = at.astype(np.intp)
    return mix(stops[low], stops[low + 1], at - low) - 0.06 * (c.y % 6 < 2.2)[..., None]


def spray_paint(c: Canvas) -> np.ndarray:
    row = np.floor(c.y / 18)
    joint = (c.y % 18 < 1.8) | ((c.x + 18 * (row % 2)) % 36 < 1.8)
    wall = colours("8f4a3a 7a7a80")[c.rng.integers(2)] + 0.12 * (c.noise(5, 2)[..., None] - 0.5)
    wall = mix(wall, colours("b8b0a4")[0], 0.75 * joint)
    paint = c.fill("000000,39ff14 ff1f8f 1fd0ff,fff01f ff7a1f,1a1a1a,ffffff", 0.02)
    inside = c.blur(c.mask, 0.8)
    mist = c.soft(c.mask, 12)
    specks = (1.15 * mist > c.grain() + 0.25) * (1 - inside)
    haze = c.blur(paint, 9)
    haze = haze / (haze.max(-1, keepdims=True) + 0.05)
    fade = 0.8 + 0.35 * (c.noise(40, 2)[..., None] - 0.5)
    picture = mix(
        mix(wall, haze, 0.75 * specks), paint * fade + 0.1 * joint[..., None], 0.92 * inside
    )
    return mix(picture, colours("0a0a0a")[0], 0.9 * c.blur(c.edges(6), 1.4) ** 0.8)


def topographic(c: Canvas) -> np.ndarray:
    bumps = c.by_role(0, 0.75, 0.95, 0.5, 1.1)
    height = 1.1 * c.soft(bumps, 16) + 0.8 * c.noise(90, 3)
    step = height * 9
    level = np.floor(step) / 15
    tint = mix(
        mix(colours("9cc98a")[0], colours("f0dc9a")[0], np.clip(2 * level, 0, 1)),
        colours("b5703a")[0],
        np.clip(2 * level - 1, 0, 1),
    )
    slope = np.abs(np.gradient(step, axis=0)) + np.abs(np.gradient(step, axis=1)) + 1e-3
    frac = step % 1
    line = smoothstep(np.minimum(frac, 1 - frac) / slope, 1.6, 0.7)
    line = np.maximum(0.75 * line, 0.9 * c.edges(3.2))
    tint = tint * c.by_role(1, 0.92, 0.85, 0.7, 1.06)[..., None]
    return mix(tint, colours("5a3418")[0], line)


def op_art(c: Canvas) -> np.ndarray:
    bend = 14 * c.noise(80)
    period = 9
    turn = c.by_role(0, 1, 0, 1, 0) > 0
    subject = np.where(turn, c.wave(90, period, bend), c.wave(-45, period, bend))
    stripes = np.where(c.labels > 0, subject, c.wave(0, period, bend))
    white = smoothstep(stripes + c.by_role(0.1, -0.7, 0.6, -0.9, 0.85), -0.25, 0.25)
    white = np.maximum(white, c.blur(c.edges(6), 0.5))
    return mix(colours("08080a")[0], colours("fafafa")[0], white)


HELD_OUT = {
    "low poly": low_poly,
    "knitted": knitted,
    "thermal": thermal,
    "spray paint": spray_paint,
    "topographic map": topographic,
    "op art": op_art,
}
