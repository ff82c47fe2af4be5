"""Operations find their groups, and the CUDA check says so where there is no CUDA."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import cuda_check, profile, run
from jstyle.config import StyleConfig
from jstyle.pipeline import JStyleID
from jstyle.sd.cuda import Cuda
from jstyle.sd.pipeline import StableDiffusion


def test_every_operation_of_a_stylisation_has_a_group():
    styler = JStyleID(StableDiffusion.from_pretrained("tiny"))
    picture = np.random.default_rng(0).uniform(-1, 1, (1, 3, 64, 64)).astype(np.float32)
    cfg = StyleConfig(steps=1, size_px=64)
    lines = profile.profile_ours(lambda: styler.stylize(picture, picture, cfg).numpy())
    found = profile.by_group(lines, profile.OURS)
    assert sum(found.values()) == pytest.approx(sum(seconds for _, seconds in lines))
    assert all(found[group] > 0 for group in profile.GROUPS if group != "other")
    named = {name: profile.group_of(name, profile.OURS) for name, _ in lines}
    groups = list(named.values())
    assert "other" not in [group for name, group in named.items() if "reduce" not in name]
    assert groups.count("attention") == 2  # causal and not
    assert groups.count("convolution") >= 3  # oneDNN's, patches, points
    assert groups.count("norms") == 3  # with SiLU, without, of layers


@pytest.mark.parametrize(
    "name, group",
    [
        ("aten::mkldnn_convolution", "convolution"),
        ("aten::addmm", "linear"),
        ("aten::bmm", "attention"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("aten::native_group_norm", "norms"),
        ("aten::silu", "elementwise"),
        ("aten::cat", "copies"),
        ("aten::empty", "other"),
    ],
)
def test_pytorchs_operations_have_groups(name, group):
    assert profile.group_of(name, profile.TORCH) == group


def test_the_profile_as_a_table():
    found = {"ours": dict.fromkeys(profile.GROUPS, 0.001), "torch": {"convolution": 0.002}}
    found["torch"] = dict.fromkeys(profile.GROUPS, 0.0) | found["torch"]
    lines = profile.as_text(found).splitlines()
    assert lines[0] == "| group | ours, ms | torch, ms |"
    assert lines[2] == "| convolution | 1 | 2 |" and lines[-1] == "| sum | 7 | 2 |"


def test_without_cuda_the_check_says_why_in_one_line(monkeypatch, capsys, tmp_path):
    none = Cuda("", "", False, "no nvcc was found")
    monkeypatch.setattr(cuda_check, "find_cuda", lambda: none)
    assert cuda_check.main(["--out", str(tmp_path)]) == 1
    assert capsys.readouterr().out == "CUDA cannot be used here: no nvcc was found\n"
    assert list(tmp_path.iterdir()) == []


def test_disagreement_fails_and_what_is_late_is_not_measured(monkeypatch, capsys):
    small = run.SIZES["tiny"]
    checks = list(cuda_check.plan(small, None, "cpu"))[:3]
    values = iter([1.0, 1.0, 1.0, 1.0, 1.0, 1.01])  # per check: ours on CUDA, the CPU, PyTorch
    clock = iter([0.0] * 8)  # asked before each check and each side; then it is too late

    def turn(words, threads, timeout):
        np.save(words["result"], np.array([next(values)]))
        return {"times": [0.5], "first": 1.0, "peak_mib": 1.0, "ready_mib": 1.0}

    monkeypatch.setattr(cuda_check.run, "take_turn", turn)
    monkeypatch.setattr(cuda_check, "monotonic", lambda: next(clock, 99.0))
    done = cuda_check.run_all(checks, deadline=50.0)
    assert [c["agrees"] for c in done.checks] == [True, False]
    assert done.failed == ["small text"] and done.not_measured == ["small unet"]
    assert "0.0e+00 to ours cpu float32, 9.9e-03 to torch cpu" in capsys.readouterr().out


def test_without_pytorch_cuda_is_compared_with_the_cpu(monkeypatch, capsys, tmp_path):
    def turn(words, threads, timeout):
        if words["side"] == "torch":
            raise run.TurnError("No module named 'torch'")
        np.save(words["result"], np.array([1.0]))
        return {"times": [0.5], "first": 1.0, "peak_mib": 1.0, "ready_mib": 1.0}

    def no_torch(code, timeout):
        raise run.TurnError("ModuleNotFoundError: No module named 'torch'")

    monkeypatch.setattr(cuda_check.run, "take_turn", turn)
    monkeypatch.setattr(cuda_check, "_python", no_torch)
    assert cuda_check._torch_device() == ""
    assert "not compared with PyTorch" in capsys.readouterr().out
    small = run.SIZES["tiny"]
    check = next(iter(cuda_check.plan(small, None, "")))
    assert [side for side, _ in check.against] == ["ours"]
    found = cuda_check.run_check(check, tmp_path, cuda_check.monotonic() + 60)
    assert found["agrees"] and found["agreement"] == {"ours cpu float32": 0.0}


def test_a_side_that_fails_leaves_the_others_results(monkeypatch, capsys):
    def turn(words, threads, timeout):
        if words["side"] == "torch":
            raise run.TurnError("it broke")
        np.save(words["result"], np.array([1.0]))
        return {"times": [0.5], "first": 1.0, "peak_mib": 1.0, "ready_mib": 1.0}

    monkeypatch.setattr(cuda_check.run, "take_turn", turn)
    checks = list(cuda_check.plan(run.SIZES["tiny"], None, "cpu"))[:1]
    done = cuda_check.run_all(checks, deadline=cuda_check.monotonic() + 60)
    assert done.failed == ["small matrix"] and len(done.checks) == 1
    assert done.checks[0]["agreement"] == {"ours cpu float32": 0.0}
    assert "torch cpu float32 failed: it broke" in capsys.readouterr().out
