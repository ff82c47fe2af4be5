"""What Jittor needs of CUDA: each requirement that is not met is named, with what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jstyle.commands import doctor
from jstyle.sd import cuda, runtime, toolchain
from jstyle.sd.startup import jt

DRIVER = cuda.Driver(1, 12040, (86,))


def make_toolkit(root: Path, release: str = "12.2", cudnn: int = 8, gcc: int = 99) -> Path:
    """All that Jittor asks for, as files, in root; returns nvcc."""
    nvcc = root / "bin" / "nvcc"
    for folder in ("bin", "include/cub", "include/crt", "lib64"):
        (root / folder).mkdir(parents=True)
    nvcc.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}.1'\n")
    nvcc.chmod(0o755)
    for name in (*cuda.HEADERS, "cudnn.h"):
        (root / "include" / name).write_text("")
    (root / "include/cudnn_version.h").write_text(f"#define CUDNN_MAJOR {cudnn}\n")
    (root / "include/crt/host_config.h").write_text(f"#if __GNUC__ > {gcc}\n#error\n#endif\n")
    for name in ("cudart", *cuda.LIBRARIES, *cuda.CUDNN_LIBRARIES):
        (root / "lib64" / f"lib{name}.so").write_text("")
    return nvcc


@pytest.fixture
def nvcc(tmp_path, monkeypatch):
    """A toolkit that is usable, the only one of this machine, with a driver and nothing else."""
    monkeypatch.setattr(cuda, "SYSTEM", tmp_path / "usr")
    monkeypatch.setattr(cuda, "TOOLKITS", str(tmp_path / "cuda-*" / "bin" / "nvcc"))
    monkeypatch.setattr(cuda, "find_driver", lambda: DRIVER)
    monkeypatch.delenv("NVCC_APPEND_FLAGS", raising=False)
    monkeypatch.delenv("NVCC_PREPEND_FLAGS", raising=False)
    monkeypatch.delenv("cc_path", raising=False)
    path = make_toolkit(tmp_path / "toolkit")
    monkeypatch.setenv("nvcc_path", str(path))
    return path


def test_a_toolkit_with_everything_is_used(nvcc):
    assert cuda.find_cuda() == cuda.Cuda(str(nvcc), "12.2", True, "", "", 1)


@pytest.mark.parametrize("name", [*cuda.HEADERS, *cuda.LIBRARIES, "cudart"])
def test_a_missing_file_of_the_toolkit_is_named(nvcc, name):
    root = nvcc.parent.parent
    name, folder = (name, "include") if "." in name else (f"lib{name}.so", "lib64")
    (root / folder / name).unlink()
    found = cuda.find_cuda()
    assert not found.usable and found.reason == f"the toolkit in {root} lacks {name}"
    assert found.mend == cuda.WHOLE_TOOLKIT


def test_everything_that_is_missing_is_named_at_once(nvcc):
    root = nvcc.parent.parent
    for path in ("include/npp.h", "include/curand.h", "lib64/libcusparse.so", "include/cudnn.h"):
        (root / path).unlink()
    found = cuda.find_cuda()
    assert "lacks curand.h, npp.h, libcusparse.so; cuDNN 8's cudnn.h" in found.reason
    assert "whole toolkit" in found.mend and f"into {root}" in found.mend


@pytest.mark.parametrize("name", cuda.CUDNN_LIBRARIES)
def test_a_missing_library_of_cudnn_is_named(nvcc, name):
    (nvcc.parent.parent / "lib64" / f"lib{name}.so").unlink()
    found = cuda.find_cuda()
    assert found.reason == f"cuDNN 8 lacks lib{name}.so" and "cuDNN 8" in found.mend


def test_cudnn_9_is_named(nvcc):
    (nvcc.parent.parent / "include/cudnn_version.h").write_text("#define CUDNN_MAJOR 9\n")
    found = cuda.find_cuda()
    assert found.reason.startswith("cuDNN 9 in ") and "needs cuDNN 8" in found.reason


def test_conda_s_folders_are_not_where_jittor_looks(nvcc):
    root = nvcc.parent.parent
    (root / "lib64").rename(root / "lib")
    assert "libcudart.so" in cuda.find_cuda().reason


def test_a_compiler_too_new_for_nvcc_is_named_unless_the_check_is_off(nvcc, monkeypatch):
    (nvcc.parent.parent / "include/crt/host_config.h").write_text("#if __GNUC__ > 4\n")
    found = cuda.find_cuda()
    assert "is newer than this nvcc takes (up to 4)" in found.reason
    assert "cc_path=g++-4" in found.mend
    monkeypatch.setenv("NVCC_APPEND_FLAGS", "-O1 -allow-unsupported-compiler")
    assert cuda.find_cuda().usable


@pytest.mark.parametrize(
    "driver, release, words",
    [
        (cuda.Driver(1, 11080, (86,)), "12.2", "the driver runs CUDA up to 11.8"),
        (cuda.Driver(1, 12040, (90,)), "11.4", "sm_90, and Jittor compiles for sm_86 at most with"),
        (cuda.Driver(2, 12080, (90, 120)), "12.8", "the GPU is an sm_120"),
        (cuda.Driver(1, 13000, (90,)), "13.0", "CUDA 13.0 (Jittor supports up to 12)"),
    ],
)
def test_a_gpu_or_driver_that_does_not_fit_is_named(
    nvcc, tmp_path, monkeypatch, driver, release, words
):
    monkeypatch.setattr(cuda, "find_driver", lambda: driver)
    monkeypatch.setenv("nvcc_path", str(make_toolkit(tmp_path / "other", release)))
    found = cuda.find_cuda()
    assert not found.usable and words in found.reason and found.mend


@pytest.mark.parametrize("capability, release", [(75, "11.0"), (89, "11.4"), (90, "11.8")])
def test_a_kernel_of_the_same_generation_runs(nvcc, tmp_path, monkeypatch, capability, release):
    monkeypatch.setattr(cuda, "find_driver", lambda: cuda.Driver(1, 12040, (capability,)))
    monkeypatch.setenv("nvcc_path", str(make_toolkit(tmp_path / "other", release)))
    assert cuda.find_cuda().usable


def test_a_usable_toolkit_is_preferred_to_the_one_in_path(nvcc, tmp_path, monkeypatch):
    monkeypatch.delenv("nvcc_path")
    newer = make_toolkit(tmp_path / "newer", "13.0")
    monkeypatch.setenv("PATH", str(newer.parent), prepend=os.pathsep)
    assert cuda.find_cuda().version == "13.0"
    older = make_toolkit(tmp_path / "cuda-12.2")
    assert cuda.find_cuda() == cuda.Cuda(str(older), "12.2", True, "", "", 1)


def test_jittors_own_toolkit_is_found(nvcc, tmp_path, monkeypatch):
    monkeypatch.delenv("nvcc_path")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("JITTOR_HOME", str(tmp_path / "home"))
    own = make_toolkit(tmp_path / "home/.cache/jittor/jtcuda/cuda12.2_cudnn8_linux")
    assert str(own) in [found for found in cuda.candidates()]


def test_without_a_gpu_nothing_is_a_fault(nvcc, monkeypatch):
    monkeypatch.setattr(cuda, "find_driver", lambda: cuda.Driver(0))
    found = cuda.find_cuda()
    assert found.reason == "no CUDA driver with a device" and found.mend == ""
    assert doctor._cuda().state == doctor.OK


def test_the_doctor_names_what_a_gpu_lacks_and_the_mend(nvcc):
    (nvcc.parent.parent / "include/npp.h").unlink()
    check = doctor._cuda()
    assert check.state == doctor.SLOW and "lacks npp.h" in check.found and check.mend


def core_in(root: Path, name: str) -> None:
    import hashlib
    import importlib.util
    import sysconfig

    origin = importlib.util.find_spec("jittor_utils").origin
    place = hashlib.md5(origin.encode()).hexdigest()[:4]
    folder = root / ".cache/jittor/jt1/g++12/py3/Linux/cpu" / place / name
    folder.mkdir(parents=True)
    (folder / f"jittor_core{sysconfig.get_config_var('EXT_SUFFIX')}").write_text("")


def test_a_core_for_cuda_is_another_than_the_cpu_s(nvcc, tmp_path, monkeypatch):
    monkeypatch.setenv("JITTOR_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("cache_name", raising=False)
    core_in(tmp_path / "home", toolchain.CPU_CACHE)
    assert not toolchain.is_compiled()
    core_in(tmp_path / "home", f"{toolchain.CUDA_CACHE}/cu11.8.1_sm_86")
    assert not toolchain.is_compiled()
    core_in(tmp_path / "home", f"{toolchain.CUDA_CACHE}/cu12.2.1_sm_86")
    assert toolchain.is_compiled()
    monkeypatch.setenv("nvcc_path", "")
    assert toolchain.is_compiled()


def test_a_gpu_that_is_left_alone_is_told_once_in_one_line(tmp_path):
    code = """
import os, sys
from jstyle.sd import cuda
cuda.find_driver = lambda: cuda.Driver(1, 12040, (90,))
cuda.candidates = lambda: ["/bin/echo"]
import jstyle.sd.startup
print(os.environ["nvcc_path"], os.environ["cache_name"])
"""
    env = {k: v for k, v in os.environ.items() if k not in ("nvcc_path", "cache_name")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout.split() == [toolchain.CPU_CACHE], done.stderr
    told = [line for line in done.stderr.splitlines() if "GPU" in line]
    assert len(told) == 1 and "names no version; mend: " in told[0]


def test_asking_for_cuda_where_it_is_not_says_why(nvcc):
    if jt.has_cuda:
        pytest.skip("CUDA is here")
    (nvcc.parent.parent / "include/npp.h").unlink()
    with pytest.raises(ValueError, match="not available here: .* lacks npp.h .*doctor"):
        with runtime.use("cuda"):
            pass
