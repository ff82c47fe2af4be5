"""PyTorch's CPU generator, bit for bit, and a picture of diffusers made again from its seed."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from jdreambooth.generate import make_picture
from jdreambooth.recipe import Recipe
from jstyle.commands.generate import Request, generate
from jstyle.console.words import progress_bar
from jstyle.sd import image
from jstyle.sd.rng import mersenne
from jstyle.sd.rng.torch_cpu import TorchCPU
from jstyle.sd.samplers.options import Sampling
from tests import tiny
from tests.tolerances import assert_close

SEEDS = (0, 42, 2**32 + 7, 2**64 - 1)
# one image's latents at 512 px; then small ones, where the wait for the pair's other half shows
DRAWS = ([(1, 4, 64, 64)], [(3,), (20,), (1,), (2, 2), (17,), (4, 9, 13), (2,)])
LIMIT_ULP = 2  # of the last place; measured 2026-11-20: 0 (float16, float32), 2 (float64)
CHILD = """
import sys, numpy, torch
generator = torch.Generator().manual_seed(42)
numpy.save(sys.argv[1], torch.randn(4096 + 5, generator=generator).numpy())
"""


def ulps(a, b):
    """Largest distance in units in the last place, for numbers of equal sign."""
    assert a.dtype == b.dtype and np.array_equal(np.signbit(a), np.signbit(b))
    bits = {2: np.int16, 4: np.int32, 8: np.int64}[a.dtype.itemsize]
    return int(np.abs(a.view(bits).astype(np.int64) - b.view(bits).astype(np.int64)).max())


def seeded(seed):
    import torch

    return torch.Generator().manual_seed(seed)


def avx2():
    import torch

    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


@pytest.mark.parametrize("seed", SEEDS)
def test_the_integers_of_the_engine_are_the_same(seed):
    import torch

    theirs = torch.empty(1000, dtype=torch.int64)
    theirs.random_(-(2**63), None, generator=seeded(seed))  # all 64 bits, the upper word first
    upper, lower = mersenne.engine(seed).random_raw(2000).reshape(-1, 2).T
    np.testing.assert_array_equal(upper << np.uint64(32) | lower, theirs.numpy().view(np.uint64))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_uniform_numbers_are_the_same(dtype):
    import torch

    theirs = torch.rand(1500, dtype=getattr(torch, dtype), generator=seeded(3)).numpy()
    np.testing.assert_array_equal(mersenne.uniform(mersenne.engine(3), 1500, dtype), theirs)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("seed", SEEDS)
def test_normal_numbers_are_the_same(seed, dtype):
    import torch

    for shapes in DRAWS:
        theirs, ours = seeded(seed), TorchCPU(seed, avx2())
        for shape in shapes:
            want = torch.randn(shape, dtype=getattr(torch, dtype), generator=theirs).numpy()
            got = ours.randn(shape, dtype)
            assert ulps(got, want) <= (LIMIT_ULP if dtype == "float64" else 0), shape


def test_processors_without_avx2_differ_as_ours_without_it(tmp_path):
    path = tmp_path / "noise.npy"
    env = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    subprocess.run([sys.executable, "-c", CHILD, path], env=env, check=True)
    theirs = np.load(path)
    assert ulps(TorchCPU(42, avx2=False).randn(theirs.shape), theirs) <= LIMIT_ULP
    assert ulps(TorchCPU(42).randn(theirs.shape), theirs) > LIMIT_ULP


def diffusers_pictures(prompts, seed, height, width):
    """(B, H, W, 3) in [-1, 1]: every picture from a generator of its own."""
    generators = [seeded(seed + i) for i in range(len(prompts))]
    options = {"num_inference_steps": 3, "guidance_scale": 5.0, "height": height, "width": width}
    made = tiny.make_theirs("sd2")(prompts, generator=generators, output_type="np", **options)
    return made.images * 2 - 1


def test_pictures_of_diffusers_are_made_again_from_their_seeds(tiny_folder, tmp_path):
    from argparse import Namespace

    prompts, seed, size = ["a star", "a cat"], 11, 64
    theirs = diffusers_pictures(prompts, seed, size, size)
    how, sizes = Sampling(3, 5.0, rng="torch-cpu"), {"height": size, "width": size}
    bar, folder = progress_bar(Namespace(quiet=True), "eval"), str(tiny_folder("sd2"))
    given = {"model": folder, "device": "cpu", **sizes}
    asked = Request(prompts, str(tmp_path / "out"), how, seed, **given)
    paths = generate(asked, bar).written
    for path, want in zip(paths, theirs, strict=True):
        shown = np.asarray(Image.open(path), np.int64)
        expected = image.to_uint8(want.transpose(2, 0, 1)[None])[0].astype(np.int64)
        assert np.abs(shown - expected).max() <= 1 and np.mean(shown != expected) < 1e-3

    sd = tiny.make_ours("sd2")
    ours = sd.generate(prompts, seed, 3, 5.0, height=size, width=size, rng="torch-cpu").numpy()
    assert_close("pipeline image after 4 steps", ours.transpose(0, 2, 3, 1), theirs)
    recipe = Recipe(steps=3, guidance=5.0, rng="torch-cpu")
    painted = make_picture(sd, prompts[1], seed + 1, recipe, size).numpy()
    assert_close("pipeline image after 4 steps", painted.transpose(0, 2, 3, 1), theirs[1:])
