"""Rules of the code that no single test of behaviour would notice being broken."""

from __future__ import annotations

import ast

import pytest

from jstyle.methods import METHODS, find_method
from tests.unit.test_import_rules import ROOT, _imports, _relative, _sources

SOURCES = [*_sources("jstyle"), *_sources("jdreambooth")]


def _with_owner(tree):
    """(node, name of the innermost function that it is in) of everything in a file."""
    todo = [(tree, "")]
    while todo:
        node, owner = todo.pop()
        yield node, owner
        inside = node.name if isinstance(node, ast.FunctionDef) else owner
        todo += [(child, inside) for child in ast.iter_child_nodes(node)]


# Loops over timesteps: one that samples, and the walks of the samplers

MAY_LOOP = {
    ("jstyle/pipeline.py", "feature_bytes"): "counts them",
    ("jstyle/pipeline.py", "_sites"): "compares them with the window",
}
LISTS_OF_STEPS = {"timesteps", "steps"}  # schedule.timesteps(...), run.steps, plan.levels.steps


def _names_timesteps(node, known=()):
    for part in ast.walk(node):
        called = part.func if isinstance(part, ast.Call) else None
        if getattr(called, "attr", getattr(called, "id", "")) == "timesteps":
            return True
        if isinstance(part, ast.Attribute) and part.attr == "steps":
            owner = getattr(part.value, "attr", getattr(part.value, "id", ""))
            if owner in ("run", "levels", "plan"):
                return True
        if isinstance(part, ast.Name) and part.id in known:
            return True
    return False


def loops_over_timesteps(source):
    """(line, function) of loops and comprehensions over a list of sampling timesteps."""
    nodes = list(_with_owner(ast.parse(source)))
    known = {
        (owner, target.id)
        for node, owner in nodes
        if isinstance(node, ast.Assign) and _names_timesteps(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node, owner in nodes:
        if isinstance(node, ast.For | ast.comprehension):
            if _names_timesteps(node.iter, {name for where, name in known if where == owner}):
                yield node.iter.lineno, owner


def test_only_the_sampling_loop_and_the_samplers_walk_over_timesteps():
    found = set()
    for path in SOURCES:
        name = _relative(path)
        if name != "jstyle/sd/sampling.py" and not name.startswith("jstyle/sd/samplers/"):
            found |= {(name, owner) for _, owner in loops_over_timesteps(path.read_text())}
    assert found == set(MAY_LOOP)


@pytest.mark.parametrize(
    "source",
    [
        "for t in schedule.timesteps(30):\n    pass",
        "for i, t in enumerate(timesteps(cfg, 30)):\n    pass",
        "for _, here, there in plan.levels.steps:\n    pass",
        "def f():\n    ts = sd.schedule.timesteps(3)[::-1]\n    for t in ts:\n        pass",
        "zs = [unet(z, t) for t in sd.schedule.timesteps(3)]",
    ],
)
def test_a_loop_over_timesteps_is_seen(source):
    assert list(loops_over_timesteps(source))
    assert not list(loops_over_timesteps("for step in range(cfg.steps):\n    train()"))


# Patches: hooks.py is the one place that changes what an object does

PATCHED = {"execute", "__class__", "__dict__", "__call__", "__code__"}


def _root(node):
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return getattr(node, "id", None)


def _is_dict(node):
    called = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "vars"
    return called or (isinstance(node, ast.Attribute) and node.attr == "__dict__")


def _targets(node):
    if isinstance(node, ast.Assign | ast.Delete):
        return node.targets
    return [node.target] if isinstance(node, ast.AugAssign | ast.AnnAssign) else []


def patches(source):
    """(line, what) of every change to what an object does, or to a name of a module."""
    tree = ast.parse(source)
    nodes = list(_with_owner(tree))
    modules = {
        (alias.asname or alias.name).split(".")[0]
        for node, _ in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    for node, owner in nodes:
        for target in _targets(node):
            if isinstance(target, ast.Attribute) and target.attr in PATCHED:
                yield node.lineno, ast.unparse(target)
            elif isinstance(target, ast.Subscript) and _is_dict(target.value):
                yield node.lineno, ast.unparse(target)
            elif isinstance(target, ast.Attribute) and _root(target) in modules:
                yield node.lineno, ast.unparse(target)
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            own = node.args and ast.unparse(node.args[0]) == "self"
            if isinstance(node.func, ast.Attribute) and _is_dict(node.func.value):
                if node.func.attr in ("update", "pop", "setdefault", "clear"):
                    yield node.lineno, name
            elif name in ("setattr", "delattr") and not (own and owner == "__init__"):
                yield node.lineno, ast.unparse(node)
            elif name.endswith(".__setattr__") and not (own and owner == "__post_init__"):
                yield node.lineno, ast.unparse(node)


MAY_PATCH = {
    "jstyle/sd/runtime.py": {"jt.flags.use_cuda"},  # the device is a flag of Jittor
    "jstyle/sd/picture_files.py": {"Image.MAX_IMAGE_PIXELS"},  # Pillow's limit; is put back
    "jstyle/sd/startup.py": {  # what Jittor's import does to a process
        "ssl._create_default_https_context",
        "jittor_utils.DelayProgress",
        "jittor_utils.LOG.log_silent",
        "jittor_utils.run_cmds",
        "jittor_utils.try_import_jit_utils_core",
        "jittor.flags.log_silent",
    },
}


def test_only_the_hooks_change_what_a_network_or_a_module_does():
    found = {}
    for path in SOURCES:
        for _, what in patches(path.read_text()):
            found.setdefault(_relative(path), set()).add(what)
    assert found.pop("jstyle/sd/hooks.py")
    assert found == MAY_PATCH


@pytest.mark.parametrize(
    "source",
    [
        "unet.execute = other",
        "layer.__class__ = Other",
        "layer.__dict__['execute'] = other",
        "layer.__dict__.update(execute=other)",
        "vars(layer).pop('execute')",
        "del layer.__dict__['execute']",
        "import numpy as np\nnp.random.seed = other",
        "from . import image\nimage.load = other",
        "def f(layer):\n    setattr(layer, 'weight', 3)",
        "def f(cfg):\n    object.__setattr__(cfg, 'steps', 3)",
    ],
)
def test_a_patch_is_seen(source):
    assert list(patches(source))
    own = "class A:\n    def __post_init__(self):\n        object.__setattr__(self, 'a', 1)"
    assert not list(patches(own)) and not list(patches("self.execute_all = unet.execute"))


# Methods: known by their row in METHODS

LINES = ["jstyle/cli.py", "jstyle/options.py", "jstyle/commands/stylize.py"]


def names_of_methods(source, names, classes):
    """(line, what) of a method's name as a value, or its class, in code; documents may name it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and node.value in names:
            yield node.lineno, node.value
        for word in (getattr(node, "id", None), getattr(node, "attr", None)):
            if word in classes:
                yield node.lineno, word
        if isinstance(node, ast.Import | ast.ImportFrom):
            imported = {part for alias in node.names for part in alias.name.split(".")}
            imported |= set((getattr(node, "module", None) or "").split("."))
            yield from ((node.lineno, word) for word in imported & (classes | names))


def _methods():
    return set(METHODS), {find_method(name).__name__ for name in METHODS}


def test_the_trainer_and_the_command_lines_name_no_single_method():
    files = [*_sources("jdreambooth"), *(ROOT / name for name in LINES)]
    found = [
        (_relative(path), *what)
        for path in files
        for what in names_of_methods(path.read_text(), *_methods())
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    ["x = 'styleid'", "from jstyle.methods.styleid import METHOD", "a = StyleID(sd)"],
)
def test_a_method_that_is_named_is_seen(source):
    assert list(names_of_methods(source, *_methods()))
    assert not list(names_of_methods("help = 'such as styleid'", *_methods()))


# Arrows between the folders: what each may import besides itself

ARROWS = {
    "jstyle/sd/kernels": {"jstyle/sd"},
    "jstyle/sd/rng": {"jstyle/sd"},
    "jstyle/sd/prompts": {"jstyle/sd"},
    "jstyle/sd/samplers": {"jstyle/sd", "jstyle/sd/rng", "jstyle/sd/prompts"},
    "jstyle/sd": {f"jstyle/sd/{name}" for name in ("kernels", "rng", "samplers", "prompts")},
    "jstyle/methods": {"jstyle", "jstyle/sd", "jstyle/sd/samplers"},
    "jstyle/score/networks": {"jstyle/score", "jstyle/sd", "jstyle/sd/kernels"},
    "jstyle/score/metrics": {
        "jstyle/score",
        "jstyle/score/networks",
        "jstyle/sd",
        "jstyle/sd/kernels",
    },
    "jstyle/score": {"jstyle/score/metrics", "jstyle/score/networks", "jstyle/sd"},
    "jstyle/memory": {"jstyle/sd"},
    "jdreambooth/drawings": set(),
    "jdreambooth/trainables": {"jdreambooth", "jstyle/sd", "jstyle/sd/prompts"},
}
PURE = ["jstyle/sd/schedule.py", *(_relative(p) for p in _sources("jstyle/sd/samplers"))]
NETWORKS = {f"jstyle.sd.{name}" for name in ("layers", "attention", "unet", "vae", "clip")}
UNDER_NETWORKS = {"jstyle.sd.config", "jstyle.sd.kernels", "jstyle.sd.startup", "jstyle.sd.facts"}


def _modules():
    """Dotted name -> path of every file; a package's name stands for its __init__.py."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in SOURCES}
    return {name.removesuffix(".__init__"): path for name, path in names.items()}


def _imported(path, modules):
    """The files of ours that a file imports by name; `from . import a` is a alone."""
    return {modules[name] for name in _imports(path) if name in modules} - {path}


def test_folders_import_only_those_below_them():
    modules, found = _modules(), {}
    for path in SOURCES:
        folder = _relative(path.parent)
        for other in _imported(path, modules):
            if other != ROOT / "jstyle/__init__.py":  # its version
                found.setdefault(folder, set()).add(_relative(other.parent))
    for folder, allowed in ARROWS.items():
        assert found.get(folder, set()) - {folder} <= allowed, folder


def test_schedules_and_samplers_are_arithmetic_without_a_backbone():
    for name in PURE:
        assert "jstyle.sd.startup" not in set(_imports(ROOT / name)), name


def test_networks_know_no_files_and_no_console():
    for name in NETWORKS:
        path = _modules()[name]
        ours = {n for n in _imports(path) if n in _modules() and n != "jstyle.sd"}
        assert ours <= NETWORKS | UNDER_NETWORKS, name
