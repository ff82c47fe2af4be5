"""The stand-in for nvcc where there is no device: what it makes of sources and arguments."""

from __future__ import annotations

import ctypes
import shlex
import subprocess

import numpy as np
import pytest

from tests.cuda import laboratory, make, nvcc


@pytest.mark.parametrize(
    "source, called",
    [
        ("go<<<2, 3>>>(a, b);", "cuemu::launch([&](auto... a_) { go(a_...); }, 2, 3)(a, b);"),
        (
            "x::go<int, f<2>> <<<grid(1), n, 0, s>>>(a);",
            "cuemu::launch([&](auto... a_) { x::go<int, f<2>> (a_...); }, grid(1), n, 0, s)(a);",
        ),
        ("a << b; c >> d;", "a << b; c >> d;"),
    ],
)
def test_launches_become_calls(source, called):
    assert nvcc.rewrite_launches(source) == called


def test_arguments_for_the_gpu_are_dropped():
    words = (
        'in.cc -o out.so -x cu -std=c++14 -Xcompiler -fPIC -ccbin="/usr/bin/g++" --use_fast_math '
        '-I"/a b" -arch=compute_90 -code=sm_90 -O3 -lcudart'
    )
    found = nvcc.parse(shlex.split(words))
    assert found.source == "in.cc" and found.output == "out.so"
    assert found.flags == ["-std=c++14", "-fPIC", "-I/a b", "-lcudart"]


def test_it_calls_itself_what_jittor_and_doctor_read():
    assert "release 11.8" in nvcc.VERSION


def test_where_it_is_missing_the_command_that_makes_it_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv(laboratory.VARIABLE, str(tmp_path / "none"))
    assert "python -m tests.cuda.make" in laboratory.missing()


def test_the_users_own_cache_is_left_alone(monkeypatch, tmp_path):
    monkeypatch.setenv(laboratory.VARIABLE, str(tmp_path))
    for name in laboratory.DECIDED:
        monkeypatch.setenv(name, "/somewhere")
    env = laboratory.environment()
    assert env["HOME"] == str(tmp_path / "home") and not set(laboratory.DECIDED) & set(env)


def test_a_wheel_that_is_not_there_is_one_line_and_exit_code_1(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(laboratory.VARIABLE, str(tmp_path / "device"))
    (tmp_path / "wheels").mkdir()
    assert make.main(["--wheels", str(tmp_path / "wheels")]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "no nvidia_cuda_runtime_cu11-*.whl" in said[0]
    assert laboratory.missing()


def test_the_device_s_own_sources_compile_where_cuda_headers_are(tmp_path):
    include = laboratory.folder() / "toolkit" / "include"
    if not include.is_dir():
        pytest.skip(laboratory.missing())
    for source in (make.HERE / "device").glob("*.cpp"):
        command = ["g++", "-std=c++17", "-fsyntax-only", "-w", f"-I{include}", str(source)]
        assert subprocess.run(command).returncode == 0, source


KERNELS = make.HERE / "without_toolkit"


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """kernels.cu, compiled by the stand-in; no toolkit and no Jittor are needed for it."""
    library = tmp_path_factory.mktemp("kernels") / "kernels.so"
    words = [str(KERNELS / "kernels.cu"), "-o", str(library), "-shared", "-Xcompiler", "-fPIC"]
    assert nvcc.main([*words, f"-I{KERNELS}", "-std=c++14", "-arch=sm_90", "--use_fast_math"]) == 0
    return ctypes.CDLL(str(library))


def run(function, *arrays, n=None):
    """Call it with these arrays, and with n at the end."""
    function(*(a.ctypes.data_as(ctypes.c_void_p) for a in arrays), *([] if n is None else [n]))


def test_every_thread_of_every_block_runs_once(kernels):
    out, before = np.zeros((12, 24), np.int32), (kernels.launched(), kernels.started())
    run(kernels.run_places, out)
    np.testing.assert_array_equal(out, 1000 * np.arange(12)[:, None] + np.arange(24))
    assert (kernels.launched() - before[0], kernels.started() - before[1]) == (1, 288)


def test_threads_wait_for_each_other_at_a_barrier(kernels):
    rows = np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32)
    out = np.full_like(rows, np.nan)
    run(kernels.run_reversed, rows, out)
    np.testing.assert_array_equal(out, rows[:, ::-1])


def test_shuffles_stay_within_their_warp(kernels):
    values = np.random.default_rng(1).integers(-99, 99, 96).astype(np.int32)
    down, exchanged, first = np.zeros(3, np.int32), *np.zeros((2, 96), np.int32)
    run(kernels.run_warp_sums, values, down, exchanged, first)
    warps = values.reshape(3, 32)
    np.testing.assert_array_equal(down, warps.sum(1))
    np.testing.assert_array_equal(exchanged, warps.sum(1).repeat(32))
    np.testing.assert_array_equal(first, warps[:, 0].repeat(32))


def test_a_block_is_summed_and_atomics_count(kernels):
    rng = np.random.default_rng(2)
    values, total = rng.integers(-9, 9, 1000).astype(np.float32), np.zeros(1, np.float32)
    run(kernels.run_block_sum, values, total, n=1000)
    assert total[0] == values.sum()
    places, bins = rng.integers(0, 7, 500).astype(np.int32), np.zeros(7, np.int32)
    run(kernels.run_counted, places, bins, n=500)
    np.testing.assert_array_equal(bins, np.bincount(places, minlength=7))


def test_half_precision_is_rounded_after_every_operation(kernels):
    values = np.random.default_rng(3).standard_normal(64).astype(np.float32)
    out, half = np.zeros(64, np.float32), values.astype(np.float16)
    run(kernels.run_in_half, values, out)
    np.testing.assert_array_equal(out, (half * half + np.float16(1)).astype(np.float32))
    assert not np.array_equal(out, (half.astype(np.float32) ** 2 + 1).astype(np.float16))
