"""Commands run as a user runs them: in a process of their own, on a tiny model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jstyle.sd import image
from tests.pictures import picture

ROOT = Path(__file__).resolve().parents[2]


def environment(**more) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, **more}


@pytest.fixture
def jstyle(tmp_path):
    """jstyle("stylize", "--content", path, ...) -> CompletedProcess, run in tmp_path."""

    def run(*words, env=(), **options):
        command = [sys.executable, "-m", "jstyle", *map(str, words)]
        options = {"cwd": tmp_path, "capture_output": True, "text": True, **options}
        return subprocess.run(command, env=environment(**dict(env)), timeout=900, **options)

    return run


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A tiny v_prediction model in diffusers format."""
    from tests.tiny import make_ours

    folder = tmp_path_factory.mktemp("model")
    make_ours("sd2").save_pretrained(folder, "float32")
    return folder


@pytest.fixture
def photos(tmp_path):
    return make_pictures(tmp_path / "photos", ("hill", "lake", "tree"))


@pytest.fixture
def paintings(tmp_path):
    return make_pictures(tmp_path / "paintings", ("ink", "oil"))


def make_pictures(folder: Path, names) -> Path:
    folder.mkdir()
    for name in names:
        pixels = image.to_uint8(picture(sum(map(ord, name))))[0]
        image.save_png(folder / f"{name}.png", pixels)
    return folder


def names_in(folder: Path) -> list[str]:
    """All files, hidden ones too; folders may come and go meanwhile."""
    return sorted(name for _, _, names in os.walk(folder) for name in names)
