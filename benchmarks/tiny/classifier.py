"""A small judge that names the object of a 128 px drawing, trained on drawings in two minutes.

It only ever sees drawings made by our code, never pictures of the model it judges.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tqdm import trange

from benchmarks.tiny import dataset
from jdreambooth import drawings
from jstyle.sd.layers import GroupNorm
from jstyle.sd.startup import jt

nn = jt.nn

INPUT = 64


class Judge(nn.Module):
    """Grey (B, 1, 64, 64) -> logits over drawings.OBJECTS."""

    def __init__(self):
        widths = (1, 24, 48, 96, 128)
        layers = []
        for i, o in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Conv(i, o, 3, stride=2, padding=1), GroupNorm(8, o, 1e-5, silu=True)]
            layers += [nn.Conv(o, o, 3, padding=1), GroupNorm(8, o, 1e-5, silu=True)]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1] * 16, len(drawings.OBJECTS))

    def execute(self, x):
        h = self.layers(x)
        return self.head(h.reshape(h.shape[0], -1))


def grey(images: np.ndarray) -> np.ndarray:
    """(N, 128, 128, 3) uint8 -> (N, 1, 64, 64) float32, each with mean 0 and deviation 1."""
    luma = images.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    half = luma.reshape(len(luma), INPUT, 2, INPUT, 2).mean((2, 4))
    half -= half.mean((1, 2), keepdims=True)
    return (half / (half.std((1, 2), keepdims=True) + 1e-3))[:, None]


def labels_of(captions: list[str]) -> np.ndarray:
    """The index of the object each caption names."""
    by_length = sorted(drawings.OBJECTS, key=len, reverse=True)
    index = {name: i for i, name in enumerate(drawings.OBJECTS)}
    subjects = [c.split(" in ")[0].split(" ", 1)[-1] for c in captions]
    return np.array(
        [index[next(o for o in by_length if s == o or s.endswith(o))] for s in subjects]
    )


def train(images, labels, steps: int = 1800, batch: int = 64, seed: int = 0) -> Judge:
    """Train on (N, 128, 128, 3) uint8 drawings."""
    judge, rng = Judge(), np.random.default_rng(seed)
    optimizer = jt.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=1e-2)
    for step in trange(steps, desc="judge", mininterval=5):
        optimizer.lr = 2e-3 * (1 - step / steps)
        picks = np.sort(rng.integers(0, len(images), batch))
        x = grey(np.asarray(images[picks]))
        x += rng.normal(0, 0.2, x.shape).astype(np.float32)
        x *= rng.choice([-1, 1], (batch, 1, 1, 1))  # light on dark and dark on light alike
        if rng.random() < 0.5:
            x = x[..., ::-1]
        logits = judge(jt.array(np.ascontiguousarray(x)))
        optimizer.step(nn.cross_entropy_loss(logits, jt.array(labels[picks].astype(np.int32))))
        jt.sync_all()
    return judge


def sees(judge: Judge, images: np.ndarray, objects: np.ndarray | int, among: int = 1) -> np.ndarray:
    """Whether the judge has the object (an index into drawings.OBJECTS, one for each image or for
    all) among the first `among` that it would name."""
    with jt.no_grad():
        order = judge(jt.array(grey(images))).numpy().argsort(1)[:, ::-1]
    return (order[:, :among] == np.reshape(objects, (-1, 1))).any(1)


def trained_on(data: Path) -> tuple[Judge, float]:
    """A judge of the drawings in a folder, and its accuracy on the twentieth that it did not see.

    Kept beside the drawings as judge.npz.
    """
    pictures, captions = dataset.load(data)
    labels, path = labels_of(captions["drawing"]), data / "judge.npz"
    held = len(labels) // 20
    if path.exists():
        judge, saved = Judge(), np.load(path)
        for name, parameter in judge.named_parameters():
            parameter.assign(jt.array(saved[name]))
    else:
        judge = train(pictures["drawing"][:-held], labels[:-held])
        np.savez(path, **{name: p.numpy() for name, p in judge.named_parameters()})
    own = sees(judge, pictures["drawing"][-held:], labels[-held:])
    return judge, float(np.mean(own))
