"""A toolkit of links for CUDA 13 and cuDNN 9: what is in it, and that start-up finds it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jstyle.commands import doctor
from jstyle.sd import cuda, cuda_shim

NVCC = """#!/bin/sh
case "$*" in --version) echo "Cuda compilation tools, release {release}, V{release}.1"; exit;; esac
[ -e "{root}/broken" ] && {{ echo "x.cu(1): error: no such thing" >&2; exit 1; }}
while [ "$1" != -o ]; do shift; done
exec g++ -shared -x c++ /dev/null -o "$2"
"""
OF_TOOLKIT = ("cuda_runtime.h", "cuda_fp16.h", "cccl/cub/cub.cuh", "cccl/cub/config.cuh")
OF_WHEELS = ("cublas.h", "curand.h", "cufft.h", "cusparse.h")


def make_image(root: Path, release: str = "13.0", cudnn: str = "9") -> Path:
    """A machine as today's images are: the toolkit without libraries, those in PyTorch's wheels."""
    toolkit, site = root / "cuda-13.0", root / "venv/lib/python3.12/site-packages/nvidia"
    major = release.partition(".")[0]
    files = {toolkit / "include" / name: name for name in OF_TOOLKIT}
    files |= {site / f"cu{major}/include" / name: name for name in OF_WHEELS}
    files |= {site / "cudnn/include/cudnn.h": '#include "cudnn_version.h"'}
    files |= {site / "cudnn/include/cudnn_version.h": f"#define CUDNN_MAJOR {cudnn}"}
    files |= {toolkit / "lib64/libcudart.so.13": ""}
    files |= {site / f"cu{major}/lib/lib{name}.so.{major}": "" for name in cuda.LIBRARIES}
    files |= {site / f"cudnn/lib/libcudnn{p}.so.{cudnn}": "" for p in ("", "_ops", "_cnn")}
    files |= {toolkit / "bin/nvcc": NVCC.format(release=release, root=root)}
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (toolkit / "bin/nvcc").chmod(0o755)
    (root / "venv/bin").mkdir(exist_ok=True)
    return toolkit / "bin/nvcc"


@pytest.fixture
def nvcc(tmp_path, monkeypatch):
    """The image's nvcc, the only one of this machine, with a GPU that CUDA 13 knows."""
    path = make_image(tmp_path)
    for name in ("nvcc_path", "JITTOR_HOME", "NVCC_APPEND_FLAGS", "NVCC_PREPEND_FLAGS", "cc_path"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cuda, "SYSTEM", tmp_path / "usr")
    monkeypatch.setattr(cuda, "TOOLKITS", str(tmp_path / "none"))
    monkeypatch.setattr(cuda, "find_driver", lambda: cuda.Driver(1, 13000, (90,)))
    monkeypatch.setattr(cuda, "candidates", only(cuda.candidates, tmp_path))
    monkeypatch.setattr("sys.path", [])
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    compiler = str(Path(shutil.which("g++")).parent)
    paths = [path.parent, tmp_path / "venv/bin", compiler]
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, paths)))
    return path


def only(candidates, root):
    """Not the toolkits of the machine that the tests run on."""
    return lambda: (path for path in candidates() if path.startswith(str(root)))


def test_before_the_mend_names_the_command_and_after_it_cuda_is_used(nvcc):
    before = cuda.find_cuda()
    assert not before.usable and "CUDA 13.0" in before.reason
    assert before.mend.startswith("`jstyle doctor --fix-cuda`")
    made, version = cuda_shim.fix()
    found = cuda.find_cuda()
    assert version == "13.0" and found.usable and found.nvcc == str(made), found
    assert "links to a newer one" in doctor._cuda().found


def test_it_says_a_version_that_jittor_takes_and_calls_the_real_compiler(nvcc, tmp_path):
    made, _ = cuda_shim.fix()
    assert cuda.version_of(str(made)) == (12, 9)
    (nvcc.parent / "real").write_text("")
    nvcc.write_text('#!/bin/sh\necho "$@"\n')
    done = subprocess.run([made, "-std=c++14", "a b.cu"], capture_output=True, text=True)
    assert done.stdout == "-std=c++14 a b.cu -std=c++17\n"


def test_own_headers_stand_in_front_and_the_real_ones_beside_them(nvcc):
    include = cuda_shim.fix()[0].parent.parent / "include"
    for name in ("cudnn.h", "cuda_runtime.h", "cub/cub.cuh"):
        own, real = include / name, include / name.replace(".", "_real.")
        assert own.read_text() == (cuda_shim.HEADERS / name).read_text() and not own.is_symlink()
        assert real.is_symlink() and f'#include "{real.name}"' in own.read_text()
    assert (include / "npp.h").read_text() == (cuda_shim.HEADERS / "npp.h").read_text()
    assert (include / "cub/config.cuh").is_symlink()


def test_a_real_npp_is_left_in_place(nvcc):
    (nvcc.parent.parent / "include/npp.h").write_text("real")
    include = cuda_shim.fix()[0].parent.parent / "include"
    assert (include / "npp.h").read_text() == "real"


def test_nothing_that_is_installed_is_changed(nvcc, tmp_path):
    def state():
        files = [p for p in tmp_path.rglob("*") if p.is_file() and "home" not in p.parts]
        return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in files}

    before = state()
    cuda_shim.fix()
    assert state() == before


def test_cudnn_9_with_cuda_12_is_mended_too_and_keeps_its_version(nvcc, tmp_path, monkeypatch):
    shutil.rmtree(tmp_path / "cuda-13.0")
    shutil.rmtree(tmp_path / "venv")
    make_image(tmp_path, release="12.4")
    made, version = cuda_shim.fix()
    assert version == "12.4" and cuda.version_of(str(made)) == (12, 4)
    assert cuda.find_cuda().usable


def test_what_is_missing_is_named_and_nothing_is_left(nvcc, tmp_path):
    next(tmp_path.rglob("libcufft.so.13")).unlink()
    next(tmp_path.rglob("cusparse.h")).unlink()
    with pytest.raises(cuda_shim.ShimError, match=r"lack cusparse.h, libcufft.so$"):
        cuda_shim.fix()
    assert list(cuda.shims().iterdir()) == []


def test_a_toolkit_that_does_not_compile_leaves_the_one_that_was_there(nvcc, tmp_path):
    made, _ = cuda_shim.fix()
    (tmp_path / "broken").write_text("")
    with pytest.raises(cuda_shim.ShimError, match="does not compile: x.cu.1.: error: no such"):
        cuda_shim.fix()
    assert made.is_file() and [p.name for p in cuda.shims().iterdir()] == [made.parts[-3]]


def test_another_cuda_s_wheels_are_not_mixed_in(nvcc, tmp_path):
    other = tmp_path / "venv/lib/python3.12/site-packages/nvidia/cu12/include"
    other.mkdir(parents=True)
    (other / "only_in_12.h").write_text("")
    include = cuda_shim.fix()[0].parent.parent / "include"
    assert not (include / "only_in_12.h").exists()


def test_the_wheels_of_a_python_behind_a_wrapper_are_found(nvcc, tmp_path):
    shutil.move(tmp_path / "venv", tmp_path / "elsewhere")
    (tmp_path / "venv/bin").mkdir(parents=True)
    python = tmp_path / "venv/bin/python3"
    site = tmp_path / "elsewhere/lib/python3.12/site-packages"
    python.write_text(f"#!/bin/sh\necho {site}\n")
    python.chmod(0o755)
    assert cuda_shim.fix()[0].is_file()


def test_where_there_is_nothing_to_mend_nothing_is_made(nvcc, monkeypatch, capsys):
    fine = cuda.Cuda("/x/nvcc", "12.2", True, "", "", 1)
    monkeypatch.setattr(doctor, "find_cuda", lambda: fine)
    doctor.fix_cuda()
    assert "usable as it is" in capsys.readouterr().err and not cuda.shims().exists()


def test_the_command_ends_with_one_line_where_there_is_no_toolkit(tmp_path):
    env = {k: v for k, v in os.environ.items() if k not in ("JITTOR_HOME", "nvcc_path")}
    env |= {"HOME": str(tmp_path), "nvcc_path": "/bin/echo"}
    words = [sys.executable, "-m", "jstyle", "doctor", "--fix-cuda"]
    done = subprocess.run(words, capture_output=True, text=True, env=env)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "/bin/echo --version names no version" in done.stderr


@pytest.mark.skipif(not Path("/usr/local/cuda-13.0/bin/nvcc").exists(), reason="no CUDA 13 here")
def test_a_real_cuda_13_and_cudnn_9_compile_link_and_load(tmp_path, monkeypatch):
    """Where a Python in PATH has their wheels; no GPU is needed."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("nvcc_path", "/usr/local/cuda-13.0/bin/nvcc")
    try:
        made, _ = cuda_shim.fix()
    except cuda_shim.ShimError as error:
        if " lack " in str(error):
            pytest.skip(str(error))
        raise
    assert cuda.version_of(str(made)) == (12, 9)
