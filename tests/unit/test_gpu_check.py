"""The check of a machine with a GPU: what is compared, what is kept, what a failure costs."""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np
import pytest

from benchmarks import cuda_check, run
from benchmarks.gpu import measure, memory, preflight
from benchmarks.gpu.plan import FULL_WORKS, SMALL_WORKS, plan
from benchmarks.gpu.report import Report
from jstyle.sd.cuda import FIX, Cuda

SMALL = run.SIZES["tiny"]
NO_TORCH = preflight.Torch(reason="No module named 'torch'")
USABLE = Cuda("/x/bin/nvcc", "12.2", True, "", "", 1)


def limits(seconds: float = 60.0) -> measure.Limits:
    return measure.Limits(seconds, seconds)


@pytest.fixture
def turns(monkeypatch):
    """Processes answer from a list, in turn: a value, or an error to raise. Gets what was asked."""
    answers, asked = [], []

    def in_process(words, threads, timeout, python="", more=None, parse=True):
        asked.append(json.loads(words[2]))
        answer = answers.pop(0) if answers else 1.0
        if isinstance(answer, Exception):
            raise answer
        np.save(asked[-1]["result"], np.array([answer]))
        return {"times": [0.5, 0.25], "first": 1.0, "peak_mib": 9.0, "device_mib": 7.0}

    monkeypatch.setattr(run, "in_process", in_process)
    in_process.answers, in_process.asked = answers, asked
    return in_process


def report(folder, torch=NO_TORCH, gpu="a GPU"):
    found = preflight.Preflight(USABLE, torch, gpu, {}, [])
    return Report(folder, found, "python -m benchmarks.cuda_check")


def test_without_cuda_the_check_says_what_is_missing(monkeypatch, capsys, tmp_path):
    none = Cuda("", "", False, "no nvcc was found", "install it", 1)
    monkeypatch.setattr(preflight, "find_cuda", lambda: none)
    monkeypatch.setattr(preflight, "find_torch", lambda python: NO_TORCH)
    assert cuda_check.main(["--out", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "missing: CUDA: no nvcc was found; mend: install it" in said
    assert "missing: PyTorch, so nothing is compared with it: No module" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "told, changed", [("CUDA 13.0 is usable for Jittor through /x", True), ("error: no", False)]
)
def test_a_cuda_that_is_too_new_is_mended_first(monkeypatch, capsys, told, changed):
    new = Cuda("/x/nvcc", "13.0", False, "CUDA 13.0", f"{FIX}; or", 1)
    found = preflight.Preflight(new, NO_TORCH, "", {}, [])
    asked = []

    def call(command, **options):
        asked.append(command[2:])
        return cuda_check.subprocess.CompletedProcess(command, 0, "", told)

    monkeypatch.setattr(cuda_check.subprocess, "run", call)
    assert cuda_check.fix_cuda(found) is changed
    assert asked == [["jstyle", "doctor", "--fix-cuda"]]
    assert not cuda_check.fix_cuda(found._replace(cuda=USABLE)) and len(asked) == 1


def test_without_pytorch_everything_is_compared_with_the_cpu():
    checks = plan(SMALL, None, "", rounds=3)
    assert {side.who for check in checks for side in check.sides} == {"ours"}
    against = [c.sides[1].setting.device for c in checks if c.part == "cpu"]
    assert against == ["cpu"] * len(SMALL_WORKS)


def test_speed_is_measured_in_turns_with_each_dtype_of_pytorch(turns):
    cuda = run.replace(SMALL, device="cuda")
    checks = [c for c in plan(cuda, None, "cuda", rounds=2) if c.part == "speed"]
    assert [check.work for check in checks] == list(FULL_WORKS)
    found = measure.check(checks[0], NO_TORCH, limits())
    order = [(a["side"], a["setting"]["dtype"]) for a in turns.asked]
    assert order[:5] == [
        ("ours", "float32"),
        ("ours", "float16"),
        ("torch", "float32"),
        ("torch", "bfloat16"),
        ("torch", "float16"),
    ]
    assert order[5:] == order[:5] and found["state"] == "ok"
    assert all(len(turns) == 2 for turns in found["sides"].values())


def test_a_pytorch_that_computes_on_the_cpu_is_no_rival_in_speed():
    checks = plan(SMALL, None, "cpu", rounds=1)
    speed = [c for c in checks if c.part == "speed"]
    assert {side.who for check in speed for side in check.sides} == {"ours"}
    assert any(side.who == "torch" for check in checks for side in check.sides)


def test_what_disagrees_fails_and_what_is_late_is_said(turns, tmp_path, capsys, monkeypatch):
    checks = plan(run.replace(SMALL, device="cuda"), None, "", rounds=1)[:3]
    turns.answers += [1.0, 1.0, 1.0, 1.01]
    clock = limits()
    calls = iter([False] * 6)
    monkeypatch.setattr(clock, "over", lambda: next(calls, True))
    kept = report(tmp_path)
    measure.run_all(checks, NO_TORCH, clock, kept.add)
    assert [c["state"] for c in kept.record["checks"]] == ["ok", "FAILED", "late"]
    assert kept.named("FAILED") == ["small text, CPU"]
    assert "9.9e-03 from ours cpu float32" in capsys.readouterr().out
    assert json.loads((tmp_path / "gpu.json").read_text()) == json.loads(json.dumps(kept.record))


def test_a_side_that_fails_costs_its_own_result_only(turns, tmp_path):
    check = plan(run.replace(SMALL, device="cuda"), None, "cuda", rounds=2)[-4]
    assert check.part == "speed" and len(check.sides) == 5
    turns.answers += [1.0, 1.0, run.TurnError("it\nbroke | here"), 1.0, 1.0]
    found = measure.check(check, NO_TORCH, limits())
    assert found["state"] == "FAILED" and list(found["failed"]) == ["torch cuda float32"]
    assert len(found["sides"]) == 4 and len(turns.asked) == 9  # not asked again
    kept = report(tmp_path)
    kept.add(found)
    table = (tmp_path / "gpu.md").read_text()
    assert "| torch cuda float32 | failed |" in table and "broke / here |" in table
    assert {line.count("|") for line in table.splitlines()[2:]} == {10}


def test_the_table_has_the_ratio_to_pytorch_memory_and_its_plan(turns, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "expected_mib", lambda work, setting: 8.0)
    check = plan(run.replace(SMALL, device="cuda"), None, "cuda", rounds=1)[-4]
    kept = report(tmp_path)
    kept.start(61.0)
    kept.add(measure.check(check, NO_TORCH, limits()))
    table = (tmp_path / "gpu.md").read_text()
    assert table.startswith("a GPU; CUDA 12.2; no PyTorch;") and "start 61 s" in table
    ours = next(line for line in table.splitlines() if "| ours cuda float16 |" in line)
    assert ours.split(" | ")[2:] == [
        "ours cuda float16",
        "375.0",
        "1.00",
        "1.00",
        "7",
        "8",
        "0.0e+00 |",
    ]


def test_a_missing_plan_of_memory_is_no_fault(monkeypatch):
    monkeypatch.setattr(memory, "PLAN", "jstyle.no_such_plan")
    assert memory.expected_mib("unet", SMALL) is None


def test_a_process_that_takes_too_long_ends_with_what_it_started(tmp_path):
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    begin = time.monotonic()
    with pytest.raises(run.TurnError, match="not finished after 2 s"):
        run.in_process(["-c", code], 1, 2.0)
    assert time.monotonic() - begin < 30
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        state = f"/proc/{pid}/stat"
        if not os.path.exists(state) or open(state).read().split()[2] == "Z":
            break
        time.sleep(0.1)
    else:
        pytest.fail("the child lives on")


def test_a_start_that_computes_wrongly_is_an_error(monkeypatch):
    monkeypatch.setattr(run, "in_process", lambda *words: {"seconds": 1.0, "value": float("nan")})
    with pytest.raises(run.TurnError, match="a product of ones on CUDA is nan"):
        measure.start(limits())


def test_a_core_that_was_renewed_is_started_once_more(monkeypatch):
    answers = [
        run.TurnError("has changed; run the command again"),
        {"seconds": 1, "value": 64.0**3},
    ]

    def in_process(*words):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(run, "in_process", in_process)
    assert measure.start(limits())["seconds"] == 1


def test_the_machine_s_own_python_gets_neither_our_packages_nor_our_libraries(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/carried/packages")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/carried/python/lib:/own")
    monkeypatch.setenv("JSTYLE_LIBRARY_PATH_BEFORE", "/own")
    monkeypatch.setenv("JSTYLE_REFERENCE", "/carried/reference")
    found = preflight.environment("/opt/torch/bin/python3")
    assert found["LD_LIBRARY_PATH"] == "/own" and "packages" not in found["PYTHONPATH"]
    assert found["PYTHONPATH"].endswith(":/carried/reference")
    assert "/carried/packages" in preflight.environment(sys.executable)["PYTHONPATH"]


def test_a_python_without_pytorch_is_named_with_the_reason():
    found = preflight.find_torch("/bin/false")
    assert found.python == "" and found.reason == "/bin/false: exit status 1"


def test_the_pair_s_features_are_counted_as_the_pipeline_does():
    from benchmarks.works import STYLE_SITES
    from jstyle import JStyleID, StyleConfig
    from jstyle.sd.pipeline import StableDiffusion

    styler = JStyleID(StableDiffusion.from_pretrained("tiny"))
    cfg = StyleConfig(steps=SMALL.steps, sites=STYLE_SITES)
    shape = (1, 3, SMALL.size_px, SMALL.size_px)
    wanted = sum(styler.feature_bytes(cfg, shape, parts) for parts in ("q", "kv"))
    assert memory._features(SMALL) == wanted


@pytest.mark.parametrize("work", [*SMALL_WORKS, "load"])
def test_the_plan_of_memory_knows_the_works(work):
    pytest.importorskip("jstyle.memory")
    single = memory.expected_mib(work, SMALL)
    if work in ("matrix", "load"):
        assert single is None
        return
    larger = run.replace(SMALL, size_px=2 * SMALL.size_px)
    assert 1 < single < 2000 and (work == "text" or memory.expected_mib(work, larger) > single)
