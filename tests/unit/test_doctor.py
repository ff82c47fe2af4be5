from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jstyle import machine
from jstyle.commands import doctor
from jstyle.sd import hub

ROOT = Path(__file__).resolve().parents[2]


def by_name(checks):
    return {check.name: check for check in checks}


def without_probe(monkeypatch, **env):
    monkeypatch.setattr(doctor, "_run_probe", lambda: pytest.fail("Jittor must not be started"))
    for name, value in env.items():
        monkeypatch.setenv(name, value)


def test_a_missing_compiler_is_named_with_its_mend_and_stops_the_rest(monkeypatch):
    without_probe(monkeypatch, cc_path="no-such-compiler")
    checks = by_name(doctor.examine())
    assert checks["compiler"].state == doctor.FAIL and "apt install" in checks["compiler"].mend
    assert checks["jittor"].found == "not tried: mend compiler first"
    assert "cc_path=no-such-compiler" in checks["variables"].found
    assert not doctor.can_run(list(checks.values()))


def test_a_compiler_that_cannot_compile_is_found_out(monkeypatch, tmp_path):
    compiler = tmp_path / "g++"
    compiler.write_text(
        "#!/bin/sh\n[ $1 = --version ] && echo g++ 1 || { echo error: no >&2; exit 1; }\n"
    )
    compiler.chmod(0o755)
    without_probe(monkeypatch, cc_path=str(compiler))
    check = by_name(doctor.examine())["compiler"]
    assert check.state == doctor.FAIL and "error: no" in check.found


def test_a_home_that_cannot_be_written_fails_the_cache(monkeypatch, tmp_path):
    (tmp_path / "home").write_text("a file")
    without_probe(monkeypatch, HOME=str(tmp_path / "home"))
    monkeypatch.delenv("JITTOR_HOME", raising=False)
    check = by_name(doctor.examine())["cache"]
    assert check.state == doctor.FAIL and "set HOME" in check.mend


def test_a_fresh_home_announces_the_compilation_and_can_run(monkeypatch, tmp_path):
    without_probe(monkeypatch, HOME=str(tmp_path))
    monkeypatch.delenv("JITTOR_HOME", raising=False)
    checks = by_name(doctor.examine())
    assert "two to five minutes" in checks["cache"].found
    assert checks["jittor"].state == doctor.OK and "not compiled yet" in checks["jittor"].found


def test_onednn_switched_off_is_slow_but_runs(monkeypatch, tmp_path):
    without_probe(monkeypatch, HOME=str(tmp_path), use_mkl="0")
    check = by_name(doctor.examine())["oneDNN"]
    assert check.state == doctor.SLOW and "use_mkl" in check.found and check.mend


def test_an_incomplete_shipped_model_fails(monkeypatch, tmp_path):
    without_probe(monkeypatch, HOME=str(tmp_path))
    monkeypatch.setattr(hub, "TINY", tmp_path)
    check = by_name(doctor.examine())["model"]
    assert check.state == doctor.FAIL and str(tmp_path) in check.found


def test_the_screen_shows_every_check_and_every_mend():
    checks = [doctor.Check("a", doctor.OK, "fine"), doctor.Check("bcd", doctor.FAIL, "x", "do y")]
    text = doctor.as_text(checks)
    assert text.splitlines()[0] == "ok    a    fine"
    assert "-> do y" in text and text.endswith("not ready: mend what is marked FAIL")
    assert json.loads(doctor.as_json(checks))["can_run"] is False
    assert doctor.as_text(checks[:1]).endswith("`jstyle demo` can run here")


def test_the_probe_really_starts_jittor():
    out = doctor._run_probe()
    assert out["device"] in ("cpu", "cuda") and out["first"] > 0


def test_a_start_that_breaks_is_reported_not_raised(monkeypatch):
    monkeypatch.setattr(doctor, "PROBE", "raise SystemExit('the toolkit is broken')")
    check = doctor._jittor([])
    if not doctor.is_compiled():
        pytest.skip("nothing is compiled here, so nothing is tried")
    assert check.state == doctor.FAIL and "the toolkit is broken" in check.found


def test_the_exit_code_says_whether_it_can_run():
    command = [sys.executable, "-m", "jstyle", "doctor", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    found = json.loads(done.stdout)
    assert done.returncode == (0 if found["can_run"] else 1)
    assert {"python", "compiler", "oneDNN", "cache", "model", "jittor"} <= {
        check["name"] for check in found["checks"]
    }


def test_free_memory_respects_the_limit_of_a_container(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    unlimited = machine.free_memory_bytes()
    assert unlimited > 1e6
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("4500000\n")
    (tmp_path / "memory.stat").write_text("anon 4200000\ninactive_file 300000\n")
    assert machine.free_memory_bytes() == 800_000
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.free_memory_bytes() > 1e6
