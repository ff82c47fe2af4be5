"""PyTorch's generators without PyTorch: integer streams and published values, and the option."""

from __future__ import annotations

import numpy as np
import pytest

from jdreambooth.recipe import Recipe
from jstyle.sd.noise import gaussian
from jstyle.sd.rng import RNGS, mersenne
from jstyle.sd.rng.torch_cpu import TorchCPU
from jstyle.sd.rng.torch_cuda import GPU, TorchCUDA, philox

# Random123, tests/kat_vectors: counter, key, result of "philox4x32 10"
# https://github.com/DEShawResearch/random123/blob/9545ff6413f258be2f04c1d319d99aaef7521150
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip
H100, A100, A6000 = GPU(132, 2048), GPU(108, 2048), GPU(84, 1536)
A4000, T4, L4 = GPU(48, 1536), GPU(40, 1024), GPU(58, 1536)
LONG = 49 * 12 * 112 * 144  # elements: 9.4 grids of an H100, 11.5 of an A100
# Printed by torch.randn or normal_ on a GPU, four decimals: seed, GPU, elements of the tensor,
# (mean, deviation), where in the tensor, values
PUBLISHED = {
    # https://github.com/pytorch/pytorch/issues/143086
    "H100": (1, H100, LONG, (0, 1), (0, 1, 2, LONG - 3, LONG - 2, LONG - 1),
             (-0.2963, 2.6764, -0.1408, -0.6970, -0.7780, 0.3267)),
    "A100": (1, A100, LONG, (0, 1), (0, 1, 2, LONG - 3, LONG - 2, LONG - 1),
             (-0.2963, 2.6764, -0.1408, 0.1549, -0.6797, -0.1656)),
    # https://github.com/pytorch/pytorch/issues/62467
    "A6000": (43, A6000, 49152, (0, 1), (0, 16384, 32768), (1.9983, 0.8704, 2.1127)),
    # https://github.com/pytorch/pytorch/issues/97097
    "A4000": (14, A4000, 100000, (5, 5**0.5),
              (0, 1, 2, 97, 98, 99, 99700, 99701, 99702, 99997, 99998, 99999),
              (2.8731, 5.2727, 2.9889, 1.6853, 9.6331, 6.6319,
               8.6297, 2.3137, 6.2596, 8.2207, 6.5395, 4.2604)),
    # https://github.com/pytorch/pytorch/issues/158398, the rows that all devices share
    "any": (42, None, 131072, (0, 1), (0, 1, 2, 2045, 2046, 2047, 4096, 6143),
            (0.1940, 2.1614, -0.1721, 1.4540, -2.7733, -0.8932, 1.1346, -0.6955)),
    # expected output in modules/rng_philox.py of AUTOMATIC1111/stable-diffusion-webui
    "3 x 4": (0, None, 12, (0, 1), range(12),
              (-0.9247, -0.4253, -2.6438, 0.1452, -0.1209, -0.5797, -0.6229, -0.3284,
               -1.0745, -0.3631, -1.6711, 2.2655)),
}  # fmt: skip


def words(text):
    return np.array([int(word, 16) for word in text.split()], np.uint64)


@pytest.mark.parametrize("counter, key, expected", KNOWN)
def test_philox_gives_the_known_answers(counter, key, expected):
    counters = np.stack([np.zeros(4, np.uint64), words(counter)], 1)
    np.testing.assert_array_equal(philox(counters, words(key))[:, 1], words(expected))


@pytest.mark.parametrize("name", PUBLISHED)
def test_cuda_noise_is_what_was_published_for_a_device(name):
    seed, gpu, size, (mean, deviation), where, expected = PUBLISHED[name]
    drawn = mean + deviation * TorchCUDA(seed, gpu).elements(np.array(where), size)
    np.testing.assert_allclose(drawn, expected, rtol=0, atol=5.1e-5 + 2e-6)


def test_devices_part_where_the_smaller_one_has_no_more_threads():
    # T4 and L4 agree up to 40,960 elements, https://github.com/pytorch/pytorch/issues/194676
    assert (T4.threads, L4.threads) == (40960, 89088)
    for size, same in ((40960, True), (40961, False)):
        t4, l4 = (TorchCUDA(3, gpu).randn((size,)) for gpu in (T4, L4))
        assert np.array_equal(t4, l4) == same
        np.testing.assert_array_equal(t4[:40960], l4[:40960])


def test_a_cuda_generator_goes_on_where_it_stopped():
    small, generator = GPU(1, 512), TorchCUDA(3, GPU(1, 512))
    drawn = [generator.randn((n,)) for n in (5, 2049, 3)]
    assert generator.offset == 4 + 8 + 4  # a counter per four draws of a thread
    expected = TorchCUDA(3, small)
    expected.offset = 12
    np.testing.assert_array_equal(drawn[2], expected.randn((3,)))
    assert np.abs(drawn[0][:3] - drawn[2]).max() > 0.1


def test_half_precision_on_cuda_is_the_same_noise_rounded():
    full, half = (gaussian((40, 5), 3, f"torch-cuda{kind}") for kind in ("", ":float16"))
    np.testing.assert_array_equal(half, full.astype(np.float16))
    with pytest.raises(ValueError, match="float16 or float32, got 'float64'"):
        TorchCUDA(0).randn((3,), "float64")


def test_the_twister_gives_the_published_numbers():
    # the 10,000th of the default seed, C++ standard [rand.predef]: mt19937
    assert mersenne.engine(5489).random_raw(10_000)[-1] == 4123659995
    # only 32 bits of a seed are taken
    a, b = (mersenne.engine(seed).random_raw(700) for seed in (7, 7 + 2**32))
    np.testing.assert_array_equal(a, b)


def test_cpu_noise_is_what_was_published():
    # torch.manual_seed(0); torch.randn(16) without AVX2, as float32 bits: what an Apple M1 gave
    # according to the tests of vokra_core::rng::torch_randn_f32
    bits = """bf901b85 bf93808a be804bd6 bede255e 3f594515 3f312784 bea1cc6d c0075fc2
              3ea50138 bfa1b4f4 3eb330ff 3e9dc3ba 3df56f77 3f9e6b93 3f8ef28e be7d365a"""
    drawn = TorchCPU(0, avx2=False).randn((16,)).view(np.uint32).astype(np.int64)
    assert np.abs(drawn - words(bits).astype(np.int64)).max() <= 2
    # torch.manual_seed(0); torch.randn(3): drawn one by one
    np.testing.assert_allclose(TorchCPU(0).randn((3,)), [1.5410, -0.2934, -2.1788], atol=5.1e-5)


def test_fewer_than_sixteen_numbers_are_drawn_in_pairs_of_which_one_waits():
    one, other = TorchCPU(1), TorchCPU(1)
    both = np.concatenate([one.randn((3,)), one.randn((2, 2))], axis=None)
    np.testing.assert_array_equal(both, other.randn((7,)))


@pytest.mark.parametrize("rng", RNGS)
def test_noise_of_every_source_is_a_function_of_seed_and_shape(rng):
    a = gaussian((2, 4, 30, 50), 7, rng)
    assert a.dtype == np.float32 and a.shape == (2, 4, 30, 50)
    np.testing.assert_array_equal(a, gaussian([2, 4, 30, 50], 7, rng))
    assert abs(a.mean()) < 0.03 and abs(a.std() - 1) < 0.03
    for other in (gaussian(a.shape, 8, rng), *(gaussian(a.shape, 7, r) for r in RNGS if r != rng)):
        assert np.abs(a - other).max() > 1e-4


@pytest.mark.parametrize("rng", ["torch", "numpy:float16", "torch-cpu:float64", ""])
def test_another_source_is_refused_with_what_is_allowed(rng):
    message = f"rng must be one of numpy, torch-cpu, torch-cuda, .*got '{rng}'"
    with pytest.raises(ValueError, match=message):
        gaussian((3,), 0, rng)
    with pytest.raises(ValueError, match=message):
        Recipe(rng=rng)


def test_every_painter_of_the_trainer_takes_the_option():
    from jdreambooth.config import TrainConfig
    from jdreambooth.session import Session
    from jdreambooth.verdict import PickConfig

    assert PickConfig(rng="torch-cpu").recipe().rng == "torch-cpu"
    given = {"instance_prompt": "a {stem}", "sample_prompts": "a star", "rng": "torch-cuda"}
    cfg = TrainConfig("pictures", "run", **given)
    assert Session(cfg, None)._sampler().recipe.rng == "torch-cuda"
    with pytest.raises(ValueError, match="rng must be one of numpy, torch-cpu, torch-cuda"):
        TrainConfig("pictures", "run", instance_prompt="a", rng="torch")


def test_the_command_refuses_another_source_before_anything_starts(tmp_path):
    from jstyle.commands.generate import Request, generate
    from jstyle.sd.samplers.options import Sampling

    with pytest.raises(ValueError, match="rng must be one of numpy, torch-cpu, torch-cuda"):
        generate(Request(["a star"], str(tmp_path / "out"), Sampling(rng="cuda")), bar=None)
    assert not (tmp_path / "out").exists()


def test_a_seed_that_pytorch_does_not_take_is_refused():
    with pytest.raises(ValueError, match=r"seed must be in 0..18446744073709551615 .*got -1"):
        gaussian((3,), -1, "torch-cpu")
    with pytest.raises(ValueError, match="got 18446744073709551616"):
        gaussian((3,), 2**64, "torch-cuda")
    with pytest.raises(ValueError, match="float16, float32, float64, got 'int8'"):
        TorchCPU(0).randn((3,), "int8")
