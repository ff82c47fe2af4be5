"""Starting Jittor: what is decided before its import and what is put back after it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from jstyle.sd import cuda, runtime, toolchain
from jstyle.sd.startup import jt


def run(code: str, **env):
    """Run code in a fresh interpreter; the last line of stdout is JSON."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        check=False,
    )
    return result


def test_importing_jittor_leaves_the_process_as_it_was():
    code = """
import json, os, random, signal, ssl, sys
import numpy as np
random.seed(3); np.random.seed(4)
context = ssl._create_default_https_context
interrupt, child = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGCHLD)
from jstyle.sd.startup import jt
import jittor_utils
print(json.dumps({
    "python": random.random(), "numpy": np.random.rand(),
    "tls": ssl._create_default_https_context is context,
    "sigint": signal.getsignal(signal.SIGINT) is interrupt,
    "sigchld": signal.getsignal(signal.SIGCHLD) == child,
    "torch": "torch" in sys.modules, "silent": jittor_utils.LOG.log_silent,
    "cache": jt.flags.cache_path.rstrip("/").split("/")[-1],
}))
"""
    import random

    import numpy as np

    result = run(code)
    found = json.loads(result.stdout.strip().splitlines()[-1])
    assert found == {
        "python": random.Random(3).random(),
        "numpy": np.random.RandomState(4).rand(),
        "tls": True,
        "sigint": True,
        "sigchld": True,
        "torch": False,
        "silent": 0,
        "cache": "jstyle",
    }


@pytest.mark.skipif(platform.machine() != "x86_64", reason="of x86-64's SSE")
def test_denormal_numbers_are_0_before_and_after_kernels_are_loaded():
    code = """
import json, warnings
import numpy as np
from jstyle.sd.startup import jt
small = np.full(100_000, 1e-20, np.float32)
found = [small * small]
found += [(jt.array(small) * jt.array(small)).numpy(), small * small]
warnings.simplefilter("error")
np.finfo(np.float32), np.finfo(np.float64)
print(json.dumps([float(np.abs(product).max()) for product in found]))
"""
    assert run(code).stdout.strip().splitlines()[-1] == "[0.0, 0.0, 0.0]"


def test_an_interrupt_during_work_is_an_ordinary_keyboard_interrupt():
    code = """
import os, signal
from jstyle.sd.startup import jt
try:
    os.kill(os.getpid(), signal.SIGINT)
    jt.ones(10).sum().item()
except KeyboardInterrupt:
    print("caught")
"""
    assert run(code).stdout.split() == ["caught"]


def test_an_unwritable_home_is_named_with_the_mend(tmp_path):
    home = tmp_path / "file"
    home.write_text("not a folder")
    result = run("import jstyle.sd.startup", HOME=str(home), JITTOR_HOME="")
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert str(home) in last and "set HOME to a folder that can be written" in last


def test_a_renewed_core_asks_to_run_again_instead_of_ending_as_if_done(tmp_path):
    (tmp_path / "jittor.py").write_text("import sys\nsys.exit(0)\n")
    result = run("import jstyle.sd.startup", PYTHONPATH=f"{tmp_path}:{os.getcwd()}")
    assert result.returncode == 1
    assert result.stderr.strip().endswith("run the command again")


def python_config(folder: Path) -> Path:
    path = folder / "bin" / f"{toolchain.PYTHON}-config"
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    return path


def test_a_virtual_environment_takes_the_headers_of_the_python_it_was_made_from(
    tmp_path, monkeypatch
):
    monkeypatch.delenv("python_config_path", raising=False)
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "base"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "bin" / "python"))
    monkeypatch.setattr(toolchain, "SYSTEM_BINS", (str(tmp_path / "system" / "bin"),))
    assert "python_config_path" in toolchain.compiler_problem()
    system = python_config(tmp_path / "system")
    assert toolchain.python_config() == str(system)
    own = python_config(tmp_path / "base")
    assert toolchain.python_config() == str(own) and toolchain.compiler_problem() == ""
    monkeypatch.setenv("python_config_path", str(system))
    assert toolchain.python_config() == str(system)


def test_a_lone_nvcc_does_not_make_a_cuda_build(tmp_path):
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 12.2, V12.2.140'\n")
    nvcc.chmod(0o755)
    code = "import os; from jstyle.sd.startup import jt; print(repr(os.environ['nvcc_path']))"
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    if cuda.find_cuda().usable:
        pytest.skip("this machine has a CUDA toolkit that works")
    assert run(code, **env).stdout.strip() == "''"


def system_onednn(root: Path, major: int) -> None:
    (root / "include").mkdir(parents=True)
    (root / "lib").mkdir()
    (root / "include" / "dnnl.hpp").write_text("")
    (root / "include" / "dnnl_version.h").write_text(f"#define DNNL_VERSION_MAJOR {major}\n")
    (root / "lib" / "libdnnl.so").write_text("")


def test_a_system_onednn_2_is_laid_out_for_jittor_and_a_3_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "nowhere"))
    cache = tmp_path / "cache"
    system_onednn(tmp_path / "three", 3)
    monkeypatch.setenv("DNNL_ROOT", str(tmp_path / "three"))
    assert toolchain.find_onednn(cache).library != str(tmp_path / "three/lib/libdnnl.so")

    system_onednn(tmp_path / "two", 2)
    monkeypatch.setenv("DNNL_ROOT", str(tmp_path / "two"))
    found = toolchain.find_onednn(cache)
    assert found.kind == "system"
    toolchain.link_onednn(found, cache)
    folder = cache / "mkl" / toolchain.ONEDNN_FOLDER
    assert (folder / "lib" / "libmkldnn.so").resolve() == (tmp_path / "two/lib/libdnnl.so")
    assert (folder / "include" / "dnnl.hpp").is_file()
    assert toolchain.find_onednn(cache).kind == "unpacked"


def test_use_restores_the_device_and_refuses_what_is_not_there():
    before = jt.flags.use_cuda
    with runtime.use("cpu"):
        assert runtime.device() == "cpu"
    assert jt.flags.use_cuda == before
    with pytest.raises(ValueError, match="cpu, cuda or auto, got 'tpu'"), runtime.use("tpu"):
        pass
    if not jt.has_cuda:
        with pytest.raises(ValueError, match="not available"), runtime.use("cuda"):
            pass


def test_jittor_home_is_used_and_nothing_remembers_it(tmp_path):
    before = os.environ.get("JITTOR_HOME") or str(Path.home())
    code = "from jstyle.sd.startup import jt; print(jt.compiler.cache_path)"
    found = run(code, HOME=str(tmp_path), JITTOR_HOME=before).stdout.split()[-1]
    assert found.startswith(before)
    assert not (tmp_path / ".cache" / "jittor" / "config.json").exists()


def test_a_home_that_jittor_remembers_is_known(tmp_path, monkeypatch):
    from jstyle.sd import toolchain

    (tmp_path / ".cache" / "jittor").mkdir(parents=True)
    (tmp_path / ".cache" / "jittor" / "config.json").write_text('{"JITTOR_HOME": "/elsewhere"}')
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("JITTOR_HOME", raising=False)
    assert str(toolchain.cache_root()) == "/elsewhere/.cache/jittor"
    monkeypatch.setenv("JITTOR_HOME", str(tmp_path / "own"))
    assert toolchain.cache_root() == tmp_path / "own" / ".cache" / "jittor"
