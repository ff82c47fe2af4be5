"""Lint, format and types are part of the tests; public signatures say what they take and give."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("jstyle", "jdreambooth")


def _run(*words, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", *map(str, words)], cwd=cwd, capture_output=True, text=True
    )


@pytest.mark.parametrize("words", [("check",), ("format", "--check")])
def test_ruff_has_nothing_to_say(words):
    done = _run("ruff", *words, "--no-cache", ".")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("mypy")


def test_the_types_of_both_packages_fit_together(cache):
    done = _run("mypy", "--cache-dir", cache)
    assert done.returncode == 0, done.stdout + done.stderr


WRONG = {
    "a missing argument": "adain(content=None)",
    "text for a number": "StyleConfig(steps='many')",
    "a method that is not there": "StyleConfig().presets()",
    "another return type": "returns()",
}


def test_wrong_calls_are_found(cache, tmp_path):
    lines = ["from jstyle.adain import adain", "from jstyle.config import StyleConfig", ""]
    lines += ["def returns() -> str:", "    return StyleConfig()", "", *WRONG.values()]
    (tmp_path / "wrong.py").write_text("\n".join(lines) + "\n")
    config = ("--config-file", ROOT / ".mypy.ini")
    done = _run("mypy", "--cache-dir", cache, *config, tmp_path / "wrong.py")
    found = [int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line]
    assert set(found) == {5, 7, 8, 9}, done.stdout


def _public_functions(tree):
    """(name in full, node, whether its first argument is the object or the class)."""
    todo = [("", tree)]
    while todo:
        start, owner = todo.pop()
        for node in owner.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                todo.append((f"{start}{node.name}.", node))
            elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                static = any(getattr(d, "id", None) == "staticmethod" for d in node.decorator_list)
                yield start + node.name, node, bool(start) and not static


def _bare(node, method):
    """What a function's signature leaves without a type."""
    args = node.args
    named = [*args.posonlyargs, *args.args][int(method) :] + args.kwonlyargs
    named += [arg for arg in (args.vararg, args.kwarg) if arg is not None]
    return [a.arg for a in named if a.annotation is None] + ["return"] * (node.returns is None)


def test_every_public_function_has_an_annotated_signature():
    files = [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]
    trees = {path: ast.parse(path.read_text()) for path in files}
    functions = [(path, *found) for path in files for found in _public_functions(trees[path])]
    bare = {
        f"{path.relative_to(ROOT)}:{node.lineno} {name}": missing
        for path, name, node, method in functions
        if (missing := _bare(node, method))
    }
    assert len(functions) > 800 and bare == {}
