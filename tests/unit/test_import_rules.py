"""Who may import whom, and what importing must not change."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = {"torch", "diffusers", "peft", "torchvision"}
REFERENCE_SIDE = "jstyle/parity/reference_torch.py"  # runs in a process of its own
COMPARES_THE_TRAINER = "jstyle/parity/training.py"  # one step of it, inside a function


def _sources(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"no sources under {package}"
    return files


def _imports(path, top_level_only=False):
    """Absolute dotted names of everything a file imports; `from a import b` gives a and a.b."""
    tree = ast.parse(path.read_text())
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            keep = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*keep, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _top(name):
    return name.split(".")[0]


def _relative(path):
    return path.relative_to(ROOT).as_posix()


def test_the_backbone_imports_nothing_of_the_packages_around_it():
    for path in _sources("jstyle/sd"):
        for name in _imports(path):
            inside = name == "jstyle.sd" or name.startswith("jstyle.sd.")
            assert inside or _top(name) not in ("jstyle", "jdreambooth"), f"{path}: {name}"


def test_the_trainer_imports_only_the_backbone_and_the_console():
    for path in (ROOT / "jdreambooth").rglob("*.py"):
        for name in _imports(path):
            allowed = name in ("jstyle", "jstyle.__version__")
            allowed |= name.startswith(("jstyle.sd", "jstyle.console"))
            allowed |= path.parent.name == "contest"  # puts both programs together
            assert _top(name) != "jstyle" or allowed, f"{path}: {name}"


def test_the_console_knows_the_backbone_and_no_command():
    for path in _sources("jstyle/console"):
        for name in _imports(path):
            allowed = name in ("jstyle",) or name.startswith(("jstyle.sd", "jstyle.console"))
            assert _top(name) not in ("jstyle", "jdreambooth") or allowed, f"{path}: {name}"


def test_stylisation_does_not_import_the_trainer():
    for path in _sources("jstyle"):
        top_level_only = _relative(path) == COMPARES_THE_TRAINER
        assert "jdreambooth" not in map(_top, _imports(path, top_level_only)), path


def test_the_reference_frameworks_stay_in_tests_and_benchmarks():
    for path in [*_sources("jstyle"), *(ROOT / "jdreambooth").rglob("*.py")]:
        names = set(_imports(path))
        assert "jstyle.parity.reference_torch" not in names, f"{path} brings PyTorch in"
        used = REFERENCE & set(map(_top, names))
        assert not used or _relative(path) == REFERENCE_SIDE, f"{path} imports {used}"


def test_only_the_start_up_imports_jittor():
    folders = [ROOT / name for name in ("jstyle", "jdreambooth", "tests", "benchmarks")]
    users = {
        _relative(path)
        for folder in folders
        for path in folder.rglob("*.py")
        if {"jittor", "jittor_utils"} & set(map(_top, _imports(path)))
    }
    assert users <= {"jstyle/sd/startup.py", "jstyle/sd/toolchain.py"}


def _python(code):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_importing_the_package_loads_nothing_heavy():
    loaded = _python(
        "import json, sys, os; before = dict(os.environ); import jstyle; "
        "from jstyle import StyleConfig; assert dict(os.environ) == before; "
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    heavy = {"jittor", "jittor_utils", "numpy", "PIL", "transformers", "safetensors", *REFERENCE}
    assert not heavy & set(loaded)


def test_the_lazy_names_are_the_real_ones():
    import jstyle
    from jstyle.pipeline import JStyleID
    from jstyle.sd.pipeline import StableDiffusion

    assert jstyle.JStyleID is JStyleID and jstyle.StableDiffusion is StableDiffusion
    assert {"JStyleID", "StableDiffusion", "StyleConfig"} <= set(dir(jstyle))
    assert jstyle.__version__ == "0.1.0"
    with pytest.raises(AttributeError, match="no attribute 'Jstyle'"):
        jstyle.Jstyle  # noqa: B018


SIDE_EFFECTS = """
import importlib, json, pkgutil, random, ssl, sys
import numpy as np
random.seed(3); np.random.seed(3)
before = random.getstate(), repr(np.random.get_state()), ssl._create_default_https_context
from jstyle.sd.startup import jt
names = [n for n in dir(jt.flags) if not n.startswith("_")]
read = lambda: {n: repr(getattr(jt.flags, n)) for n in names}
flags = read()
import jstyle.sd
modules = [m.name for m in pkgutil.walk_packages(jstyle.sd.__path__, "jstyle.sd.")]
for name in modules + ["jstyle.pipeline"]:
    importlib.import_module(name)
after = random.getstate(), repr(np.random.get_state()), ssl._create_default_https_context
changed = [n for n, value in read().items() if value != flags[n]]
kept = [a == b for a, b in zip(before, after)]
print(json.dumps({"modules": len(modules), "flags": len(flags), "changed": changed,
                  "kept": kept, "torch": "torch" in sys.modules}))
"""


def test_importing_the_backbone_changes_no_flag_and_no_random_state():
    found = _python(SIDE_EFFECTS)
    assert found["modules"] > 5 and found["flags"] > 10
    assert found["changed"] == [] and found["kept"] == [True, True, True] and not found["torch"]
