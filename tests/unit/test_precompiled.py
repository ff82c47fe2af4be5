"""The stand-in for g++ that precompiles Jittor's headers."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

from jstyle.sd import precompiled

JITTOR = Path(importlib.util.find_spec("jittor_utils").origin).parents[1] / "jittor"
OPTIONS = ["-std=c++14", "-fPIC", "-O1", f"-I{JITTOR / 'src'}", f"-I{JITTOR / 'extern'}"]
OPTIONS += [f"-I{sysconfig.get_paths()['include']}"]
KERNEL = """#define JIT 1
#define JIT_cpu 1
#include <cmath>
#include "var.h"
#include "ops/op_register.h"
#define T float32
namespace jittor {
T number_%d(Var* x) { return std::sqrt((T)x->size) + %d; }
}
"""


@pytest.fixture(scope="module")
def compiler(tmp_path_factory):
    found = precompiled.stand_in(tmp_path_factory.mktemp("cache of mine"))
    assert found is not None
    return found


def run(*words):
    return subprocess.run([str(word) for word in words], capture_output=True, text=True)


def instructions(path):
    """The lines of an assembler's file that are no directive, label or comment."""
    return [line for line in path.read_text().splitlines() if re.match(r"\t[^.]", line)]


def test_kernels_share_one_parsed_header_and_stay_the_same(compiler, tmp_path):
    (tmp_path / "jit").mkdir()
    headers = []
    for number in range(4):
        source = tmp_path / "jit" / f"a_{number}_op.cc"
        source.write_text(KERNEL % (number, number))
        ours, theirs = source.with_suffix(".s"), source.with_suffix(".plain.s")
        done = run(compiler, source, *OPTIONS, "-S", "-o", ours)
        assert (done.returncode, done.stderr) == (0, "")
        assert run("g++", source, *OPTIONS, "-S", "-o", theirs).returncode == 0
        assert instructions(ours) == instructions(theirs) and len(instructions(ours)) > 5
        headers.append(len(list(compiler.parent.glob("kernel-*/headers.h.gch"))))
    assert headers == [0, 0, 1, 1]  # worth its time from the third kernel on


def test_other_options_have_a_header_of_their_own(compiler, tmp_path):
    before = set(compiler.parent.glob("kernel-*"))
    (tmp_path / "jit").mkdir()
    source = tmp_path / "jit" / "b_op.cc"
    source.write_text(KERNEL % (1, 1))
    done = run(compiler, source, *OPTIONS, "-DOTHER=1", "-S", "-o", tmp_path / "b.s")
    assert done.returncode == 0 and len(set(compiler.parent.glob("kernel-*")) - before) == 1


def test_everything_else_passes_through(compiler, tmp_path):
    source = tmp_path / "plain.cc"
    source.write_text("int main(int n, char**) { return n + 6; }\n")
    assert run(compiler, "--version").stdout == run("g++", "--version").stdout
    assert run(compiler, source, "-o", tmp_path / "program").returncode == 0
    assert run(tmp_path / "program").returncode == 7
    source.write_text("no C++\n")
    done = run(compiler, source, "-c", "-o", tmp_path / "plain.o")
    assert done.returncode == 1 and "plain.cc" in done.stderr


def test_another_compiler_has_another_folder_and_one_that_is_not_gnu_has_none(
    tmp_path, monkeypatch
):
    first = precompiled.stand_in(tmp_path)
    assert precompiled.stand_in(tmp_path) == first
    bins = tmp_path / "bin"
    bins.mkdir()
    other = bins / "g++"
    other.write_text("#!/bin/sh\necho 'g++ 9.9.9, Free Software Foundation'\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(bins), prepend=":")
    second = precompiled.stand_in(tmp_path)
    assert second != first and (second.parent / "compiler").read_text() == str(other)
    other.write_text("#!/bin/sh\necho clang\n")
    assert precompiled.stand_in(tmp_path) is None
