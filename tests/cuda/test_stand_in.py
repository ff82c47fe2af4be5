"""The stand-in for nvcc where there is no device: what it makes of sources and arguments."""

from __future__ import annotations

import shlex
import subprocess

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
