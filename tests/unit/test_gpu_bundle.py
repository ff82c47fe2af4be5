"""What is carried to a machine with a GPU: in parts, whole, and startable there."""

from __future__ import annotations

import io
import json
import lzma
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from benchmarks.gpu import pack, unpack

PACKAGE = {"packages/thing.py": "value = 7\n", "packages/data.bin": os.urandom(300_000)}


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """A small bundle in several parts, with a Python of another version."""
    monkeypatch.setattr(pack, "MOST", 100_000)
    source, folder = tmp_path / "source", tmp_path / "parts"
    for name, content in PACKAGE.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (source / "project").mkdir()
    (source / "project/main.py").write_text("import thing; print(thing.value)\n")
    (source / "project/main.pyc").write_text("left out")
    (source / "python/bin").mkdir(parents=True)
    (source / "python/bin/python2.9").write_text("#!/bin/sh\necho the carried one: $1\n")
    (source / "python/bin/python2.9").chmod(0o755)

    def files(name):
        top = source / name
        return ((p, str(p.relative_to(top))) for p in top.rglob("*") if p.is_file())

    monkeypatch.setattr(pack, "of_project", lambda: files("project"))
    monkeypatch.setattr(pack, "of_packages", lambda names, deep=True: files("packages"))
    monkeypatch.setattr(pack, "of_python", lambda prefix: files("python"))
    assert pack.main(["--out", str(folder)]) == 0
    return folder


def start(parts: Path, folder: Path, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-I", parts / "unpack.py", folder, *words]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True)


def as_of(parts: Path, version: str) -> None:
    bundle = json.loads((parts / "bundle.json").read_text())
    (parts / "bundle.json").write_text(json.dumps(bundle | {"python": version}))


def test_no_part_is_larger_than_what_can_be_carried(parts):
    sizes = [path.stat().st_size for path in parts.glob("packages.tar.xz.*")]
    assert len(sizes) == 4 and max(sizes) == 100_000


def test_the_same_input_gives_the_same_bytes(parts, tmp_path):
    assert pack.main(["--out", str(tmp_path / "again")]) == 0
    for path in parts.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_unpacked_it_starts_with_this_python_where_that_fits(parts, tmp_path):
    done = start(parts, tmp_path / "there")
    assert done.returncode == 0 and "run -m benchmarks.cuda_check" in done.stdout, done.stderr
    assert not (tmp_path / "there/python").exists()
    assert not (tmp_path / "there/project/main.pyc").exists()
    ran = subprocess.run([tmp_path / "there/run", "main.py"], capture_output=True, text=True)
    assert ran.stdout == "7\n", ran.stderr
    data = (tmp_path / "there/packages/data.bin").read_bytes()
    assert data == PACKAGE["packages/data.bin"]


def test_the_python_that_came_along_is_used_where_this_one_is_refused(parts, tmp_path):
    as_of(parts, "2.9")
    done = start(parts, tmp_path / "there")
    assert "the Python that came along is used: this Python is 3." in done.stdout, done.stderr
    ran = subprocess.run([tmp_path / "there/run", "x.py"], capture_output=True, text=True)
    assert ran.stdout == "the carried one: x.py\n"


def test_without_a_python_that_fits_nothing_is_unpacked(parts, tmp_path):
    as_of(parts, "2.9")
    bundle = json.loads((parts / "bundle.json").read_text())
    del bundle["parts"]["python"]
    (parts / "bundle.json").write_text(json.dumps(bundle))
    done = start(parts, tmp_path / "there")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "packages are for 2.9, and none was packed" in done.stderr
    assert not (tmp_path / "there").exists()


def test_parts_that_are_missing_or_damaged_are_named_before_anything_is_written(parts, tmp_path):
    (parts / "packages.tar.xz.001").unlink()
    path = parts / "packages.tar.xz.002"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    done = start(parts, tmp_path / "there")
    assert done.returncode == 1 and not (tmp_path / "there").exists()
    assert "not there: packages.tar.xz.001; damaged: packages.tar.xz.002" in done.stderr


@pytest.mark.parametrize("name, kind", [("../out", tarfile.REGTYPE), ("link", tarfile.SYMTYPE)])
def test_an_archive_cannot_write_outside(tmp_path, name, kind):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, "/etc/passwd"
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(entry, io.BytesIO(b""))
    (tmp_path / "part").write_bytes(lzma.compress(data.getvalue()))
    with pytest.raises(unpack.UnpackError, match="no plain file"):
        unpack.extract(tmp_path, [{"file": "part"}], tmp_path / "folder")
    assert not (tmp_path / "out").exists()


def test_a_library_that_the_system_has_is_not_carried_in_front_of_it(tmp_path):
    for name in ("libc.so.6", "libnot-there.so.1"):
        (tmp_path / name).write_text("")
    unpack.drop_known_libraries(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["libnot-there.so.1"]


def test_everything_that_the_package_needs_is_packed_and_no_pytorch():
    known = {}
    for requirement in pack.runtime():
        pack.needed(requirement, known)
    assert {"jittor", "jittor-offline", "numpy", "tokenizers", "typeshed-client"} <= set(known)
    assert not {"torch", "pytest", "ray"} & set(known)


def test_what_is_not_installed_is_named():
    with pytest.raises(pack.PackError, match="no-such-thing is not installed in"):
        pack.needed("no-such-thing>=2", {})


def test_a_folder_with_files_and_a_system_python_are_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert pack.main(["--out", str(tmp_path)]) == 1
    assert "holds files already" in capsys.readouterr().err
    with pytest.raises(pack.PackError, match="no folder of its own"):
        list(pack.of_python(Path("/usr")))


def test_the_project_that_is_packed_is_complete():
    names = {name for _, name in pack.of_project()}
    assert {"jstyle/sd/cuda_headers/cudnn.h", "benchmarks/cuda_check.py", "setup.py"} <= names
    assert any(name.startswith("jstyle/models/tiny/") for name in names)
    assert not any(name.startswith("benchmarks/results/") for name in names)
